"""Losses and their weights against formulas."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from rows import every_row
from torch import Tensor

from sd_lora.config.schema import TrainingConfig
from sd_lora.models.objectives import Denoising, FlowMatching, Noised, Objective

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ALPHAS = torch.cumprod(1 - BETAS, dim=0).float()
PLAIN = TrainingConfig()
OBJECTIVES: dict[str, Denoising] = {
    "epsilon": Objective(ALPHAS, "epsilon"),
    "v_prediction": Objective(ALPHAS, "v_prediction"),
    "zero_terminal": Objective(ALPHAS, "v_prediction", zero_terminal_snr=True),
    "flow": FlowMatching(),
}
EPSILON = OBJECTIVES["epsilon"]
WEIGHTS = [PLAIN, TrainingConfig(min_snr_gamma=5.0), TrainingConfig(debiased=True)]


def batch() -> tuple[Tensor, Tensor, Tensor]:
    latents, noise = torch.randn(2, 5, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    return latents, noise, torch.tensor([0, 10, 500, 900, 999])


def snr_of(kind: str, timesteps: Tensor) -> Tensor:
    if kind == "flow":
        return ((1 - timesteps / 1000) / (timesteps / 1000)).double().square()
    alphas = OBJECTIVES[kind].alphas_cumprod.double()  # type: ignore[attr-defined]
    return (alphas / (1 - alphas))[timesteps]


def error_of(size: float, share: float, config: TrainingConfig) -> float:
    """The loss of one picture whose prediction is off by `size` everywhere."""
    target = torch.zeros(1, 1, 2, 2)
    noised = Noised(target, torch.zeros(1), target, torch.ones(1), torch.tensor([share]))
    return EPSILON.loss(target + size, noised, config).item()


@pytest.mark.parametrize("kind", list(OBJECTIVES))
def test_the_plain_loss_weighs_all_alike(kind: str) -> None:
    assert OBJECTIVES[kind].noised(*batch(), PLAIN).weight.tolist() == [1.0] * 5


@pytest.mark.parametrize("gamma", [5.0, 1.0])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weights(kind: str, gamma: float) -> None:
    snr = snr_of(kind, batch()[2])
    wanted = snr.clamp(max=gamma) / (snr if kind == "epsilon" else snr + 1)
    weight = OBJECTIVES[kind].noised(*batch(), TrainingConfig(min_snr_gamma=gamma)).weight
    torch.testing.assert_close(weight.double(), wanted, rtol=1e-4, atol=1e-6)
    assert weight.min() < 0.5 * weight.max()  # the schedule reaches both sides of gamma


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "zero_terminal"])
def test_debiased_weights(kind: str) -> None:
    snr = snr_of(kind, batch()[2])
    wanted = 1 / snr.sqrt() if kind == "epsilon" else snr.sqrt() / (snr + 1)
    weight = OBJECTIVES[kind].noised(*batch(), TrainingConfig(debiased=True)).weight
    torch.testing.assert_close(weight.double(), wanted, rtol=1e-4, atol=2e-4)
    assert weight.isfinite().all()


def test_weights_of_a_flow() -> None:
    level = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    latents, noise = torch.randn(2, 3, 4, 3, 3)
    for config, wanted in [
        (TrainingConfig(debiased=True), level * (1 - level)),
        (TrainingConfig(min_snr_gamma=5.0), ((1 - level) / level).square().clamp(max=5) * level.square()),
    ]:
        weight = FlowMatching().noised(latents, noise, (1000 * level).float(), config).weight
        torch.testing.assert_close(weight.double(), wanted, rtol=1e-5, atol=1e-7)
    ends = torch.tensor([0.0, 1000.0])
    for config in WEIGHTS:
        assert FlowMatching().noised(latents[:2], noise[:2], ends, config).weight.isfinite().all()


@pytest.mark.parametrize("config", WEIGHTS[1:], ids=["min-snr", "debiased"])
def test_a_weighting_means_the_same_for_every_prediction(config: TrainingConfig) -> None:
    # The same guess at the latents costs as much, whether it is put as noise or as velocity.
    latents, noise, timesteps = batch()
    guess = latents + torch.randn(latents.shape, generator=torch.Generator().manual_seed(2))
    alpha = ALPHAS[timesteps].view(-1, 1, 1, 1)
    costs = []
    for kind in ("epsilon", "v_prediction"):
        noised = OBJECTIVES[kind].noised(latents, noise, timesteps, config)
        seen = (noised.latents - alpha.sqrt() * guess) / (1 - alpha).sqrt()
        prediction = seen if kind == "epsilon" else alpha.sqrt() * seen - (1 - alpha).sqrt() * guess
        costs.append(OBJECTIVES[kind].losses(prediction, noised, config))
    torch.testing.assert_close(costs[0], costs[1], rtol=1e-3, atol=1e-5)


def test_the_loss_is_the_weighted_mean_square() -> None:
    config, (latents, noise, timesteps) = TrainingConfig(min_snr_gamma=5.0), batch()
    noised = EPSILON.noised(latents, noise, timesteps, config)
    prediction = torch.zeros_like(noise)
    wanted = torch.stack([noised.weight[i] * noise[i].square().mean() for i in range(5)])
    torch.testing.assert_close(EPSILON.losses(prediction, noised, config), wanted)
    torch.testing.assert_close(EPSILON.loss(prediction, noised, config), wanted.mean())
    assert EPSILON.loss(noise, noised, config) == 0


@pytest.mark.parametrize("loss", ["l2", "l1", "huber"])
def test_the_loss_is_computed_in_float32(loss: str) -> None:
    config = TrainingConfig(loss=loss)  # type: ignore[arg-type]
    noised = EPSILON.noised(*batch(), config)
    prediction = noised.target.bfloat16()
    losses = EPSILON.losses(prediction, noised, config)
    assert losses.dtype == torch.float32
    assert torch.equal(losses, EPSILON.losses(prediction.float(), noised, config))
    assert (losses > 0).all()  # the rounding of the prediction, which a difference in bfloat16 would hide


@pytest.mark.parametrize("loss", ["l2", "l1", "huber"])
def test_places_weigh_the_error_there(loss: str) -> None:
    config = TrainingConfig(loss=loss)  # type: ignore[arg-type]
    noised = EPSILON.noised(*batch(), config)
    off, places = noised.target.clone(), torch.ones(5, 1, 3, 3)
    off[..., 0] += 1
    whole = EPSILON.losses(off, noised, config)
    assert (whole > 0).all()
    places[..., 0] = 0.25
    torch.testing.assert_close(EPSILON.losses(off, noised, config, places), whole / 4)
    places[..., 0] = 0
    assert EPSILON.loss(off, noised, config, places) == 0


def test_l1_is_the_mean_distance() -> None:
    for size in (-3.0, 0.25):
        assert error_of(size, 0.5, TrainingConfig(loss="l1")) == pytest.approx(abs(size))


@every_row("share, size", product([0.0, 0.3, 1.0], [1e-4, 0.05, 1.0, 20.0]))
def test_the_pseudo_huber_loss(share: float, size: float) -> None:
    threshold = math.exp(share * math.log(0.1))
    wanted = 2 * threshold * (math.sqrt(size**2 + threshold**2) - threshold)
    assert error_of(size, share, TrainingConfig(loss="huber")) == pytest.approx(wanted, rel=1e-5)


def test_the_pseudo_huber_loss_is_l2_for_small_errors_and_l1_for_large_ones() -> None:
    config = TrainingConfig(loss="huber", huber_threshold=0.01)
    assert error_of(1e-4, 1.0, config) == pytest.approx(1e-8, rel=1e-3)
    assert error_of(200.0, 1.0, config) - error_of(100.0, 1.0, config) == pytest.approx(2 * 0.01 * 100, rel=1e-3)
    assert error_of(0.5, 0.0, config) == error_of(
        0.5, 0.0, TrainingConfig(loss="huber")
    )  # no noise: the threshold is 1


def test_the_threshold_follows_the_timestep() -> None:
    config = TrainingConfig(loss="huber")
    for objective in OBJECTIVES.values():
        noised = objective.noised(*batch(), config)
        losses = objective.losses(noised.target + 1, noised, config)
        assert (losses.diff() < 0).all()
        assert (losses[0] / losses[-1]).item() == pytest.approx(0.8284 / 0.1810, rel=0.01)


@every_row("loss, config, kind", product(["l2", "l1", "huber"], WEIGHTS, OBJECTIVES))
def test_gradients_are_finite_even_without_error(kind: str, config: TrainingConfig, loss: str) -> None:
    config = TrainingConfig(loss=loss, min_snr_gamma=config.min_snr_gamma, debiased=config.debiased)  # type: ignore[arg-type]
    objective = OBJECTIVES[kind]
    noised = objective.noised(*batch(), config)
    for off in (0.0, 1e-20, 1.0, 1e4):
        prediction = (noised.target + off).requires_grad_()
        objective.loss(prediction, noised, config).backward()
        assert prediction.grad is not None
        assert prediction.grad.isfinite().all()
        assert off < 1 or (prediction.grad[1:4] > 0).all()
