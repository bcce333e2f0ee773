"""Losses and their weights against formulas, a row for each row of their tables."""
# ruff: noqa: ARG005 (a row need not use all that rows are given)

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any, get_args, get_type_hints

import pytest
import torch
from rows import every_row
from torch import Tensor

from sd_lora.config.schema import TrainingConfig
from sd_lora.models.losses import LOSSES, WEIGHTINGS
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
#: weighting → what the squared error of the latents weighs, and what the prediction's own weight is over it
WEIGHTED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "none": lambda snr, per_latent: per_latent,
    "min-snr": lambda snr, per_latent: snr.clamp(max=5),
    "debiased": lambda snr, per_latent: snr.sqrt(),
}  # fmt: skip
#: loss → of an error of this size, behind this share of the noise schedule, with a threshold of 0.1
LOSS_OF: dict[str, Callable[[float, float], float]] = {
    "l2": lambda size, share: size**2,
    "l1": lambda size, share: abs(size),
    "huber": lambda size, share: 2 * 0.1**share * (math.sqrt(size**2 + 0.1 ** (2 * share)) - 0.1**share),
}


def weighted(weighting: str, **more: Any) -> TrainingConfig:
    return TrainingConfig(weighting=weighting, **more)  # type: ignore[arg-type]


def test_losses_and_weightings_are_those_of_the_config() -> None:
    kinds = get_type_hints(TrainingConfig)
    assert set(get_args(kinds["loss"])) == set(LOSSES)
    assert set(get_args(kinds["weighting"])) == set(WEIGHTINGS)


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


@every_row("weighting, kind", product(WEIGHTINGS, ["epsilon", "v_prediction", "zero_terminal"]))
def test_weights(kind: str, weighting: str) -> None:
    snr = snr_of(kind, batch()[2])
    per_latent = snr if kind == "epsilon" else snr + 1
    weight = OBJECTIVES[kind].noised(*batch(), weighted(weighting)).weight
    torch.testing.assert_close(weight.double(), WEIGHTED[weighting](snr, per_latent) / per_latent, rtol=1e-4, atol=2e-4)
    assert weight.isfinite().all()


@every_row("weighting", WEIGHTINGS)
def test_weights_of_a_flow(weighting: str) -> None:
    level = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    latents, noise = torch.randn(2, 3, 4, 3, 3)
    wanted = WEIGHTED[weighting](((1 - level) / level).square(), level**-2) * level.square()
    weight = FlowMatching().noised(latents, noise, (1000 * level).float(), weighted(weighting)).weight
    torch.testing.assert_close(weight.double(), wanted, rtol=1e-5, atol=1e-7)
    ends = torch.tensor([0.0, 1000.0])
    assert FlowMatching().noised(latents[:2], noise[:2], ends, weighted(weighting)).weight.isfinite().all()


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_gamma_is_where_min_snr_begins_to_weigh_less(kind: str) -> None:
    snr = snr_of(kind, batch()[2])
    weight = OBJECTIVES[kind].noised(*batch(), weighted("min-snr", min_snr_gamma=1.0)).weight
    wanted = snr.clamp(max=1) / (snr if kind == "epsilon" else snr + 1)
    torch.testing.assert_close(weight.double(), wanted, rtol=1e-4, atol=1e-6)
    assert weight.min() < 0.5 * weight.max()  # the schedule reaches both sides of gamma


@pytest.mark.parametrize("weighting", [name for name, weigh in WEIGHTINGS.items() if weigh])
def test_a_weighting_means_the_same_for_every_prediction(weighting: str) -> None:
    # The same guess at the latents costs as much, whether it is put as noise or as velocity.
    config, (latents, noise, timesteps) = weighted(weighting), batch()
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
    config, (latents, noise, timesteps) = weighted("min-snr"), batch()
    noised = EPSILON.noised(latents, noise, timesteps, config)
    prediction = torch.zeros_like(noise)
    wanted = torch.stack([noised.weight[i] * noise[i].square().mean() for i in range(5)])
    torch.testing.assert_close(EPSILON.losses(prediction, noised, config), wanted)
    torch.testing.assert_close(EPSILON.loss(prediction, noised, config), wanted.mean())
    assert EPSILON.loss(noise, noised, config) == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_computed_in_float32(loss: str) -> None:
    config = TrainingConfig(loss=loss)  # type: ignore[arg-type]
    noised = EPSILON.noised(*batch(), config)
    prediction = noised.target.bfloat16()
    losses = EPSILON.losses(prediction, noised, config)
    assert losses.dtype == torch.float32
    assert torch.equal(losses, EPSILON.losses(prediction.float(), noised, config))
    assert (losses > 0).all()  # the rounding of the prediction, which a difference in bfloat16 would hide


@pytest.mark.parametrize("loss", LOSSES)
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


@every_row("loss, share, size", product(LOSSES, [0.0, 0.3, 1.0], [1e-4, -0.05, 1.0, 20.0]))
def test_what_an_error_costs(loss: str, share: float, size: float) -> None:
    config = TrainingConfig(loss=loss)  # type: ignore[arg-type]
    assert error_of(size, share, config) == pytest.approx(LOSS_OF[loss](size, share), rel=1e-5)


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


@every_row("loss, weighting, kind", product(LOSSES, WEIGHTINGS, OBJECTIVES))
def test_gradients_are_finite_even_without_error(kind: str, weighting: str, loss: str) -> None:
    config, objective = weighted(weighting, loss=loss), OBJECTIVES[kind]
    noised = objective.noised(*batch(), config)
    for off in (0.0, 1e-20, 1.0, 1e4):
        prediction = (noised.target + off).requires_grad_()
        objective.loss(prediction, noised, config).backward()
        assert prediction.grad is not None
        assert prediction.grad.isfinite().all()
        assert off < 1 or (prediction.grad[1:4] > 0).all()
