"""The picture of a run's losses: every step, the running mean, and the mean in each quarter of the noise schedule."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sd_lora.runs.logs import smoothed, smoothing
from sd_lora.runs.reports import LEVELS, StepReport, ValidationReport
from sd_lora.storage.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RAW, _SMOOTH = "#b8c4d6", "#20478f"
#: from little noise to much
_QUARTERS = ("#7fb069", "#e0b13c", "#d97a3a", "#9c2f4f")
_NAMES = ("least noise", "less", "more", "most noise")


def draw(reports: Sequence[StepReport], path: Path) -> None:
    """Write the picture to `path`; nothing if there are no steps yet. StorageError if it cannot be written."""
    if not reports:
        return
    width = smoothing(len(reports))
    figure, (total, quarters) = _two_charts(sharex=True, height_ratios=(3, 2))
    steps, losses = [r.step for r in reports], [r.loss for r in reports]
    total.plot(steps, losses, color=_RAW, linewidth=0.8, label="each step")
    total.plot(steps, smoothed(losses, width), color=_SMOOTH, linewidth=2, label=f"mean of {width} steps")
    total.set(ylabel="loss", title="Training loss", ylim=(0, None))
    for i, (colour, name) in enumerate(zip(_QUARTERS, _NAMES, strict=True)):
        points = [(r.step, v) for r in reports if len(r.by_noise) > i and (v := r.by_noise[i]) is not None]
        if points:
            x, y = zip(*points, strict=True)
            quarters.plot(x, smoothed(y, width), color=colour, linewidth=1.5, label=name)
    quarters.set(xlabel="step", ylabel="unweighted loss", title="By noise level", ylim=(0, None))
    _finish(figure, path)


def draw_validation(reports: Sequence[ValidationReport], path: Path) -> None:
    """The picture of the validation losses over the steps, and by noise level at the last. StorageError if it cannot be
    written."""
    last, (figure, (over, levels)) = reports[-1], _two_charts()
    for name, colour, values, by_level in (
        ("held out", "#9c2f4f", [r.held for r in reports], last.held_by_level),
        ("trained", "#20478f", [r.trained for r in reports], last.trained_by_level),
    ):
        over.plot([r.step for r in reports], values, color=colour, marker=".", label=name)
        levels.plot(range(1, LEVELS + 1), by_level, color=colour, marker=".", label=name)
    over.set(xlabel="step", ylabel="loss", title="Validation loss")
    levels.set(xlabel=f"noise level, from least (1) to most ({LEVELS})", ylabel="loss", ylim=(0, None))
    levels.set_title(f"By noise level, after step {last.step}")
    _finish(figure, path)


def _two_charts(**shape: Any) -> tuple[Figure, Any]:
    """A figure, and its two charts one above the other."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6.4), dpi=100, layout="constrained")
    return figure, figure.subplots(2, 1, **shape)


def _finish(figure: Figure, path: Path) -> None:
    """Write `figure` to `path`, with steps as whole numbers and a legend where lines have names."""
    from matplotlib.ticker import MaxNLocator

    for axes in figure.axes:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, ncols=4, fontsize="small")
    write_figure(figure, path)


def write_figure(figure: Figure, path: Path) -> None:
    """Write `figure` to `path` as PNG, completely or not at all. StorageError if it cannot be written."""
    content = BytesIO()
    figure.savefig(content, format="png")
    write_atomically(path, content.getvalue())
