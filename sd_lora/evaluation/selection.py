"""Which checkpoint and which strength: chosen from measured cells, with the reason in words.

Rule: the most style among the cells that keep the content and copy nothing; of all that are within one standard error
of the best, paired over prompts, the earliest checkpoint and the lowest strength.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sd_lora.evaluation.energy import StyleScores
from sd_lora.evaluation.estimates import Estimate, share

#: of the content that the base model reads in its own pictures, what a chosen cell keeps at least
LEAST_CONTENT = 0.85
#: where even the weakest cell reads less, the style hides content, and the gate would choose by nothing
_READABLE = 0.9
#: the share of copies that is not an accident
_MOST_COPIES = 0.05


@dataclass(frozen=True, order=True)
class Cell:
    """The adapter of a training step at a strength."""

    step: int
    strength: float

    def __str__(self) -> str:
        return f"step {self.step} at {self.strength:g}"


@dataclass(frozen=True)
class Grid:
    """Measured cells: their style scores, whether each picture's content is kept and whether it is a copy
    (cells, prompts), and whether the base model reads its own picture (prompts,)."""

    cells: Sequence[Cell]
    style: StyleScores
    kept: Tensor
    copied: Tensor
    base_kept: Tensor

    def content(self, index: int) -> float:
        """The share of content kept, of the base model's."""
        return float(self.kept[index].double().mean() / self.base_kept.double().mean().clamp(min=1e-9))

    def copies(self, index: int) -> Estimate:
        return share(int(self.copied[index].sum()), self.copied.shape[1])


@dataclass(frozen=True)
class Choice:
    """The chosen cell, the cells that cannot be told from the best one, and why this one, in sentences."""

    cell: Cell
    best: Cell
    tied: tuple[Cell, ...]
    reasons: tuple[str, ...]


def choose(grid: Grid, usual: Cell) -> Choice:
    """Choose among the cells of `grid`. `usual` is the cell that would be used unmeasured: the last step at 1."""
    reasons: list[str] = []
    passing = _passing(grid, reasons)
    scores = grid.style.scores
    best = max(passing, key=lambda i: float(scores[i]))
    tied = [i for i in passing if float(scores[best] - scores[i]) <= _standard_error(grid.style, best, i)]
    chosen = min(tied, key=lambda i: grid.cells[i])
    if len(tied) > 1:
        others = ", ".join(str(grid.cells[i]) for i in sorted(tied, key=lambda i: grid.cells[i]))
        reasons.append(
            f"{others} cannot be told apart by style; {grid.cells[chosen]} is kept because the earliest checkpoint and "
            "the lowest strength are safest for content"
        )
    else:
        reasons.append(f"{grid.cells[chosen]} has more of the style than the other cells")
    if usual in grid.cells and grid.cells[chosen] != usual:
        reasons.append(_against(grid, chosen, list(grid.cells).index(usual)))
    cells = tuple(grid.cells[i] for i in tied)
    return Choice(grid.cells[chosen], grid.cells[best], cells, tuple(reasons))


def _passing(grid: Grid, reasons: list[str]) -> list[int]:
    """The cells that keep the content and copy nothing; all of them, with the reason, where that cannot be asked."""
    everything = list(range(len(grid.cells)))
    contents = [grid.content(i) for i in everything]
    # The weakest cell changes least: where the base model cannot read even that, it is the style that it cannot read.
    weakest = min(everything, key=lambda i: (grid.cells[i].strength, grid.cells[i].step))
    if contents[weakest] < _READABLE and max(contents) < _READABLE:
        reasons.append(
            f"content was not asked: in this style the base model reads {contents[weakest]:.0%} even at "
            f"{grid.cells[weakest]}"
        )
        passing = everything
    else:
        passing = [i for i in everything if contents[i] >= LEAST_CONTENT]
        lost = len(everything) - len(passing)
        if lost and passing:
            reasons.append(f"{lost} of {len(everything)} cells lose content (below {LEAST_CONTENT:.0%} of the base's)")
    copying = [i for i in passing if grid.copies(i).low > _MOST_COPIES]
    if copying:
        reasons.append(f"{len(copying)} of {len(everything)} cells copy training pictures")
    if rest := [i for i in passing if i not in copying]:
        return rest
    reasons.append(
        "no cell keeps the content without copying, so the one that keeps the most is used: train fewer steps"
    )
    return [max(everything, key=lambda i: (contents[i], -grid.copies(i).value))]


def _against(grid: Grid, chosen: int, usual: int) -> str:
    gap = grid.style.difference(chosen, usual)
    content = grid.content(chosen) - grid.content(usual)
    what = f"{grid.cells[chosen]} and the last step at 1"
    if gap.low > 0:
        return f"{what}: {gap.value:.2f} more style ({gap.low:.2f} to {gap.high:.2f}), content {content:+.2f}"
    if gap.high < 0:
        return f"{what}: {-gap.value:.2f} less style ({-gap.high:.2f} to {-gap.low:.2f}), content {content:+.2f}"
    return f"{what} cannot be told apart by style; content {content:+.2f}"


def _standard_error(scores: StyleScores, first: int, second: int) -> float:
    """Of the paired difference of two cells."""
    gaps = scores.samples[:, first] - scores.samples[:, second]
    usable = gaps[gaps.isfinite()]
    return float(usable.std()) if len(usable) > 1 else 0.0


def shortlist(grid: Grid, count: int, usual: Cell) -> list[Cell]:
    """The `count` cells that may still win, and `usual`: by style among those that pass, then by style."""
    passing = set(_passing(grid, []))
    order = sorted(range(len(grid.cells)), key=lambda i: (i not in passing, -float(grid.style.scores[i])))
    chosen = [grid.cells[i] for i in order[:count]]
    return sorted({*chosen, usual} & set(grid.cells))


def stacked(rows: Sequence[Sequence[bool]]) -> Tensor:
    """Rows of verdicts as a tensor (cells, prompts)."""
    return torch.tensor([list(row) for row in rows], dtype=torch.bool)
