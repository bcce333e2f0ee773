"""The report of a chosen run, one page of HTML that needs nothing else: which file and strength, how sure, and why."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from sd_lora.evaluation import pixels
from sd_lora.evaluation.cells import Selection
from sd_lora.evaluation.selection import LEAST_CONTENT, Cell, Grid
from sd_lora.storage.atomic import write_atomically

#: pictures of the chosen cell that are shown beside the nearest training picture; pictures per cell of the sheet
_SAMPLES, _PER_CELL = 8, 2
#: pictures are shown at this side at least
_SMALLEST = 128


@dataclass(frozen=True)
class Shown:
    """A measured cell as the page shows it."""

    cell: Cell
    style: str
    low: float
    high: float
    value: float
    content: float
    copies: float
    n: int
    pictures: tuple[str, ...]
    is_chosen: bool


@dataclass(frozen=True)
class Sample:
    """A picture of the chosen cell, the base model's of the same prompt, and the training picture most alike."""

    prompt: str
    base: str
    picture: str
    nearest: str
    likeness: float
    is_copy: bool


def write_report(
    path: Path,
    selection: Selection,
    trained: Sequence[Image.Image],
    facts: Mapping[str, Any],
    charts: Sequence[Path] = (),
) -> None:
    """Write the page to `path`. `trained` are the training pictures, `facts` what is shown of the run by their labels,
    and `charts` pictures of its losses. It asks for nothing from elsewhere and runs no script."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sd_lora.evaluation", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    cells = _cells(selection)
    page = environment.get_template("report.html.jinja").render(
        facts=facts,
        choice=selection.choice,
        verdicts=verdicts(selection),
        rows=_by_step(cells),
        strengths=sorted({each.cell.strength for each in cells}),
        points=_points(cells),
        least_content=LEAST_CONTENT,
        samples=_samples(selection, trained),
        charts=[_embedded(chart.read_bytes()) for chart in charts if chart.is_file()],
        seconds=round(selection.seconds),
    )
    write_atomically(path, page.encode("utf-8", "replace"))


def verdicts(selection: Selection) -> list[str]:
    """What a user should know, in plain words: how sure the choice is, and what to beware of."""
    choice, grid = selection.choice, selection.grid
    words = list(choice.reasons)
    lost = [cell.strength / choice.cell.strength for i, cell in enumerate(grid.cells)
            if cell.step == choice.cell.step and grid.content(i) < LEAST_CONTENT]  # fmt: skip
    good = [cell.strength / choice.cell.strength for i, cell in enumerate(grid.cells)
            if cell.step == choice.cell.step and grid.content(i) >= LEAST_CONTENT]  # fmt: skip
    if good:
        words.append(f"measured strengths of the chosen file that keep content: {min(good):.2g} to {max(good):.2g}")
    if lost:
        words.append(f"from {min(lost):.2g} on, subjects get lost")
    finals = selection.finals
    chosen = list(finals.cells).index(choice.cell)
    copies = finals.copies(chosen)
    if copies.value:
        words.append(
            f"{copies.value:.0%} of the pictures ({copies.low:.0%} to {copies.high:.0%}, n = {copies.n}) are as alike "
            "to a training picture as copies"
        )
    return words


def _cells(selection: Selection) -> list[Shown]:
    """The cells with the figures of the larger of their grids."""
    places: dict[Cell, tuple[Grid, int]] = {}
    for grid in (selection.grid, selection.finals):
        places |= {cell: (grid, i) for i, cell in enumerate(grid.cells)}
    return [_shown(cell, grid, i, selection) for cell, (grid, i) in places.items()]


def _shown(cell: Cell, grid: Grid, index: int, selection: Selection) -> Shown:
    style, few = grid.style.of(index), selection.pictures[cell][:_PER_CELL]
    pictures = tuple(_png(image) for image in few)
    figures = grid.content(index), grid.copies(index).value, grid.style.n
    is_chosen = cell == selection.choice.cell
    return Shown(cell, f"{style.value:.2f}", style.low, style.high, style.value, *figures, pictures, is_chosen)


def _by_step(cells: Sequence[Shown]) -> list[tuple[int, dict[float, Shown]]]:
    steps = sorted({each.cell.step for each in cells})
    return [(step, {each.cell.strength: each for each in cells if each.cell.step == step}) for step in steps]


def _points(cells: Sequence[Shown]) -> list[dict[str, Any]]:
    """Style over content, for a chart of 100 by 100: content 0 to 1.1 across, style -0.2 to 1.2 upwards."""
    up = lambda style: round(100 - (min(max(style, -0.2), 1.2) + 0.2) / 1.4 * 100, 2)  # noqa: E731
    return [
        {
            "x": round(min(each.content, 1.1) / 1.1 * 100, 2), "y": up(each.value), "low": up(each.low),
            "high": up(each.high), "chosen": each.is_chosen, "label": str(each.cell),
        }
        for each in cells
    ]  # fmt: skip


def _samples(selection: Selection, trained: Sequence[Image.Image]) -> list[Sample]:
    pictures = selection.pictures[selection.choice.cell][:_SAMPLES]
    if not trained:
        return []
    originals = pixels.coarse(trained)
    likeness, which = pixels.nearest_reference(pixels.coarse(pictures), originals)
    threshold = pixels.copy_threshold(originals)
    return [
        Sample(prompt, _png(base), _png(picture), _png(trained[int(i)]), float(alike), float(alike) > threshold)
        for prompt, base, picture, alike, i in zip(
            selection.prompts, selection.base, pictures, likeness, which, strict=False
        )
    ]


def _png(image: Image.Image) -> str:
    """As a data address; small pictures are enlarged, so that a browser does not blur them."""
    scale = max(1, _SMALLEST // image.width)
    image = image.convert("RGB")
    image.thumbnail((512, 512))
    buffer = io.BytesIO()
    image.resize((image.width * scale, image.height * scale), Image.Resampling.LANCZOS).save(
        buffer, "png", optimize=True
    )
    return _embedded(buffer.getvalue())


def _embedded(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
