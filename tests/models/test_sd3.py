"""Stable Diffusion 3: sizes as published, its text encoders, its loss by the pieces of diffusers' pipeline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from published_sizes import transformer

from sd_lora import load_base
from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.clients import answers
from sd_lora.adapters.parts import facts_of
from sd_lora.config.schema import TrainingConfig
from sd_lora.errors import AdapterError, BaseModelError
from sd_lora.lora.targets import plan_targets
from sd_lora.models.families import FAMILIES
from sd_lora.models.kinds import kind_of, kinds_shown
from sd_lora.models.opening import open_base
from sd_lora.tools.verify import verify_adapter

FAMILY = FAMILIES["sd3"]


#: billions of weights, and for attention alone and with feed-forward: modules, and MiB of a file of rank 16, float16
PUBLISHED = {
    "sd3-medium": (2.03, (191, 18), (285, 40)),
    "sd3.5-medium": (2.24, (243, 23), (337, 45)),
    "sd3.5-large": (8.06, (303, 45), (453, 101)),
}


@pytest.mark.parametrize("model", PUBLISHED)
def test_counts_of_the_published_models(model: str) -> None:
    net, (billions, *counts) = transformer(model), PUBLISHED[model]
    assert sum(p.numel() for p in net.parameters()) / 1e9 == pytest.approx(billions, abs=0.006)
    for groups, (modules, size) in zip((["attn"], ["attn", "ff"]), counts, strict=True):
        plan = plan_targets({"transformer": net}, FAMILY.target_groups, groups)
        numbers = sum(16 * (t.module.in_features + t.module.out_features) for t in plan)  # type: ignore[operator]
        assert (len(plan), round(2 * numbers / 2**20)) == (modules, size)


@pytest.mark.parametrize("model", PUBLISHED)
def test_widths_and_modules_show_the_kind(model: str) -> None:
    plan = plan_targets({"transformer": transformer(model)}, FAMILY.target_groups, ["attn"])
    shapes = {t.name: tuple(t.module.weight.shape) for t in plan}  # type: ignore[union-attr]
    marks = next(kind.marks for kind in FAMILY.kinds if kind.name == model)
    assert kind_of(shapes, marks) == model
    assert model in [kind.name for kind in kinds_shown(shapes)]


def test_a_caption_is_encoded_as_the_pipeline_does(opened: Callable[[str], Any]) -> None:
    pipe, family = opened("sd3.5-medium")
    ours = family.encode_captions(pipe, ["a red house", ""])
    states, _, pooled, _ = pipe.encode_prompt(["a red house", ""], None, None, do_classifier_free_guidance=False)
    assert torch.equal(ours["states"], states)
    assert torch.equal(ours["pooled"], pooled)
    assert states.shape[1] == pipe.tokenizer.model_max_length + 256


def test_the_loss_is_that_of_the_pipelines_pieces(opened: Callable[[str], Any]) -> None:
    pipe, family = opened("sd3.5-medium")
    latents, noise = torch.randn(2, 1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    conditioning, objective = family.encode_captions(pipe, ["a red house"]), family.objective(pipe)
    timestep = pipe.scheduler.timesteps[300:301]
    sigma = pipe.scheduler.sigmas[300]
    noised = objective.noised(latents, noise, timestep, TrainingConfig())
    ours = objective.loss(family.denoise(pipe.transformer, noised.latents, timestep, conditioning), noised,
                          TrainingConfig())  # fmt: skip
    velocity = pipe.transformer(
        hidden_states=(1 - sigma) * latents + sigma * noise, timestep=timestep,
        encoder_hidden_states=conditioning["states"], pooled_projections=conditioning["pooled"],
    ).sample  # fmt: skip
    torch.testing.assert_close(ours, (velocity - (noise - latents)).square().mean())


def test_t5_may_be_absent_and_that_is_said(bases: Mapping[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bases["sd3.5-medium"], tmp_path / "without"))
    shutil.rmtree(folder / "text_encoder_3")
    pipe, family = load_base(folder)
    assert pipe.text_encoder_3 is None
    assert "no T5 text encoder" in family.notes(pipe)[0]
    assert family.token_limit(pipe) == pipe.tokenizer.model_max_length
    ours = family.encode_captions(pipe, ["a red house"])["states"]
    assert torch.equal(ours, pipe.encode_prompt("a red house", None, None, do_classifier_free_guidance=False)[0])
    assert not ours[:, pipe.tokenizer.model_max_length :].any()
    assert family.notes(load_base(bases["sd3.5-medium"])[0]) == []
    assert family.captions_key(pipe) != family.captions_key(load_base(bases["sd3.5-medium"])[0])


def test_the_denoiser_is_filled_after_the_text_encoders_are_gone(bases: Mapping[str, Path]) -> None:
    from sd_lora.config.schema import ModelConfig

    base = open_base(ModelConfig(base=str(bases["sd3.5-medium"]), device="cpu"), later=True)
    assert all(p.is_meta for p in base.pipe.transformer.parameters())
    for name in base.family.text_encoders:
        setattr(base.pipe, name, None)
    base.fill("transformer")
    complete = load_base(bases["sd3.5-medium"])[0].transformer.state_dict()
    assert all(torch.equal(complete[name], tensor) for name, tensor in base.pipe.transformer.state_dict().items())


def set_in(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | values), "utf-8")


def test_what_is_for_other_models_is_refused(opened: Callable[[str], Any], bases: Mapping[str, Path]) -> None:
    pipe, family = opened("sd3.5-medium")
    with pytest.raises(BaseModelError, match="zero_terminal_snr is for v-prediction, but Stable Diffusion 3 is a flow"):
        family.objective(pipe, zero_terminal_snr=True)
    with pytest.raises(BaseModelError, match="has no prediction_type"):
        load_base(bases["sd3.5-medium"], prediction_type="v_prediction")


def test_parts_that_do_not_fit_are_refused(bases: Mapping[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bases["sd3-medium"], tmp_path / "odd"))
    shutil.rmtree(folder / "text_encoder_2")
    shutil.copytree(folder / "text_encoder", folder / "text_encoder_2")
    with pytest.raises(BaseModelError, match="its text encoders do not fit its transformer"):
        load_base(folder)


def test_verify_says_who_reads_a_file_and_for_which_base(opened: Callable[[str], Any], tmp_path: Path) -> None:
    pipe, family = opened("sd3.5-medium")
    adapter = Adapter.create(plan_targets({"transformer": pipe.transformer}, family.target_groups, ["attn"], (1, 1.0)))
    adapter.metadata |= {**family.kind(pipe).marks, "sdlora.family": "sd3"}
    path = adapter.save(tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match='not written in layout "kohya", only in diffusers'):
        adapter.save(tmp_path / "b.safetensors", layout="kohya")
    whole = {answer.client for answer in verify_adapter(path).clients if answer.is_whole}
    assert whole == {"diffusers", "ComfyUI"}
    shapes = {f"{name}.lora_{half}.weight": (1, 1) for name in adapter.weights for half in "AB"}
    elsewhere = answers(facts_of(shapes, {}, {}, "z-image"))
    assert not any(answer.loaded for answer in elsewhere)
    assert "modules that the base model does not have" in elsewhere[0].reasons[0]
