"""`training.epochs`: how many times each image is seen, from the config to the last byte of a resumed run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rows import every_row
from small_runs import QUICK, body_of, go, interrupted, resumed, write_images
from typer.testing import CliRunner

from sd_lora.commands.app import app
from sd_lora.config.presets import load_config
from sd_lora.config.schema import RunConfig, TrainingConfig
from sd_lora.data.examples import Example
from sd_lora.data.planning import steps_of
from sd_lora.errors import ConfigError
from sd_lora.runs.folder import RunFolder
from sd_lora.training.preparation import prepare

UNTIMED = [text for text in QUICK if not text.startswith("training.steps")]


def config_of(base: Path, images: Path, out: Path, *overrides: str) -> RunConfig:
    paths = (f"model.base={base}", f"data.folder={images}", f"output.folder={out}")
    return load_config("tiny-style", *paths, *UNTIMED, *overrides)


def example(repeats: int = 1, *, prior: bool = False) -> Example:
    return Example(Path("a.png"), "a.png", 64, 64, ("a",), repeats=repeats, prior=prior)


@every_row(
    "repeats, prior, training, steps",
    [
        ((1, 1, 1), 0, {"epochs": 4, "batch_size": 2}, 6),
        ((1, 1, 1), 0, {"epochs": 1, "batch_size": 2}, 2),
        ((10, 2), 0, {"epochs": 5, "batch_size": 4}, 15),
        ((4,) * 30, 0, {"epochs": 10, "batch_size": 4}, 300),
        ((2, 2), 1, {"epochs": 3, "batch_size": 1}, 24),
        ((1,) * 30, 0, {"epochs": 0.1}, 3),
        ((1,), 0, {"epochs": 0.1, "batch_size": 8}, 1),
        ((1, 1), 0, {"steps": 7}, 7),
        ((1, 1), 0, {}, 1200),
        ((1, 1), 1, {}, 2400),
    ],
)
def test_steps_follow_from_epochs(repeats: tuple[int, ...], prior: int, training: dict[str, float], steps: int) -> None:
    images = [*map(example, repeats), *(example(prior=True) for _ in range(prior))]
    assert steps_of(TrainingConfig(**training), images) == steps  # type: ignore[arg-type]


def test_steps_and_epochs_in_one_place_are_a_conflict_and_the_later_of_two_places_counts(tmp_path: Path) -> None:
    both = r"training\.steps=3 and training\.epochs=2 both say how long to train; leave one out"
    with pytest.raises(ConfigError, match=both):
        load_config("tiny-style", "training.steps=3", "training.epochs=2")
    (tmp_path / "both.toml").write_text("[training]\nsteps = 400\nepochs = 1.5\n")
    with pytest.raises(ConfigError, match=r"steps=400 and training\.epochs=1\.5 both"):
        load_config(str(tmp_path / "both.toml"))
    training = load_config("tiny-style", "training.epochs=2").training  # which sets steps
    assert (training.steps, training.epochs) == (None, 2)
    (tmp_path / "epochs.toml").write_text("[training]\nepochs = 5\n")
    training = load_config(str(tmp_path / "epochs.toml"), "training.steps=9").training
    assert (training.steps, training.epochs) == (9, None)


def test_check_and_plan_show_the_steps_and_the_epochs(tmp_path: Path, random_sd_folder: Path) -> None:
    images = write_images(tmp_path / "photos")
    given = [str(images), "--base", str(random_sd_folder), "--preset", "style", *UNTIMED, "training.epochs=5"]
    checked = CliRunner().invoke(app, ["check", *given], catch_exceptions=False).output
    assert "16 exposures of 3 images, 8 steps of 2 (5.33 epochs)" in checked
    planned = json.loads(CliRunner().invoke(app, ["plan", *given, "--json"], catch_exceptions=False).stdout)
    assert (planned["steps"], planned["exposures"], planned["epochs"]) == (8, 16, 5.33)
    assert "8 steps of 2 images are 16 exposures (5.33 epochs)" in planned["reasons"][0]


@pytest.mark.slow
def test_a_run_of_epochs_has_its_steps_in_its_config_and_resumes_to_the_same_bytes(
    tmp_path: Path, random_sd_folder: Path
) -> None:
    images = write_images(tmp_path / "photos")
    config = [
        config_of(random_sd_folder, images, tmp_path / name, "training.epochs=3", "training.checkpoint_every=2")
        for name in ("whole", "stopped")
    ]
    go(config[0])
    written = RunFolder(tmp_path / "whole").read_config().training
    assert (written.steps, written.epochs) == (5, None)
    assert interrupted(lambda: go(config[1], crash_after=3))
    resumed(tmp_path / "stopped")
    assert body_of(tmp_path / "whole/adapter.safetensors") == body_of(tmp_path / "stopped/adapter.safetensors")


def test_what_ends_no_earlier_than_the_epochs_is_refused(tmp_path: Path, random_sd_folder: Path) -> None:
    images = write_images(tmp_path / "photos")
    text = ('lora.targets=["attn", "text"]', "training.text_steps=3")
    config = config_of(random_sd_folder, images, tmp_path / "run", "training.epochs=2", *text)
    with pytest.raises(ConfigError, match=r"training\.text_steps is 3, no less than the 3 steps of the run"):
        prepare(config)
