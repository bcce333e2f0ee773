"""Measuring adapters on a small random base: what is drawn once, what is left out and said, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sd_lora.errors import BaseModelError, ConfigError
from sd_lora.evaluation.calibration import Calibration, calibrate, calibration_of, keep_calibration
from sd_lora.evaluation.drawing import Drawing, Illustrator
from sd_lora.evaluation.evaluator import Evaluator, Materials
from sd_lora.evaluation.prompts import crossed_prompts
from sd_lora.tinybase.styles import render
from sd_lora.tinybase.world import sample_scene

QUICK = Drawing(inference_steps=2, guidance=1.0)
PROMPTS = crossed_prompts(8)


def pictures(count: int, style: str = "woodcut", first: int = 0) -> list[Image.Image]:
    return [render(sample_scene(seed), style, 64) for seed in range(first, first + count)]


@pytest.fixture(scope="module")
def calibration(loaded_random_sd: Any) -> Calibration:
    prompts = crossed_prompts(48)
    return calibrate(loaded_random_sd, Illustrator(loaded_random_sd, QUICK).draw(prompts), "random", {})


class Counting(Illustrator):
    """Counts the pictures that are drawn."""

    drawn = 0

    def _drawn(self, prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        self.drawn += len(prompts)
        return super()._drawn(prompts, seeds)


def evaluator(pipe: Any, calibration: Calibration, folder: Path | None = None, **materials: Any) -> Evaluator:
    given = {"references": pictures(6), "prompts": PROMPTS, **materials}
    return Evaluator(Counting(pipe, QUICK, folder), Materials(**given), calibration)


def test_an_adapter_that_does_nothing_scores_nothing(random_sd, trained_adapter, calibration) -> None:
    dead = trained_adapter(random_sd, std=0.0)
    (measured,), _ = evaluator(random_sd, calibration).measure([("dead", dead, 1.0)])
    assert measured.style.low <= 0 <= measured.style.high
    assert measured.style.value == pytest.approx(0, abs=1e-6)
    assert measured.content is None  # a random base reads nothing, which is said
    assert any(note.startswith("content: the base model reads") for note in measured.notes)
    assert measured.diversity == pytest.approx(1)


def test_what_it_prints_is_what_is_documented(random_sd, trained_adapter, calibration) -> None:
    adapter = trained_adapter(random_sd)
    adapter.metadata["sdlora.trigger"] = "zwq"
    bank = {"neon": pictures(4, "neon"), "sepia": pictures(4, "sepia")}
    (measured,), _ = evaluator(random_sd, calibration, bank=bank).measure([("one", adapter, 0.5)])
    facts = json.loads(json.dumps(measured.to_json()))
    assert facts["style"].keys() == {"score", "interval", "closed", "nearest_other"}
    assert facts["style"]["nearest_other"]["name"] in bank
    assert facts["content"].keys() == {"relative", "interval"}
    assert facts["drift"].keys() == {"layout", "style"}
    assert facts["leak"].keys() == {"share", "interval", "copies"}
    assert facts["diversity"].keys() == {"relative"}
    assert facts["burn"].keys() == {"latents", "saturation", "detail"}
    assert facts["n"] == {"prompts": 8, "references": 6, "originals": 6, "seeds": 4, "without_trigger": 8}
    assert facts["strength"] == 0.5


@pytest.mark.slow
def test_the_base_model_is_drawn_once_for_all_adapters(random_sd, trained_adapter, calibration) -> None:
    one, other = trained_adapter(random_sd), trained_adapter(random_sd, seed=1)
    alone = evaluator(random_sd, calibration)
    alone.measure([("one", one, 1.0)])
    both = evaluator(random_sd, calibration)
    both.measure([("one", one, 1.0), ("other", other, 1.0)])
    base, repeated = len(PROMPTS), 16  # of the base: the prompts, and some from several seeds
    assert alone.illustrator.drawn == 2 * base + 2 * repeated
    # without a folder, what the base draws again for diversity is drawn again
    assert both.illustrator.drawn == 3 * base + 4 * repeated


@pytest.mark.slow
def test_pictures_that_are_kept_are_not_drawn_again(random_sd, trained_adapter, calibration, tmp_path) -> None:
    adapter = trained_adapter(random_sd)
    first = evaluator(random_sd, calibration, tmp_path)
    (before,), _ = first.measure([("one", adapter, 1.0)])
    again = evaluator(random_sd, calibration, tmp_path)
    (after,), _ = again.measure([("one", adapter, 1.0)])
    assert first.illustrator.drawn > 0
    assert again.illustrator.drawn == 0
    assert after == before
    stronger = evaluator(random_sd, calibration, tmp_path)
    stronger.measure([("one", adapter, 2.0)])
    assert stronger.illustrator.drawn == len(PROMPTS) + 16


def test_a_damaged_kept_picture_is_drawn_again(random_sd, tmp_path) -> None:
    illustrator = Counting(random_sd, QUICK, tmp_path)
    (image,) = illustrator.draw(PROMPTS[:1])
    (file,) = tmp_path.glob("*.png")
    file.write_bytes(file.read_bytes()[:40])
    (again,) = illustrator.draw(PROMPTS[:1])
    assert illustrator.drawn == 2
    assert again.tobytes() == image.tobytes()


def test_no_trigger_word_no_drift(random_sd, trained_adapter, calibration) -> None:
    (measured,), _ = evaluator(random_sd, calibration).measure([("one", trained_adapter(random_sd), 1.0)])
    assert measured.drift is None
    assert any(note.startswith("drift: ") for note in measured.notes)


def test_references_that_the_base_draws_itself_give_no_score(random_sd, trained_adapter, calibration) -> None:
    asked = evaluator(random_sd, calibration)
    asked.__dict__["references"] = asked.base("").features.clone()
    (measured,), _ = asked.measure([("one", trained_adapter(random_sd), 1.0)])
    assert measured.style is None
    assert any(note.startswith("style: ") for note in measured.notes)
    assert measured.to_json()["style"]["score"] is None


@pytest.mark.parametrize(
    ("materials", "message"),
    [
        ({"references": pictures(3)}, "3 reference pictures are too few"),
        ({"prompts": PROMPTS[:6]}, "6 different prompts of 6 were given; at least 7"),
        ({"prompts": [*PROMPTS, PROMPTS[0]]}, "8 different prompts of 9 were given"),
    ],
)
def test_too_little_is_refused(random_sd, calibration, materials, message) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluator(random_sd, calibration, **materials)


def test_a_calibration_is_kept_for_its_base_alone(random_sd, calibration, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("sd_lora.evaluation.calibration._folder", lambda: tmp_path)
    with pytest.raises(BaseModelError, match="sd-lora calibrate --base somewhere"):
        calibration_of(random_sd, "somewhere")
    file = keep_calibration(calibration)
    assert calibration_of(random_sd, "somewhere").key == calibration.key
    file.unlink()
    with torch.no_grad():
        random_sd.unet.conv_in.weight.add_(0.1)
    keep_calibration(calibration)
    with pytest.raises(BaseModelError, match="has not been calibrated"):
        calibration_of(random_sd, "somewhere")


def test_too_few_pictures_do_not_calibrate(random_sd) -> None:
    with pytest.raises(ConfigError, match="12 pictures are too few"):
        calibrate(random_sd, pictures(12), "random", {})


def test_the_embedded_base_is_calibrated(opened) -> None:
    pipe, _ = opened("tiny")
    known = calibration_of(pipe, "tiny")
    assert known.pictures >= 48
    assert len(known.mean) == len(known.deviation) == 2 * pipe.unet.config.block_out_channels[0]


def test_prompts_cross_subjects_and_places() -> None:
    prompts = crossed_prompts(96)
    assert len(set(prompts)) == 96
    with pytest.raises(ValueError, match="96 prompts, not 97"):
        crossed_prompts(97)
