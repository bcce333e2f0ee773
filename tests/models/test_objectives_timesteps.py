"""Which timesteps are drawn: strata, shares, ranges."""

from __future__ import annotations

from itertools import product
from typing import get_args, get_type_hints

import pytest
import torch
from rows import every_row
from torch import Tensor

from sd_lora.config.schema import TrainingConfig
from sd_lora.errors import ConfigError
from sd_lora.models.objectives import Denoising, FlowMatching, Objective
from sd_lora.models.timesteps import LAWS

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
ALPHAS = torch.cumprod(1 - BETAS, dim=0).float()
UNIFORM, MIXED = TrainingConfig(), TrainingConfig(timesteps="mixed", log_snr_mean=-3.0, log_snr_std=2.0)
#: law → its least and largest mean of all timesteps, with the settings above
MEANS = {"uniform": (480, 520), "mixed": (550, 700)}
OBJECTIVES: list[Denoising] = [Objective(ALPHAS, "epsilon"), FlowMatching()]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def many(objective: Denoising, config: TrainingConfig, count: int = 8) -> Tensor:
    return torch.cat([objective.sample_timesteps(count, config, generator(seed)) for seed in range(500)])


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=["schedule", "flow"])
def test_every_law_draws_from_its_noise_levels(objective: Denoising, law: str) -> None:
    lowest, highest = MEANS[law]
    drawn = many(objective, TrainingConfig(timesteps=law))  # type: ignore[arg-type]
    assert lowest < drawn.float().mean() < highest


def test_the_laws_are_those_of_the_config() -> None:
    assert set(get_args(get_type_hints(TrainingConfig)["timesteps"])) == set(LAWS)


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


SPANS = [(0.0, 0.25), (0.2, 0.8), (0.5, 1.0), (0.999, 1.0)]


@every_row("span, mode, objective", product(SPANS, LAWS, OBJECTIVES))
def test_a_range_is_kept(objective: Denoising, mode: str, span: tuple[float, float]) -> None:
    config = TrainingConfig(timesteps=mode, timestep_range=span)  # type: ignore[arg-type]
    drawn = many(objective, config)
    assert drawn.min() >= 1000 * span[0]
    assert drawn.max() <= 1000 * span[1]
    assert isinstance(objective, FlowMatching) or drawn.max() < 1000 * span[1]
    reached = 0.9 if mode == "uniform" or span[1] - span[0] < 0.01 else 0.4
    assert drawn.max() - drawn.min() >= reached * 1000 * (span[1] - span[0]) - 1


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["schedule", "flow"])
def test_a_range_is_stratified_like_the_whole(objective: Denoising) -> None:
    config = TrainingConfig(timestep_range=(0.2, 0.6))
    for seed in range(20):
        drawn = objective.sample_timesteps(8, config, generator(seed))
        assert ((drawn - 200) * 8 // 400).sort().values.tolist() == list(range(8))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["schedule", "flow"])
def test_the_mixture_is_truncated_to_the_range_and_does_not_gather_at_its_end(objective: Denoising) -> None:
    # The mean of the log-SNR lies beyond the end: clamping would put half of all draws on the last timestep.
    config = TrainingConfig(timesteps="mixed", log_snr_mean=-3.0, log_snr_std=2.0, timestep_range=(0.0, 0.5))
    drawn = many(objective, config)
    assert (drawn > 490).float().mean() < 0.1
    higher = (drawn > 375).float().mean()
    assert 0.35 < higher < 0.65  # a quarter of the uniform half, and most of the other


@pytest.mark.parametrize("zero_terminal", [False, True])
@pytest.mark.parametrize("mean", [-3.0, -6.0])
def test_the_mixture_over_all_timesteps_does_not_gather_at_the_last(mean: float, zero_terminal: bool) -> None:
    objective = Objective(ALPHAS, "v_prediction", zero_terminal_snr=zero_terminal)
    drawn = many(objective, TrainingConfig(timesteps="mixed", log_snr_mean=mean, log_snr_std=2.0), 128)
    share = torch.bincount(drawn, minlength=1000) / len(drawn)
    near = share[980:998].mean()
    assert share[998:].max() < 4 * near
    assert share[:20].max() < 4 * share[20:60].mean()


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["schedule", "flow"])
@pytest.mark.parametrize(("mean", "end"), [(60.0, 500), (-60.0, 1000)])
def test_a_mixture_far_outside_the_range_is_its_nearer_end(objective: Denoising, mean: float, end: int) -> None:
    config = TrainingConfig(timesteps="mixed", log_snr_mean=mean, log_snr_std=0.1, timestep_range=(0.5, 1.0))
    gathered = (many(objective, config) - end).abs() < 1.5
    assert gathered.float().mean().item() == pytest.approx(0.5, abs=0.04)


@every_row("span, objective", product([(0.5, 0.5), (0.8, 0.2), (1.0, 1.0)], OBJECTIVES))
def test_an_empty_range_is_refused(objective: Denoising, span: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"training\.timestep_range is \[.*which holds .*; give"):
        objective.sample_timesteps(2, TrainingConfig(timestep_range=span), generator())


def test_a_draw_that_rounds_up_to_1_stays_in_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda count, **_: torch.full((count,), 1 - 2**-24))
    for objective in OBJECTIVES:
        for span in ((0.0, 0.5), (0.0, 1.0)):
            drawn = objective.sample_timesteps(8, TrainingConfig(timestep_range=span), generator())
            assert drawn.max() == 1000 * span[1] - (0 if isinstance(objective, FlowMatching) else 1)


def test_a_range_between_two_timesteps_is_refused() -> None:
    with pytest.raises(ConfigError, match="none of the 1000 timesteps"):
        OBJECTIVES[0].sample_timesteps(2, TrainingConfig(timestep_range=(0.5001, 0.5002)), generator())


def test_the_last_timestep_of_a_zero_terminal_schedule_can_be_drawn() -> None:
    objective = Objective(ALPHAS, "v_prediction", zero_terminal_snr=True)
    for config in (UNIFORM, MIXED, TrainingConfig(timesteps="mixed", timestep_range=(0.9, 1.0))):
        drawn = many(objective, config)
        assert drawn.min() >= 0
        assert drawn.max() in range(990, 1000)


def test_a_flow_draws_the_log_snr_asked_for() -> None:
    narrow = TrainingConfig(timesteps="mixed", log_snr_mean=-1.0, log_snr_std=0.01)
    level = many(FlowMatching(), narrow) / 1000
    near = (2 * ((1 - level) / level).log() + 1).abs() < 0.05
    assert near.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert level[~near].mean().item() == pytest.approx(0.5, abs=0.04)


def test_levels_lie_evenly_over_the_schedule() -> None:
    assert Objective(ALPHAS, "epsilon").levels(4).tolist() == [125, 375, 625, 875]
    assert FlowMatching().levels(4).tolist() == [125.0, 375.0, 625.0, 875.0]


def test_a_fingerprint_tells_schedules_apart() -> None:
    prints = [Objective(alphas, "epsilon").fingerprint() for alphas in (ALPHAS, ALPHAS[:-1], ALPHAS**2)]
    assert prints[0] == Objective(ALPHAS.clone(), "epsilon").fingerprint()
    assert len({tuple(each) for each in prints}) == 3
    assert FlowMatching().fingerprint() == FlowMatching().fingerprint()
