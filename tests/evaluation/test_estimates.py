"""Intervals hold the truth about as often as they say."""

from __future__ import annotations

import math

import pytest
import torch

from sd_lora.evaluation.estimates import bootstrap, of_samples, share


def test_wilsons_interval_is_right_at_the_ends() -> None:
    none, every = share(0, 20), share(20, 20)
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(0.161, abs=0.001)
    assert (every.value, every.high) == (1, 1)
    assert math.isnan(share(0, 0).value)


def test_a_bootstrap_interval_holds_the_mean_in_most_cases() -> None:
    hits = 0
    for seed in range(100):
        values = torch.randn(30, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 5
        estimate = bootstrap(lambda weights, values=values: weights @ values / weights.sum(dim=1), 30, seed)
        hits += estimate.low <= 5 <= estimate.high
    assert 86 <= hits <= 99


def test_samples_without_a_number_give_no_certainty() -> None:
    estimate = of_samples(0.5, torch.tensor([math.nan, math.inf]), 4)
    assert estimate.interval == (-math.inf, math.inf)
