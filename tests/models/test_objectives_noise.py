"""The noise that is drawn: plain, with an offset, of several resolutions, perturbed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sd_lora.config.schema import TrainingConfig
from sd_lora.models.noise import draw_noise
from sd_lora.models.objectives import Denoising, FlowMatching, Objective

ALPHAS = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, dim=0)
SHAPE = (4, 12, 9)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {}, "offset": {"noise_offset": 0.5}, "multires": {"multires_noise": 0.7},
    "both": {"noise_offset": 0.5, "multires_noise": 0.7},
}  # fmt: skip


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(count: int = 4000, seed: int = 0, **options: Any) -> Tensor:
    return draw_noise(count, SHAPE, TrainingConfig(**options), generator(seed))


def correlation(noise: Tensor, first: tuple[int, int, int], second: tuple[int, int, int]) -> float:
    """Of two values, over pictures of mean 0."""
    one, other = noise[:, *first], noise[:, *second]
    return ((one * other).mean() / (one.square().mean() * other.square().mean()).sqrt()).item()


def test_plain_noise_draws_exactly_what_torch_draws() -> None:
    ours, theirs = generator(3), generator(3)
    noise = draw_noise(5, [4, 8, 6], TrainingConfig(), ours)
    assert torch.equal(noise, torch.randn(5, 4, 8, 6, generator=theirs))
    assert torch.equal(ours.get_state(), theirs.get_state())


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_noise_depends_on_the_generator_alone(options: dict[str, Any]) -> None:
    first = drawn(2, **options)
    torch.rand(7)
    assert torch.equal(first, drawn(2, **options))
    assert not torch.equal(first, drawn(2, seed=1, **options))
    assert not options or not torch.equal(first, drawn(2))
    assert first.dtype == torch.float32


def test_an_offset_is_a_constant_of_each_picture_and_channel() -> None:
    offset = drawn(noise_offset=0.5) - drawn()
    constant = offset.mean(dim=(2, 3))
    torch.testing.assert_close(offset, constant[:, :, None, None].expand_as(offset), rtol=0, atol=1e-5)
    assert constant.std().item() == pytest.approx(0.5, rel=0.03)
    assert constant.mean().item() == pytest.approx(0, abs=0.02)
    assert torch.corrcoef(constant.T).fill_diagonal_(0).abs().max() < 0.06  # each channel has its own


def test_an_offset_correlates_places_of_a_channel() -> None:
    noise = drawn(noise_offset=0.5)
    assert noise.var().item() == pytest.approx(1.25, rel=0.03)
    assert correlation(noise, (0, 0, 0), (0, 11, 8)) == pytest.approx(0.25 / 1.25, abs=0.06)
    assert correlation(noise, (0, 0, 0), (1, 11, 8)) == pytest.approx(0, abs=0.06)


def test_multires_noise_has_unit_variance_at_every_place() -> None:
    noise = drawn(20000, multires_noise=0.7)
    assert noise.mean().abs() < 0.01
    assert (noise.var(dim=0) - 1).abs().max() < 0.06


def test_multires_noise_correlates_near_places_most_and_no_channels_or_pictures() -> None:
    noise = drawn(20000, multires_noise=0.7)
    near, far = correlation(noise, (0, 4, 4), (0, 4, 5)), correlation(noise, (0, 0, 0), (0, 11, 8))
    # Sizes 6 · 5, 3 · 3, 2 · 2 and 1 · 1 follow; only the last and part of those before it join opposite corners.
    total = sum(0.7 ** (2 * level) for level in range(5))
    assert 0.7**8 / total - 0.03 < far < 0.15
    assert 0.3 < near < 1 - 1 / total + 0.03
    assert correlation(noise, (0, 4, 4), (1, 4, 4)) == pytest.approx(0, abs=0.03)
    assert (noise[:-1, 0, 4, 4] * noise[1:, 0, 4, 4]).mean().item() == pytest.approx(0, abs=0.03)


def test_multires_noise_shares_out_its_variance_as_the_discount_says() -> None:
    # 1 · 2 places and then one: the correlation of the two has a closed form.
    noise = draw_noise(40000, (1, 1, 2), TrainingConfig(multires_noise=0.6), generator())
    assert correlation(noise, (0, 0, 0), (0, 0, 1)) == pytest.approx(0.36 / 1.36, abs=0.02)


def test_a_smaller_discount_comes_nearer_to_plain_noise() -> None:
    strengths = [(drawn(50, multires_noise=discount) - drawn(50)).square().mean() for discount in (0.01, 0.3, 0.9)]
    assert strengths[0] < 0.001 < strengths[1] < strengths[2]


@pytest.mark.parametrize("shape", [(4, 1, 1), (4, 7, 1), (4, 13, 64)])
def test_multires_noise_of_odd_shapes(shape: tuple[int, int, int]) -> None:
    noise = draw_noise(300, shape, TrainingConfig(multires_noise=0.5), generator())
    assert noise.shape == (300, *shape)
    assert noise.var().item() == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize(
    "objective",
    [Objective(ALPHAS, "epsilon"), Objective(ALPHAS, "v_prediction"), FlowMatching()],
    ids=["epsilon", "v", "flow"],
)
def test_a_perturbation_goes_into_the_picture_and_not_into_the_target(objective: Denoising) -> None:
    latents, noise = torch.randn(2, 3, *SHAPE, generator=generator(1))
    timesteps, config = torch.tensor([100, 500, 900]), TrainingConfig(input_perturbation=0.1)
    plain = objective.noised(latents, noise, timesteps, TrainingConfig())
    perturbed = objective.noised(latents, noise, timesteps, config, generator(2))
    assert torch.equal(perturbed.target, plain.target)
    extra = 0.1 * torch.randn(noise.shape, generator=generator(2))
    wanted = objective.noised(latents, noise + extra, timesteps, TrainingConfig())
    assert torch.equal(perturbed.latents, wanted.latents)
    assert not torch.equal(perturbed.latents, plain.latents)


def test_a_generator_for_each_picture_makes_a_perturbation_independent_of_the_batch() -> None:
    objective, config = Objective(ALPHAS, "epsilon"), TrainingConfig(input_perturbation=0.1)
    latents, noise = torch.randn(2, 3, *SHAPE, generator=generator(1))
    timesteps = torch.tensor([100, 500, 900])
    whole = objective.noised(latents, noise, timesteps, config, [generator(i) for i in range(3)])
    last = objective.noised(latents[2:], noise[2:], timesteps[2:], config, [generator(2)])
    assert torch.equal(whole.latents[2:], last.latents)


def test_no_perturbation_draws_nothing_and_one_needs_a_generator() -> None:
    objective, own = Objective(ALPHAS, "epsilon"), generator(2)
    latents, noise = torch.randn(2, 1, *SHAPE)
    objective.noised(latents, noise, torch.tensor([5]), TrainingConfig(), own)
    assert torch.equal(own.get_state(), generator(2).get_state())
    with pytest.raises(ValueError, match="generator"):
        objective.noised(latents, noise, torch.tensor([5]), TrainingConfig(input_perturbation=0.1))
