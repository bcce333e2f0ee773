"""Runs on base models that are flows: interrupted ones end in the same bytes, and all kinds of images are trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_bases import KINDS, UNET_KINDS
from small_runs import body_of, config_of, go, interrupted, resumed, write_images

import sd_lora
from sd_lora.adapters.adapter import Adapter
from sd_lora.training.preparation import prepare

FLOWS = [kind for kind in KINDS if kind not in UNET_KINDS]
#: one of each family in the first tier
FIRST = ["sd3.5-medium", "flux-dev", "z-image"]


@pytest.mark.parametrize("kind", [k if k in FIRST else pytest.param(k, marks=pytest.mark.slow) for k in FLOWS])
def test_a_run_that_crashed_is_resumed_to_the_same_bytes(kind: str, bases: Mapping[str, Path], tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    settings = ("training.steps=4", "training.checkpoint_every=2", "data.resolution=64", "training.timesteps=mixed")
    for name in ("through", "crashed"):
        config = config_of(bases[kind], images, tmp_path / name, *settings)
        assert interrupted(lambda config=config, name=name: go(config, crash_after=3 * (name == "crashed"))) == (
            name == "crashed"
        )
    assert [report.step for report in resumed(tmp_path / "crashed")] == [3, 4]
    through, crashed = (body_of(tmp_path / name / "adapter.safetensors") for name in ("through", "crashed"))
    assert through == crashed


@pytest.mark.parametrize(("weighting", "is_told"), [("min-snr", True), ("none", False)])
def test_weights_that_are_meant_for_other_models_are_told(
    weighting: str, is_told: bool, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    images = write_images(tmp_path / "images")
    config = config_of(bases["z-image"], images, tmp_path / "run", f"training.weighting={weighting}")
    told = [note for note in prepare(config).notes if "use the preset z-image-style" in note]
    assert bool(told) is is_told


@pytest.mark.slow
@pytest.mark.parametrize("kind", FLOWS)
def test_buckets_masks_regularisation_and_dropout_are_trained(
    kind: str, bases: Mapping[str, Path], tmp_path: Path
) -> None:
    images, prior = tmp_path / "images", tmp_path / "prior"
    images.mkdir()
    prior.mkdir()
    for i, size in enumerate([(64, 64), (96, 48), (48, 96)]):
        Image.effect_noise(size, 80).convert("RGB").save(images / f"{i}.png")
        (images / f"{i}.txt").write_text(f"picture {i}, with a caption of its own")
    Image.new("L", (64, 64), 128).save(images / "0_mask.png")
    Image.effect_noise((64, 64), 40).convert("RGB").save(prior / "a.png")
    (prior / "a.txt").write_text("another")
    base = sd_lora.load_base(bases[kind])[0]
    before = {name: tensor.clone() for name, tensor in base.transformer.state_dict().items()}
    adapter = sd_lora.train(
        sd_lora.load_config(
            "style", f"model.base={bases[kind]}", f"data.folder={images}", f"data.regularisation={prior}",
            "training.steps=6", "training.batch_size=3", "training.caption_dropout=0.5", "training.weighting=none",
            "preview.inference_steps=1", "preview.strengths=1", "model.device=cpu", "output.dtype=float32",
            f"output.folder={tmp_path / 'run'}", "training.hold_out=0.4", "training.validate_every=3",
        )
    )  # fmt: skip
    assert all(torch.isfinite(p).all() for p in adapter.parameters())
    written = Adapter.load(tmp_path / "run" / "adapter.safetensors")
    assert written.metadata["sdlora.family"] == adapter.family.name
    with written.injected(base):
        pass
    assert all(torch.equal(before[name], tensor) for name, tensor in base.transformer.state_dict().items())
