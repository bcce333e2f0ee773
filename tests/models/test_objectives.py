"""Noise levels and targets of a noise schedule against their formulas and against diffusers' scheduler."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor

from sd_lora.config.schema import TrainingConfig
from sd_lora.errors import BaseModelError
from sd_lora.models.noise import draw_noise
from sd_lora.models.objectives import Objective

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ALPHAS = torch.cumprod(1 - BETAS, dim=0).float()
PLAIN = TrainingConfig()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    latents, noise = torch.randn(2, 5, 4, 3, 3, generator=generator(1))
    return latents, noise, torch.tensor([0, 10, 500, 900, 999])


def scheduler(**settings: Any) -> DDPMScheduler:
    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **settings)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_noised_latents_and_targets(kind: str) -> None:
    latents, noise, timesteps = batch()
    noised = Objective(ALPHAS, kind).noised(latents, noise, timesteps, PLAIN)
    for i, t in enumerate(timesteps.tolist()):
        signal, level = ALPHAS[t] ** 0.5, (1 - ALPHAS[t]) ** 0.5
        torch.testing.assert_close(noised.latents[i], signal * latents[i] + level * noise[i])
        target = noise[i] if kind == "epsilon" else signal * noise[i] - level * latents[i]
        torch.testing.assert_close(noised.target[i], target)
    assert torch.equal(noised.timesteps, timesteps)
    torch.testing.assert_close(noised.share, timesteps / 999)


@pytest.mark.parametrize("zero_terminal", [False, True])
def test_diffusers_mixes_alike_and_has_the_same_velocity(zero_terminal: bool) -> None:
    latents, noise, timesteps = batch()
    theirs = scheduler(prediction_type="v_prediction", rescale_betas_zero_snr=zero_terminal)
    noised = Objective(ALPHAS, "v_prediction", zero_terminal_snr=zero_terminal).noised(latents, noise, timesteps, PLAIN)
    # diffusers leaves a remainder of the signal (2⁻¹² of its amplitude) at the end.
    close, steps = 2e-3 if zero_terminal else 1e-5, cast(Any, timesteps)
    torch.testing.assert_close(noised.latents, theirs.add_noise(latents, noise, steps), rtol=1e-4, atol=close)
    torch.testing.assert_close(noised.target, theirs.get_velocity(latents, noise, steps), rtol=1e-4, atol=close)


def test_the_rescaled_schedule_is_that_of_diffusers_and_ends_without_signal() -> None:
    ours = Objective(ALPHAS, "v_prediction", zero_terminal_snr=True)
    theirs = scheduler(rescale_betas_zero_snr=True).alphas_cumprod
    torch.testing.assert_close(ours.alphas_cumprod[:-1], theirs[:-1], rtol=1e-3, atol=1e-6)
    assert ours.alphas_cumprod[-1] == 0
    assert ours.alphas_cumprod[0] == pytest.approx(ALPHAS[0].item(), rel=1e-6)
    assert (ours.alphas_cumprod[500] - ALPHAS[500]).abs() > 0.01  # the whole schedule moves, not its end only
    again = Objective(ours.alphas_cumprod, "v_prediction", zero_terminal_snr=True)
    torch.testing.assert_close(again.alphas_cumprod, ours.alphas_cumprod)


def test_where_there_is_no_signal_the_picture_is_noise_and_the_target_the_latents() -> None:
    latents, noise, timesteps = batch()
    noised = Objective(ALPHAS, "v_prediction", zero_terminal_snr=True).noised(latents, noise, timesteps, PLAIN)
    assert torch.equal(noised.latents[-1], noise[-1])
    assert torch.equal(noised.target[-1], -latents[-1])


def test_zero_terminal_snr_is_refused_with_epsilon() -> None:
    with pytest.raises(BaseModelError, match=r"training\.zero_terminal_snr needs .* v_prediction"):
        Objective(ALPHAS, "epsilon", zero_terminal_snr=True)


def test_latents_come_back_from_the_v_target() -> None:
    latents, noise, timesteps = batch()
    noised = Objective(ALPHAS, "v_prediction").noised(latents, noise, timesteps, PLAIN)
    alpha = ALPHAS[timesteps].view(-1, 1, 1, 1)
    torch.testing.assert_close(alpha.sqrt() * noised.latents - (1 - alpha).sqrt() * noised.target, latents)


@pytest.mark.parametrize("kind", ["sample", "flow", ""])
def test_other_predictions_are_refused(kind: str) -> None:
    with pytest.raises(BaseModelError, match="cannot be trained"):
        Objective(ALPHAS, kind)


@pytest.mark.parametrize(
    ("kind", "config", "timesteps", "loss", "latents", "following"),
    [
        ("epsilon", PLAIN, [536, 153, 372, 795], 0.4600183665752411, -54.70025634765625, 0.06013375520706177),
        (
            "v_prediction",
            TrainingConfig(timesteps="mixed", weighting="min-snr"),
            [668, 153, 372, 414],
            0.5648043155670166,
            52.321285247802734,
            0.9066881537437439,
        ),
    ],
)
def test_a_seeded_step_is_what_it_has_always_been(
    kind: str, config: TrainingConfig, timesteps: list[int], loss: float, latents: float, following: float
) -> None:
    # Numbers of the first release's objective, and of its mixture since that is truncated: only a change of seeded
    # runs that is meant may change them.
    objective, own = Objective(ALPHAS, kind), generator(5)
    noise = draw_noise(4, (4, 6, 5), config, own)
    drawn = objective.sample_timesteps(4, config, own)
    noised = objective.noised(torch.linspace(-2, 2, 480).view(4, 4, 6, 5), noise, drawn, config, own)
    assert drawn.tolist() == timesteps
    assert noise.sum().item() == pytest.approx(12.790189743041992, rel=1e-5)
    assert noised.latents.sum().item() == pytest.approx(latents, rel=1e-5)
    assert objective.loss(0.5 * noised.latents, noised, config).item() == pytest.approx(loss, rel=1e-6)
    assert torch.rand(1, generator=own).item() == following  # as many numbers were drawn
