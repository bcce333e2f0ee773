"""Shifts of flows against the schedulers that draw by them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from sd_lora.config.schema import TrainingConfig
from sd_lora.errors import BaseModelError
from sd_lora.models.objectives import FlowMatching
from sd_lora.models.shift import shift_of

STATIC = {"shift": 3.0}
#: that of FLUX.1-dev
DYNAMIC = {"shift": 3.0, "use_dynamic_shifting": True}
SIZES = [(64, 64), (128, 128), (96, 168), (192, 192)]


def mean_mu(places: int, scheduler: Any) -> float:
    """What the pipelines of FLUX and SD3 give their schedulers."""
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    config = scheduler.config
    return calculate_shift(
        places // 4, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("settings", [STATIC, DYNAMIC, DYNAMIC | {"time_shift_type": "linear"}])
def test_levels_are_those_that_the_scheduler_draws_with(settings: dict[str, Any], size: tuple[int, int]) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(**settings)
    places, dynamic = size[0] * size[1], "use_dynamic_shifting" in settings
    plain = torch.linspace(scheduler.sigma_max, scheduler.sigma_min, 17)
    shift = shift_of(scheduler, 4)
    scheduler.set_timesteps(17, mu=mean_mu(places, scheduler) if dynamic else None)
    ours = shift(plain.double(), torch.full((17,), places))
    torch.testing.assert_close(ours.float(), scheduler.sigmas[:-1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(shift.back(ours, torch.full((17,), places)).float(), plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", [STATIC, DYNAMIC])
def test_uniform_timesteps_are_uniform_before_the_shift(settings: dict[str, Any]) -> None:
    flow, places = FlowMatching(shift_of(FlowMatchEulerDiscreteScheduler(**settings), 4)), torch.tensor([4096, 16384])
    draw = torch.Generator().manual_seed(0)
    drawn = torch.stack([flow.sample_timesteps(2, TrainingConfig(), draw, places) for _ in range(2000)])
    before = flow.shift.back(drawn.double().flatten() / 1000, places.repeat(2000)).view(-1, 2)
    for column in before.T:  # for either size
        assert column.mean().item() == pytest.approx(0.5, abs=0.02)
        assert torch.histc(column, 4, 0, 1).div(len(column)).sub(0.25).abs().max() < 0.03
    assert drawn.mean() > 600  # more noise than without a shift


def test_the_mixture_is_of_log_snrs_after_the_shift() -> None:
    narrow = TrainingConfig(timesteps="mixed", log_snr_mean=-1.0, log_snr_std=0.01)
    flow = FlowMatching(shift_of(FlowMatchEulerDiscreteScheduler(shift=3.0), 4))
    draw = torch.Generator().manual_seed(0)
    level = torch.cat([flow.sample_timesteps(8, narrow, draw) for _ in range(500)]) / 1000
    near = (2 * ((1 - level) / level).log() + 1).abs() < 0.05
    assert near.float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_a_range_is_of_levels_after_the_shift() -> None:
    flow = FlowMatching(shift_of(FlowMatchEulerDiscreteScheduler(shift=3.0), 4))
    half = TrainingConfig(timestep_range=(0.0, 0.5))
    drawn = torch.cat([flow.sample_timesteps(8, half, torch.Generator().manual_seed(s)) for s in range(200)])
    assert 0 <= drawn.min() < 10
    assert 490 < drawn.max() <= 500


def test_fingerprints_tell_shifts_apart() -> None:
    settings = [STATIC, {"shift": 2.0}, DYNAMIC, DYNAMIC | {"max_shift": 1.0}]
    prints = {tuple(FlowMatching(shift_of(FlowMatchEulerDiscreteScheduler(**s), 4)).fingerprint()) for s in settings}
    assert len(prints) == 4


def test_a_dynamic_shift_needs_the_sizes() -> None:
    flow = FlowMatching(shift_of(FlowMatchEulerDiscreteScheduler(**DYNAMIC), 4))
    with pytest.raises(ValueError, match="sizes"):
        flow.sample_timesteps(2, TrainingConfig(), torch.Generator())


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        (DDIMScheduler(), "DDIMScheduler has no flow"),
        (FlowMatchEulerDiscreteScheduler(shift_terminal=0.02), "shift_terminal set, which cannot be trained"),
        (FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True), "use_karras_sigmas set"),
    ],
)
def test_other_schedulers_are_refused(scheduler: Any, words: str) -> None:
    with pytest.raises(BaseModelError, match=words):
        shift_of(scheduler, 4)
