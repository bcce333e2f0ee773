"""Scores of sets of features: the ends of the scale, mixtures in order, and intervals that say how sure they are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sd_lora.evaluation.energy import energy_distance, style_scores


def drawn(count: int, shift: float, seed: int) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(seed)) + shift


BASE, STYLED, REFERENCES = drawn(24, 0, 1), drawn(24, 3, 2), drawn(10, 3, 3)


def test_the_base_scores_nothing_and_the_style_everything() -> None:
    scores = style_scores(BASE, [BASE, STYLED], REFERENCES)
    assert float(scores.scores[0]) == pytest.approx(0, abs=1e-9)
    assert float(scores.scores[1]) == pytest.approx(1, abs=0.1)
    assert scores.of(0).low <= 0 <= scores.of(0).high
    assert scores.is_told_apart


def test_a_share_of_styled_pictures_scores_its_square() -> None:
    """The energy distance of a mixture is quadratic in the share that differs."""
    shares = (0.25, 0.5, 0.75)
    sets = [torch.cat([STYLED[: int(24 * s)], BASE[int(24 * s) :]]) for s in shares]
    scores = style_scores(BASE, sets, REFERENCES).scores.tolist()
    assert scores == sorted(scores)
    assert scores == pytest.approx([1 - (1 - s) ** 2 for s in shares], abs=0.08)


def test_a_calm_style_elsewhere_does_not_score_as_near() -> None:
    """A mean of pair distances would prefer pictures that are all alike to those as varied as the references."""
    calm = torch.full((24, 6), 2.6) + drawn(24, 0, 4) * 0.01
    scores = style_scores(BASE, [STYLED, calm], REFERENCES)
    assert scores.scores[0] > scores.scores[1] + 0.05


def test_references_that_the_base_draws_already_are_not_a_style() -> None:
    assert not style_scores(BASE, [STYLED], drawn(10, 0, 9)).is_told_apart


def test_differences_are_paired() -> None:
    """Two sets that differ by the same little in each picture are told apart, though their own intervals overlap."""
    near = BASE + 0.8 * (STYLED - BASE)
    nearer = BASE + 0.9 * (STYLED - BASE)
    scores = style_scores(BASE, [near, nearer], REFERENCES)
    assert scores.of(0).high > scores.of(1).low
    assert scores.difference(1, 0).low > 0


def test_more_pictures_give_narrower_intervals() -> None:
    few = style_scores(BASE[:6], [STYLED[:6]], REFERENCES).of(0)
    many = style_scores(BASE, [STYLED], REFERENCES).of(0)
    assert many.high - many.low < few.high - few.low


def test_too_few_references_are_refused() -> None:
    with pytest.raises(ValueError, match="3 references"):
        style_scores(BASE, [STYLED], REFERENCES[:3])


def test_the_distance_of_a_set_to_another_of_its_kind_is_about_nothing() -> None:
    assert abs(energy_distance(drawn(200, 0, 5), drawn(200, 0, 6))) < 0.02
