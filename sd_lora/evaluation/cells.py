"""Measures checkpoints × strengths within a budget of time: all that it allows on few prompts, the best on more."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from sd_lora.adapters.adapter import Adapter
from sd_lora.evaluation import pixels
from sd_lora.evaluation.calibration import Calibration
from sd_lora.evaluation.drawing import Illustrator
from sd_lora.evaluation.energy import style_scores
from sd_lora.evaluation.evaluator import Evaluator, Materials, Progress, no_progress
from sd_lora.evaluation.selection import Cell, Choice, Grid, choose, shortlist, stacked

#: prompts on which every cell is measured, and on which the best are at least and at most
_FIRST, _LEAST, _MOST = 8, 16, 32
_FINALISTS = 3
#: cells that are measured besides the usual one, whatever the budget
_FEWEST = 2


@dataclass(frozen=True)
class Selection:
    """A choice, the grid of all cells on few prompts and that of the finalists on more, and the seconds it took.

    `pictures` are those of each cell, of the `prompts` in order (the finalists have more), and `base` the base model's.
    """

    choice: Choice
    grid: Grid
    finals: Grid
    seconds: float
    prompts: Sequence[str]
    pictures: Mapping[Cell, Sequence[Image.Image]]
    base: Sequence[Image.Image]


def select_cell(
    illustrator: Illustrator,
    materials: Materials,
    calibration: Calibration,
    cells: Sequence[Cell],
    load: Callable[[Cell], Adapter],
    *,
    budget: float,
    progress: Progress = no_progress,
) -> Selection:
    """Choose among `cells` within about `budget` seconds. The first is the one that would be used unmeasured, and the
    others come in the order in which they are worth measuring.

    `materials` has `_MOST` prompts or fewer; `load` gives the adapter of a cell.
    """
    started, usual = time.monotonic(), cells[0]
    first = Evaluator(illustrator, replace(materials, prompts=materials.prompts[:_FIRST]), calibration, progress)
    grid, each = _measured(first, cells[:1], load), 0.0
    opened = time.monotonic() - started  # the base model's pictures and the first cell's
    each = opened / 2
    affordable = max(_FEWEST, int((0.6 * budget - opened) / max(each, 1e-9)))
    grid = _measured(first, cells[: 1 + affordable], load)
    finalists = shortlist(grid, _FINALISTS, usual)
    remaining = budget - (time.monotonic() - started)
    price = each / _FIRST * (len(finalists) + 1)  # of another prompt, the base model's picture included
    more = min(len(materials.prompts), max(_LEAST, int(_FIRST + remaining / max(price, 1e-9))))
    final = Evaluator(illustrator, replace(materials, prompts=materials.prompts[:more]), calibration, progress)
    finals = _measured(final, finalists, load)
    measured = {**dict.fromkeys(grid.cells, first), **dict.fromkeys(finals.cells, final)}
    pictures = {cell: each.row(str(cell), load(cell), cell.strength).images for cell, each in measured.items()}
    seconds, base = time.monotonic() - started, final.base(load(usual).trigger).images
    return Selection(choose(finals, usual), grid, finals, seconds, final.materials.prompts, pictures, base)


def worth_measuring(steps: Sequence[int], strengths: Sequence[float]) -> list[Cell]:
    """All cells, the last step at 1 first, then those that are likely to be better: near strength 1, and late."""
    latest = max(steps)
    order = [Cell(step, strength) for step in steps for strength in strengths]
    return sorted(order, key=lambda cell: (abs(cell.strength - 1) + (latest - cell.step) / latest, -cell.step))


def _measured(evaluator: Evaluator, cells: Sequence[Cell], load: Callable[[Cell], Adapter]) -> Grid:
    """The grid of `cells` on the evaluator's prompts. What was measured before is not measured again."""
    adapters = [load(cell) for cell in cells]
    rows = [evaluator.row(str(c), a, c.strength) for c, a in zip(cells, adapters, strict=True)]
    base = evaluator.base(adapters[0].trigger)
    style = style_scores(base.features, [row.features for row in rows], evaluator.references)
    threshold = pixels.copy_threshold(evaluator.originals)
    copied = [pixels.nearest_reference(pixels.coarse(row.images), evaluator.originals)[0] > threshold for row in rows]
    return Grid(
        list(cells),
        style,
        stacked([row.kept for row in rows]),
        stacked([c.tolist() for c in copied]),
        stacked([base.kept])[0],
    )
