"""The picture of a run's losses: every step, the running mean, and the mean in each quarter of the noise schedule."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

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
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not reports:
        return
    width = smoothing(len(reports))
    figure = Figure(figsize=(8, 6.4), dpi=100, layout="constrained")
    whole, parts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    steps, losses = [r.step for r in reports], [r.loss for r in reports]
    whole.plot(steps, losses, color=_RAW, linewidth=0.8, label="each step")
    whole.plot(steps, smoothed(losses, width), color=_SMOOTH, linewidth=2, label=f"mean of {width} steps")
    whole.set(ylabel="loss", title="Training loss", ylim=(0, None))
    for quarter, colour in enumerate(_QUARTERS):
        own = [(r.step, v) for r in reports if len(r.by_noise) > quarter and (v := r.by_noise[quarter]) is not None]
        if own:
            x, y = zip(*own, strict=True)
            parts.plot(x, smoothed(y, width), color=colour, linewidth=1.5, label=_NAMES[quarter])
    parts.set(xlabel="step", ylabel="unweighted loss", title="By noise level", ylim=(0, None))
    parts.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes in (whole, parts):
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, ncols=4, fontsize="small")
    write_figure(figure, path)


def draw_validation(reports: Sequence[ValidationReport], path: Path) -> None:
    """The picture of the validation losses over the steps, and by noise level at the last. StorageError if it cannot be
    written."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 6.4), dpi=100, layout="constrained")
    over, levels = figure.subplots(2, 1)
    for name, colour, values, by_level in (
        ("held out", "#9c2f4f", [r.held for r in reports], reports[-1].held_by_level),
        ("trained", "#20478f", [r.trained for r in reports], reports[-1].trained_by_level),
    ):
        over.plot([r.step for r in reports], values, color=colour, marker=".", label=name)
        levels.plot(range(1, LEVELS + 1), by_level, color=colour, marker=".", label=name)
    over.set(xlabel="step", ylabel="loss", title="Validation loss")
    levels.set(
        xlabel=f"noise level, from least (1) to most ({LEVELS})",
        ylabel="loss",
        title=f"By noise level, after step {reports[-1].step}",
        ylim=(0, None),
    )
    for axes in (over, levels):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    write_figure(figure, path)


def write_figure(figure: Figure, path: Path) -> None:
    """Write `figure` to `path` as PNG, whole or not at all. StorageError if it cannot be."""
    content = BytesIO()
    figure.savefig(content, format="png")
    write_atomically(path, content.getvalue())
