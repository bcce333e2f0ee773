"""Runs that are trained on one base model and drawn with another (`model.preview_base`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageChops
from small_bases import write_base
from small_runs import body_of, config_of, go, write_images
from typer.testing import CliRunner

import sd_lora
from sd_lora.adapters.adapter import Adapter
from sd_lora.commands.app import app
from sd_lora.config.schema import PreviewConfig
from sd_lora.errors import BaseModelError, ConfigError
from sd_lora.models.opening import OpenBase, load_base
from sd_lora.preview.previewer import Previewer
from sd_lora.training import samples
from sd_lora.training.preparation import prepare

OPEN = samples.open_base
QUICK = ("training.steps=2", "data.resolution=64", "preview.every=1")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("judged") / "images")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bases with other weights than those of their kind in `bases`."""
    home, folders = tmp_path_factory.mktemp("others"), {}
    for kind in ("sdxl", "z-image"):
        pipe = load_base(write_base(kind, home / kind))[0]
        denoiser = pipe.unet if kind == "sdxl" else pipe.transformer
        with torch.no_grad():
            for parameter in denoiser.parameters():
                parameter.mul_(1.5)
        denoiser.save_pretrained(home / kind / ("unet" if kind == "sdxl" else "transformer"))
        folders[kind] = (home / kind).rename(home / f"turbo-{kind}")
    return folders


@pytest.mark.parametrize("kind", ["z-image", pytest.param("sdxl", marks=pytest.mark.slow)])
def test_samples_are_drawn_on_it_and_training_is_the_same(
    kind: str, bases: Mapping[str, Path], others: dict[str, Path], images: Path, tmp_path: Path
) -> None:
    go(config_of(bases[kind], images, tmp_path / "alone", *QUICK))
    config = config_of(bases[kind], images, tmp_path / "judged", *QUICK, f"model.preview_base={others[kind]}")
    go(config)
    alone, judged = tmp_path / "alone", tmp_path / "judged"
    assert body_of(alone / "adapter.safetensors") == body_of(judged / "adapter.safetensors")
    adapter = Adapter.load(judged / "adapter.safetensors")
    assert (adapter.base, adapter.metadata["sdlora.judged_on"]) == (f"random-{kind}", f"turbo-{kind}")
    assert "sdlora.judged_on" not in Adapter.load(alone / "adapter.safetensors").metadata
    pipe = load_base(others[kind])[0]
    settings = PreviewConfig(strengths=(1.0,), inference_steps=1, guidance=1.0)
    prompts = sd_lora.load_config(str(judged / "config.toml")).preview.prompts
    expected = Previewer(pipe, Adapter.load(judged / "adapter.safetensors"), settings, size=64).grid(prompts)
    expected.save(tmp_path / "expected.png")
    drawn, own, wanted = (
        Image.open(path)
        for path in (judged / "samples/step-000002.png", alone / "samples/step-000002.png", tmp_path / "expected.png")
    )
    assert _difference(drawn, wanted) <= 2  # the file is rounded to float16
    assert _difference(drawn, own) > 2


def test_it_is_in_memory_only_while_it_draws(
    bases: Mapping[str, Path], others: dict[str, Path], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[OpenBase] = []
    monkeypatch.setattr(samples, "open_base", lambda *a, **k: opened.append(OPEN(*a, **k)) or opened[-1])
    settings = (*QUICK, f"model.preview_base={others['z-image']}")
    go(config_of(bases["z-image"], images, tmp_path / "run", *settings))
    assert len(opened) == 2  # once to see whether it fits, once to draw
    for base in opened:
        weights = [p for name in ("transformer", "vae") for p in getattr(base.pipe, name).parameters()]
        assert all(p.is_meta for p in weights)
    assert opened[1].pipe.text_encoder is None


@pytest.mark.parametrize(
    ("kind", "judge", "why"), [("sd1", "sdxl", "another family"), ("sd3-medium", "sd3.5-medium", "sd3.5-medium")]
)
def test_a_base_that_cannot_draw_the_adapter_is_refused_naming_both(
    kind: str, judge: str, why: str, bases: Mapping[str, Path], images: Path, tmp_path: Path
) -> None:
    config = config_of(bases[kind], images, tmp_path / "run", *QUICK, f"model.preview_base={bases[judge]}")
    with pytest.raises(BaseModelError) as refused:
        prepare(config)
    assert all(words in str(refused.value) for words in (f"random-{kind} (kind", f"random-{judge} (kind", why))
    assert not (tmp_path / "run").exists()


def test_a_plan_names_both(bases: Mapping[str, Path], others: dict[str, Path], images: Path) -> None:
    places = [str(images), "--base", str(bases["z-image"]), "--judge", str(others["z-image"])]
    shown = CliRunner().invoke(app, ["plan", *places, *QUICK, "model.device=cpu", "training.batch_size=1"]).output
    assert "base model random-z-image (samples are drawn on turbo-z-image)" in " ".join(shown.split())


def test_the_same_base_twice_has_no_effect(bases: Mapping[str, Path], images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="preview_base has no effect, as it is"):
        config_of(bases["sd1"], images, tmp_path / "run", f"model.preview_base={bases['sd1']}")


def _difference(one: Image.Image, other: Image.Image) -> int:
    extrema = ImageChops.difference(one.convert("L"), other.convert("L")).getextrema()
    return int(extrema[1])  # type: ignore[arg-type]
