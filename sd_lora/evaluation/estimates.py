"""A measured figure with its uncertainty: bootstrap intervals for scores, Wilson's for shares."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

RESAMPLES = 1000
_TAIL = 0.025
_Z = 1.959964  # of a two-sided interval of 95 %


@dataclass(frozen=True)
class Estimate:
    """`value`, the interval (`low`, `high`) that holds the true one in 95 % of cases, and `n`, how many pictures it
    rests on."""

    value: float
    low: float
    high: float
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        return self.low, self.high

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f}, n = {self.n})"


def resampled(count: int, seed: int, resamples: int = RESAMPLES) -> Tensor:
    """How often each of `count` pictures is drawn in each bootstrap sample: (resamples, count), float64."""
    chosen = torch.randint(count, (resamples, count), generator=torch.Generator().manual_seed(seed))
    times = torch.zeros(resamples, count, dtype=torch.float64)
    return times.scatter_add_(1, chosen, torch.ones(1, 1, dtype=torch.float64).expand(resamples, count))


def bootstrap(statistic: Callable[[Tensor], Tensor], count: int, seed: int = 0) -> Estimate:
    """`statistic` of weights (b, count) → (b,), over `count` pictures; percentile interval."""
    value = float(statistic(torch.ones(1, count, dtype=torch.float64)))
    return of_samples(value, statistic(resampled(count, seed)), count)


def of_samples(value: float, samples: Tensor, n: int) -> Estimate:
    """An estimate whose interval is that of bootstrap `samples` (b,)."""
    usable = samples[samples.isfinite()]
    if not len(usable):
        return Estimate(value, -math.inf, math.inf, n)
    low, high = torch.quantile(usable.double(), torch.tensor([_TAIL, 1 - _TAIL], dtype=torch.float64)).tolist()
    return Estimate(value, low, high, n)


def share(hits: int, n: int) -> Estimate:
    """`hits` of `n` as a share, with Wilson's interval (Wilson 1927), which is right for few and for 0 or all."""
    if not n:
        return Estimate(math.nan, 0.0, 1.0, 0)
    p, z = hits / n, _Z
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Estimate(p, max(0.0, middle - half), min(1.0, middle + half), n)
