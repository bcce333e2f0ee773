"""Rectified flow against its closed form."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from sd_lora.config.schema import TrainingConfig
from sd_lora.models.objectives import FlowMatching

PLAIN = TrainingConfig()


def pair() -> tuple[Tensor, Tensor]:
    latents, noise = torch.randn(2, 5, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    return latents, noise


def test_latents_and_noise_lie_on_a_line() -> None:
    (latents, noise), timesteps = pair(), torch.tensor([0.0, 1.5, 250.0, 900.0, 1000.0])
    noised = FlowMatching().noised(latents, noise, timesteps, PLAIN)
    for i, t in enumerate([0.0, 0.0015, 0.25, 0.9, 1.0]):
        torch.testing.assert_close(noised.latents[i], (1 - t) * latents[i] + t * noise[i])
    assert torch.equal(noised.target, noise - latents)
    assert torch.equal(noised.latents[0], latents[0])
    assert torch.equal(noised.latents[4], noise[4])
    torch.testing.assert_close(noised.share, timesteps / 1000)


def test_diffusers_mixes_alike() -> None:
    latents, noise = pair()
    theirs = FlowMatchEulerDiscreteScheduler()
    timesteps = theirs.timesteps[[0, 10, 500, 900, 999]]  # type: ignore[index]
    noised = FlowMatching().noised(latents, noise, timesteps, PLAIN)
    torch.testing.assert_close(noised.latents, theirs.scale_noise(latents, timesteps, noise))  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [1, 7])
def test_the_exact_velocity_leads_from_noise_to_the_latents(steps: int) -> None:
    flow, (latents, noise) = FlowMatching(), pair()
    place, levels = noise, torch.linspace(1, 0, steps + 1)
    for level, following in pairwise(levels):
        noised = flow.noised(latents, noise, (1000 * level).expand(5), PLAIN)
        torch.testing.assert_close(noised.latents, place)  # the path passes through what is trained on
        place = place + (following - level) * noised.target
    torch.testing.assert_close(place, latents)


def test_timesteps_are_continuous() -> None:
    drawn = FlowMatching().sample_timesteps(64, PLAIN, torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.float32
    assert (drawn * 64 // 1000).sort().values.tolist() == list(range(64))
    assert (drawn % 1 != 0).float().mean() > 0.9
