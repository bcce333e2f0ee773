"""How far a set of pictures is from a style: the energy distance of their features, and the share of it closed.

D(X, R) = 2 E d(X, R) − E d(X, X′) − E d(R, R′), unbiased, with the Euclidean distance d (Székely and Rizzo 2013,
"Energy statistics"). A mean of pair distances would not do: a calm wrong style scores above 1 with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sd_lora.evaluation.estimates import Estimate, of_samples, resampled

#: fewer references say too little of a style: the standard deviation of a score of two is .5 to .8
LEAST_REFERENCES = 4


@dataclass(frozen=True)
class StyleScores:
    """Scores of several sets of pictures against the same references, drawn for the same prompts.

    `scores` (sets,): 0 = as far from the references as the base model's pictures, 1 = as near as they are to one
    another; `samples` (bootstrap, sets): the same of resampled prompts and references, the same resampling for all
    sets, so that their differences are paired. `base` is the energy distance of the base model's pictures.
    """

    scores: Tensor
    samples: Tensor
    base: Estimate
    n: int

    def of(self, index: int) -> Estimate:
        return of_samples(float(self.scores[index]), self.samples[:, index], self.n)

    def difference(self, first: int, second: int) -> Estimate:
        """How much the first set scores above the second."""
        value = float(self.scores[first] - self.scores[second])
        return of_samples(value, self.samples[:, first] - self.samples[:, second], self.n)

    @property
    def is_told_apart(self) -> bool:
        """Whether the base model's own pictures are farther from the references than chance; without that there is
        nothing to close, and no score means anything."""
        return self.base.low > 0


def style_scores(base: Tensor, sets: Sequence[Tensor], references: Tensor, seed: int = 0) -> StyleScores:
    """Scores of `sets`, each (n, d) features of pictures of the same n prompts as `base`, against `references` (r, d).

    Features are z-scored. ValueError for fewer than `LEAST_REFERENCES` references or two prompts.
    """
    if len(references) < LEAST_REFERENCES or len(base) < 2:
        raise ValueError(f"{len(references)} references and {len(base)} prompts are too few for a score")
    everything = [base, *sets]
    prompts, chosen = resampled(len(base), 2 * seed), resampled(len(references), 2 * seed + 1)
    whole = torch.ones(1, len(base), dtype=torch.float64), torch.ones(1, len(references), dtype=torch.float64)
    exact, samples = (
        torch.stack([_distances(x.double(), references.double(), *weights) for x in everything], dim=1)
        for weights in (whole, (prompts, chosen))
    )
    closed = 1 - samples[:, 1:] / torch.where(samples[:, :1] > 0, samples[:, :1], torch.nan)
    start = of_samples(float(exact[0, 0]), samples[:, 0], len(base))
    return StyleScores((1 - exact[0, 1:] / exact[0, 0]), closed, start, len(base))


def energy_distance(first: Tensor, second: Tensor) -> float:
    """The energy distance of two sets of features, (n, d) and (m, d)."""
    ones = torch.ones(1, len(first), dtype=torch.float64), torch.ones(1, len(second), dtype=torch.float64)
    return float(_distances(first.double(), second.double(), *ones))


def _distances(x: Tensor, r: Tensor, x_weights: Tensor, r_weights: Tensor) -> Tensor:
    """The energy distance of `x` (n, d) and `r` (m, d) under each row of weights (b, n) and (b, m): (b,)."""
    across = _mean_over(torch.cdist(x, r), x_weights, r_weights)
    return 2 * across - _mean_within(torch.cdist(x, x), x_weights) - _mean_within(torch.cdist(r, r), r_weights)


def _mean_over(distances: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return ((rows @ distances) * columns).sum(dim=1) / (rows.sum(dim=1) * columns.sum(dim=1))


def _mean_within(distances: Tensor, weights: Tensor) -> Tensor:
    """The mean over pairs of different pictures; a picture drawn twice is no pair with itself."""
    pairs = weights.sum(dim=1).square() - weights.square().sum(dim=1)
    return ((weights @ distances) * weights).sum(dim=1) / pairs
