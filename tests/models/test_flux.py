"""FLUX.1: sizes as published, packed latents, distilled guidance, its loss by the pieces of diffusers' pipeline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from PIL import Image
from published_sizes import transformer
from typer.testing import CliRunner

import sd_lora
from sd_lora import load_base
from sd_lora.adapters.adapter import Adapter
from sd_lora.commands.app import app
from sd_lora.config.schema import TrainingConfig
from sd_lora.errors import BaseModelError, ConfigError
from sd_lora.lora.targets import plan_targets
from sd_lora.models.families import FAMILIES
from sd_lora.models.families.flux import GUIDANCE
from sd_lora.models.kinds import kind_of
from sd_lora.training.metadata import describe
from sd_lora.training.preparation import prepare

FAMILY = FAMILIES["flux"]
#: groups → modules, and MiB of a file of rank 16, float16
COUNTS = {("attn",): (266, 50), ("attn", "ff"): (418, 125)}


def test_counts_of_the_published_models() -> None:
    net = transformer("flux-dev")
    assert sum(p.numel() for p in net.parameters()) / 1e9 == pytest.approx(11.9, abs=0.05)
    for groups, counts in COUNTS.items():
        plan = plan_targets({"transformer": net}, FAMILY.target_groups, groups)
        numbers = sum(16 * (t.module.in_features + t.module.out_features) for t in plan)  # type: ignore[operator]
        assert (len(plan), round(2 * numbers / 2**20)) == counts
    shapes = {t.name: tuple(t.module.weight.shape) for t in plan}  # type: ignore[union-attr]
    for kind in FAMILY.kinds:
        assert kind_of(shapes, kind.marks) == kind.name


def test_latents_are_packed_as_the_pipeline_does(opened: Callable[[str], Any]) -> None:
    pipe, family = opened("flux-dev")
    latents = torch.randn(2, 16, 8, 12)
    packed = family.packed(latents)
    assert torch.equal(packed, FluxPipeline._pack_latents(latents, 2, 16, 8, 12))
    assert torch.equal(family.unpacked(pipe, packed, (96, 64)), latents)


def test_a_caption_is_encoded_as_the_pipeline_does(opened: Callable[[str], Any]) -> None:
    pipe, family = opened("flux-dev")
    ours = family.encode_captions(pipe, ["a red house", ""])
    states, pooled, _ = pipe.encode_prompt(["a red house", ""], None)
    assert torch.equal(ours["states"], states)
    assert torch.equal(ours["pooled"], pooled)


@pytest.mark.parametrize("kind", ["flux-dev", "flux-schnell"])
def test_the_loss_is_that_of_the_pipelines_pieces(opened: Callable[[str], Any], kind: str) -> None:
    pipe, family = opened(kind)
    latents, noise = torch.randn(2, 1, 16, 8, 12, generator=torch.Generator().manual_seed(0))
    conditioning, objective = family.encode_captions(pipe, ["a red house"]), family.objective(pipe)
    timestep, sigma = torch.tensor([700.0]), 0.7
    noised = objective.noised(latents, noise, timestep, TrainingConfig())
    prediction = family.denoise(pipe.transformer, noised.latents, timestep, conditioning)
    velocity = pipe.transformer(
        hidden_states=pipe._pack_latents((1 - sigma) * latents + sigma * noise, 1, 16, 8, 12),
        timestep=timestep / 1000, guidance=torch.tensor([GUIDANCE]) if kind == "flux-dev" else None,
        encoder_hidden_states=conditioning["states"], pooled_projections=conditioning["pooled"],
        txt_ids=torch.zeros(512, 3), img_ids=pipe._prepare_latent_image_ids(1, 4, 6, "cpu", torch.float32),
    ).sample  # fmt: skip
    theirs = (pipe._unpack_latents(velocity, 64, 96, 8) - (noise - latents)).square().mean()
    torch.testing.assert_close(objective.loss(prediction, noised, TrainingConfig()), theirs)


def test_guidance_is_recorded_and_the_same_in_previews(opened: Callable[[str], Any], tmp_path: Path) -> None:
    for kind, guidance in {"flux-dev": GUIDANCE, "flux-schnell": None}.items():
        pipe, family = opened(kind)
        plan = plan_targets({"transformer": pipe.transformer}, family.target_groups, ["attn"], (1, 1.0))
        adapter = Adapter.create(plan)
        adapter.metadata = describe(sd_lora.load_config("flux-style"), family, pipe, [], adapter)
        assert Adapter.load(adapter.save(tmp_path / f"{kind}.safetensors")).guidance == guidance
    assert sd_lora.load_config("flux-style").preview.guidance == GUIDANCE


def test_a_negative_prompt_is_refused_and_other_guidance_is_noted(bases: Mapping[str, Path], tmp_path: Path) -> None:
    (images := tmp_path / "images").mkdir()
    Image.effect_noise((64, 64), 80).convert("RGB").save(images / "a.png")
    (images / "a.txt").write_text("a red house")

    def notes(kind: str, *settings: str) -> list[str]:
        places = (f"model.base={bases[kind]}", f"data.folder={images}", f"output.folder={tmp_path / 'run'}")
        run = prepare(sd_lora.load_config("flux-style", *places, "training.steps=1", "model.device=cpu", *settings))
        return [note for note in run.notes if note.startswith("preview: ")]

    with pytest.raises(ConfigError, match=r'preview\.negative is "dark", but a negative prompt has no effect on FLUX'):
        notes("flux-dev", "preview.negative=dark")
    assert notes("flux-dev") == notes("flux-schnell", "preview.guidance=5") == []
    (other,) = notes("flux-dev", "preview.guidance=5")
    assert "guidance 5 is not the 3.5 that the base model is trained with" in other
    own = notes("flux-dev", 'preview.prompts=["a house --l 2 --n dark"]')
    assert ["--n" in own[0], "guidance 2 is not the 3.5" in own[1]] == [True, True]
    assert notes("sd3.5-medium", "preview.negative=dark", "preview.guidance=5") == []


def test_a_preview_is_drawn_with_the_guidance_of_training(
    bases: Mapping[str, Path], opened: Callable[[str], Any], tmp_path: Path
) -> None:
    pipe, family = opened("flux-dev")
    plan = plan_targets({"transformer": pipe.transformer}, family.target_groups, ["attn"], (1, 1.0))
    file = Adapter.create(plan, {"sdlora.guidance": "3.5"}).save(tmp_path / "a.safetensors")
    sheet = tmp_path / "sheet.png"
    drawn = ["preview", str(file), "--base", str(bases["flux-dev"]), "--prompt", "a", "--out", str(sheet)]
    drawn += ["preview.inference_steps=1", "model.device=cpu", "--strengths", "1"]

    def answer(*more: str) -> Any:
        return CliRunner().invoke(app, [*drawn, *more])

    first = answer()
    assert first.exception is None, first.exception
    assert "trained with guidance" not in first.output
    assert json.loads(Image.open(sheet).text["sd_lora"])["guidance"] == 3.5  # type: ignore[attr-defined]
    assert "note: the adapter was trained with guidance 3.5" in answer("--guidance", "2").output
    refused = answer("--negative", "dark").exception
    assert isinstance(refused, ConfigError)
    assert "a negative prompt has no effect on FLUX.1" in str(refused)


def test_a_distilled_base_is_said_to_be_one(opened: Callable[[str], Any]) -> None:
    assert "train on FLUX.1 dev" in FAMILY.notes(opened("flux-schnell")[0])[0]
    assert FAMILY.notes(opened("flux-dev")[0]) == []


def test_parts_that_do_not_fit_are_refused(bases: Mapping[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bases["flux-schnell"], tmp_path / "odd"))
    shutil.rmtree(folder / "text_encoder_2")
    shutil.copytree(bases["sd3-medium"] / "text_encoder_3", folder / "text_encoder_2")
    with pytest.raises(BaseModelError, match="its text encoders do not fit its transformer"):
        load_base(folder)
