"""The choice of checkpoint and strength: what passes, what is tied, and what it says."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sd_lora.evaluation.energy import StyleScores
from sd_lora.evaluation.estimates import Estimate
from sd_lora.evaluation.selection import Cell, Grid, choose, shortlist

CELLS = [Cell(200, 0.8), Cell(200, 1.0), Cell(400, 0.8), Cell(400, 1.0), Cell(400, 1.2)]
LAST = Cell(400, 1.0)
PROMPTS = 16


def grid(
    scores: Sequence[float], contents: Sequence[float], copies: Sequence[float] = (0, 0, 0, 0, 0), noise: float = 0.02
) -> Grid:
    """Cells with these scores and shares of content and copies; `noise`: standard error of a paired difference."""
    middle = torch.tensor(list(scores), dtype=torch.float64)
    samples = middle + torch.randn(400, len(middle), generator=torch.Generator().manual_seed(0)) * noise / 2**0.5
    style = StyleScores(middle, samples, Estimate(5, 4, 6, PROMPTS), PROMPTS)
    kept, copied = (
        torch.stack([torch.arange(PROMPTS) < round(share * PROMPTS) for share in shares])
        for shares in (contents, copies)
    )
    return Grid(CELLS, style, kept, copied, torch.ones(PROMPTS, dtype=torch.bool))


FULL = (1, 1, 1, 1, 1)


def test_the_most_style_wins_where_it_can_be_told() -> None:
    assert choose(grid((0.3, 0.5, 0.6, 0.9, 0.7), FULL), LAST).cell == LAST


def test_of_cells_that_cannot_be_told_apart_the_safest_is_kept() -> None:
    choice = choose(grid((0.3, 0.89, 0.6, 0.9, 0.7), FULL), LAST)
    assert choice.cell == Cell(200, 1.0)
    assert choice.best == LAST
    assert set(choice.tied) == {Cell(200, 1.0), LAST}
    assert "cannot be told apart" in choice.reasons[0]


def test_content_comes_before_style() -> None:
    choice = choose(grid((0.3, 0.5, 0.8, 0.95, 0.99), (1, 1, 1, 0.6, 0.3)), LAST)
    assert choice.cell == Cell(400, 0.8)
    assert any("2 of 5 cells lose content" in reason for reason in choice.reasons)
    assert any("less style" in reason and "content +0.38" in reason for reason in choice.reasons)


def test_a_style_that_hides_content_from_the_base_is_not_judged_by_it() -> None:
    choice = choose(grid((0.3, 0.5, 0.8, 0.95, 0.7), (0.6, 0.5, 0.5, 0.4, 0.3)), LAST)
    assert choice.cell == LAST
    assert "content was not asked" in choice.reasons[0]


def test_a_cell_that_copies_is_left_out() -> None:
    choice = choose(grid((0.3, 0.5, 0.8, 0.95, 0.99), FULL, (0, 0, 0, 0.5, 0.6)), LAST)
    assert choice.cell == Cell(400, 0.8)
    assert any("copy training pictures" in reason for reason in choice.reasons)


def test_one_accidental_likeness_is_no_copying() -> None:
    assert choose(grid((0.3, 0.5, 0.6, 0.9, 0.7), FULL, (0, 0, 0, 1 / 16, 0)), LAST).cell == LAST


def test_where_nothing_passes_the_least_harm_is_done() -> None:
    choice = choose(grid((0.9, 0.9, 0.9, 0.9, 0.9), (0.95, 0.9, 0.8, 0.7, 0.6), (0.5,) * 5), LAST)
    assert choice.cell == Cell(200, 0.8)
    assert any("train fewer steps" in reason for reason in choice.reasons)


def test_the_shortlist_holds_what_may_win_and_the_usual() -> None:
    cells = shortlist(grid((0.3, 0.5, 0.99, 0.9, 0.95), (1, 1, 0.5, 1, 1)), 2, LAST)
    assert cells == [LAST, Cell(400, 1.2)]
    assert shortlist(grid((0.9, 0.8, 0.1, 0.2, 0.3), FULL), 2, LAST) == [Cell(200, 0.8), Cell(200, 1.0), LAST]
