"""Z-Image: sizes as published, reversed time and negated output, texts of any length."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from published_sizes import transformer
from torch import Tensor, nn

from sd_lora import load_base
from sd_lora.config.schema import ModelConfig, TrainingConfig
from sd_lora.lora.targets import plan_targets
from sd_lora.models.families import FAMILIES
from sd_lora.models.kinds import kind_of
from sd_lora.models.opening import open_base

FAMILY = FAMILIES["z-image"]
#: groups → modules, and MiB of a file of rank 16, float16
COUNTS = {("attn",): (120, 28), ("attn", "ff"): (210, 67)}


def test_counts_of_the_published_model() -> None:
    net = transformer("z-image")
    assert sum(p.numel() for p in net.parameters()) / 1e9 == pytest.approx(6.15, abs=0.01)
    for groups, counts in COUNTS.items():
        plan = plan_targets({"transformer": net}, FAMILY.target_groups, groups)
        numbers = sum(16 * (t.module.in_features + t.module.out_features) for t in plan)  # type: ignore[operator]
        assert (len(plan), round(2 * numbers / 2**20)) == counts
    assert kind_of({t.name: tuple(t.module.weight.shape) for t in plan}, {}) == "z-image"  # type: ignore[union-attr]


class Echo(nn.Module):
    """A denoiser that returns its input, and keeps the time that it was given."""

    def forward(self, pictures: list[Tensor], time: Tensor, texts: list[Tensor], return_dict: bool) -> Any:
        assert not return_dict
        self.time, self.lengths = time, [len(text) for text in texts]
        return (pictures,)


def test_time_is_reversed_and_the_output_negated(opened: Callable[[str], Any]) -> None:
    pipe, family = opened("z-image")
    echo, noisy = Echo(), torch.randn(2, 16, 8, 12)
    conditioning = family.encode_captions(pipe, ["a boat", "a much longer caption"])
    prediction = family.denoise(echo, noisy, torch.tensor([250.0, 1000.0]), conditioning)
    assert torch.equal(prediction, -noisy)
    assert echo.time.tolist() == [0.75, 0.0]
    assert echo.lengths[0] < echo.lengths[1]


def test_a_caption_is_encoded_as_the_pipeline_does(opened: Callable[[str], Any]) -> None:
    pipe, family = opened("z-image")
    captions = ["a boat", "", "a much longer caption"]
    ours = family.pipeline_arguments(*[family.encode_captions(pipe, captions)] * 2)["prompt_embeds"]
    theirs, _ = pipe.encode_prompt(list(captions), do_classifier_free_guidance=False)
    assert [len(text) for text in ours] == family.token_counts(pipe, captions)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


def test_the_loss_is_that_of_the_pipelines_pieces(opened: Callable[[str], Any]) -> None:
    pipe, family = opened("z-image")
    latents, noise = torch.randn(2, 1, 16, 8, 12, generator=torch.Generator().manual_seed(0))
    conditioning, objective = family.encode_captions(pipe, ["a boat"]), family.objective(pipe)
    timestep, sigma = torch.tensor([700.0]), 0.7
    noised = objective.noised(latents, noise, timestep, TrainingConfig())
    prediction = family.denoise(pipe.transformer, noised.latents, timestep, conditioning)
    texts, _ = pipe.encode_prompt(["a boat"], do_classifier_free_guidance=False)
    mixed = (1 - sigma) * latents + sigma * noise
    velocity = -pipe.transformer([mixed[0].unsqueeze(1)], (1000 - timestep) / 1000, texts, return_dict=False)[0][0]
    theirs = (velocity.squeeze(1) - (noise - latents)[0]).square().mean()
    torch.testing.assert_close(objective.loss(prediction, noised, TrainingConfig()), theirs)


def test_a_denoiser_that_was_planned_with_is_filled_complete(bases: Mapping[str, Path]) -> None:
    base = open_base(ModelConfig(base=str(bases["z-image"]), device="cpu"), later=True)
    family, pipe = base.family, base.pipe
    conditioning = family.encode_captions(pipe, ["a boat"])
    noisy, time = torch.randn(1, 16, 8, 8), torch.tensor([500.0])
    on_meta = {key: states.to("meta") for key, states in conditioning.items()}
    assert family.denoise(pipe.transformer, noisy.to("meta"), time.to("meta"), on_meta).shape == noisy.shape
    base.fill("transformer")
    complete = load_base(bases["z-image"])[0].transformer
    with torch.no_grad():
        ours, theirs = (family.denoise(net, noisy, time, conditioning) for net in (pipe.transformer, complete))
    assert torch.equal(ours, theirs)
