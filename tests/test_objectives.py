"""Noise levels, targets and loss weights against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sd_lora.config import TrainingConfig
from sd_lora.errors import BaseModelError
from sd_lora.objectives import Objective

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ALPHAS = torch.cumprod(1 - BETAS, dim=0).float()
UNIFORM, MIXED = TrainingConfig(), TrainingConfig(timesteps="mixed", log_snr_mean=-3.0, log_snr_std=2.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    latents, noise = torch.randn(2, 5, 4, 3, 3, generator=generator(1))
    return latents, noise, torch.tensor([0, 10, 500, 900, 999])


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_noised_latents_and_targets(kind: str) -> None:
    latents, noise, timesteps = batch()
    noised = Objective(ALPHAS, kind).noised(latents, noise, timesteps, None)
    for i, t in enumerate(timesteps.tolist()):
        signal, level = ALPHAS[t] ** 0.5, (1 - ALPHAS[t]) ** 0.5
        torch.testing.assert_close(noised.latents[i], signal * latents[i] + level * noise[i])
        target = noise[i] if kind == "epsilon" else signal * noise[i] - level * latents[i]
        torch.testing.assert_close(noised.target[i], target)
    assert torch.equal(noised.timesteps, timesteps)


def test_latents_come_back_from_the_v_target() -> None:
    latents, noise, timesteps = batch()
    noised = Objective(ALPHAS, "v_prediction").noised(latents, noise, timesteps, None)
    alpha = ALPHAS[timesteps].view(-1, 1, 1, 1)
    torch.testing.assert_close(alpha.sqrt() * noised.latents - (1 - alpha).sqrt() * noised.target, latents)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_plain_loss_weighs_all_alike(kind: str) -> None:
    assert Objective(ALPHAS, kind).noised(*batch(), None).weight.tolist() == [1.0] * 5


@pytest.mark.parametrize(("kind", "gamma"), [("epsilon", 5.0), ("epsilon", 1.0), ("v_prediction", 5.0)])
def test_min_snr_weights(kind: str, gamma: float) -> None:
    _, _, timesteps = batch()
    snr = (ALPHAS.double() / (1 - ALPHAS.double()))[timesteps]
    wanted = snr.clamp(max=gamma) / (snr if kind == "epsilon" else snr + 1)
    weight = Objective(ALPHAS, kind).noised(*batch(), gamma).weight
    torch.testing.assert_close(weight.double(), wanted, rtol=1e-4, atol=1e-6)
    assert weight.min() < 0.5 * weight.max()  # the schedule reaches both sides of gamma


def test_the_loss_is_the_weighted_mean_square() -> None:
    objective, (latents, noise, timesteps) = Objective(ALPHAS, "epsilon"), batch()
    noised = objective.noised(latents, noise, timesteps, 5.0)
    prediction = torch.zeros_like(noise)
    wanted = sum(noised.weight[i] * noise[i].square().mean() for i in range(5)) / 5
    torch.testing.assert_close(objective.loss(prediction, noised), wanted)
    assert objective.loss(noise, noised) == 0


def test_the_loss_is_computed_in_float32() -> None:
    objective = Objective(ALPHAS, "epsilon")
    noised = objective.noised(*batch(), None)
    assert objective.loss(noised.target.bfloat16() * 100, noised).dtype == torch.float32


@pytest.mark.parametrize("count", [1, 2, 8, 64])
def test_uniform_timesteps_hit_every_stratum_once(count: int) -> None:
    objective = Objective(ALPHAS, "epsilon")
    for seed in range(20):
        timesteps = objective.sample_timesteps(count, UNIFORM, generator(seed))
        assert timesteps.dtype == torch.int64
        assert (timesteps * count // 1000).clamp(max=count - 1).sort().values.tolist() == pytest.approx(
            list(range(count)), abs=0 if 1000 % count == 0 else 1
        )


def test_uniform_timesteps_reach_the_whole_range_in_mixed_order() -> None:
    objective = Objective(ALPHAS, "epsilon")
    drawn = torch.stack([objective.sample_timesteps(4, UNIFORM, generator(seed)) for seed in range(2000)])
    assert drawn.min() <= 3
    assert drawn.max() >= 996
    assert drawn.max() <= 999
    assert (drawn.float().mean(dim=0) - 500).abs().max() < 30  # no place of the batch has a noise level of its own


@pytest.mark.parametrize("config", [UNIFORM, MIXED], ids=["uniform", "mixed"])
def test_timesteps_depend_on_the_generator_alone(config: TrainingConfig) -> None:
    objective = Objective(ALPHAS, "epsilon")
    first = objective.sample_timesteps(16, config, generator(3))
    torch.rand(7)
    assert torch.equal(first, objective.sample_timesteps(16, config, generator(3)))
    assert not torch.equal(first, objective.sample_timesteps(16, config, generator(4)))


def test_mixed_timesteps_are_half_uniform_and_half_shifted() -> None:
    objective = Objective(ALPHAS, "epsilon")
    narrow = TrainingConfig(timesteps="mixed", log_snr_mean=-3.0, log_snr_std=0.01)
    drawn = torch.cat([objective.sample_timesteps(8, narrow, generator(seed)) for seed in range(500)])
    assert drawn.min() >= 0
    assert drawn.max() <= 999
    shifted = (objective.log_snr[drawn] + 3.0).abs() < 0.06
    assert shifted.float().mean().item() == pytest.approx(0.5, abs=0.04)
    rest = drawn[~shifted].float()
    assert rest.mean().item() == pytest.approx(500, abs=40)


def test_mixed_timesteps_lie_at_higher_noise_by_the_mean_asked_for() -> None:
    objective = Objective(ALPHAS, "epsilon")
    drawn = torch.cat([objective.sample_timesteps(8, MIXED, generator(seed)) for seed in range(500)])
    high = TrainingConfig(timesteps="mixed", log_snr_mean=3.0, log_snr_std=2.0)
    other = torch.cat([objective.sample_timesteps(8, high, generator(seed)) for seed in range(500)])
    assert drawn.float().mean() > 550
    assert other.float().mean() < 400


@pytest.mark.parametrize("kind", ["sample", "flow", ""])
def test_other_predictions_are_refused(kind: str) -> None:
    with pytest.raises(BaseModelError, match="cannot be trained"):
        Objective(ALPHAS, kind)
