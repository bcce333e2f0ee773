"""Curves as small pictures of lines in HTML: they stretch to any width while their labels keep their size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...messages import escaped

_WIDTH, _HEIGHT = 1000, 300
STYLES = """<style>
.curves { margin: 0; }
.curves figcaption { display: flex; flex-wrap: wrap; gap: 0 1rem; align-items: baseline; margin-bottom: 0.4rem; }
.curves figcaption i { display: inline-block; width: 1.2em; height: 0; border-top: 3px solid; margin-right: 0.35em;
  vertical-align: middle; border-radius: 2px; }
.curves .plot { position: relative; height: 11rem; margin: 0 0.75rem 1.4rem 3.2rem; }
.curves svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: hidden; }
.curves svg * { vector-effect: non-scaling-stroke; fill: none; stroke-linejoin: round; }
.curves svg line { stroke: var(--border-color-primary); }
.curves .x, .curves .y { position: absolute; font-size: 0.75rem; opacity: 0.75; font-variant-numeric: tabular-nums; }
.curves .x { top: 100%; transform: translate(-50%, 0.2rem); }
.curves .y { right: 100%; transform: translate(-0.4rem, 50%); white-space: nowrap; }
</style>"""


@dataclass(frozen=True)
class Curve:
    """A named line through `points` (x, y), drawn in a CSS colour; `marked` if each point is worth a dot."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]
    opacity: float = 1.0
    width: float = 2.0
    marked: bool = False


def chart(title: str, curves: Sequence[Curve]) -> str:
    """The HTML of `curves` from zero up, the last on top; "" if there is nothing to draw."""
    everywhere = [point for curve in curves for point in curve.points]
    if not everywhere:
        return ""
    low, high = min(x for x, _ in everywhere), max(x for x, _ in everywhere)
    top = _top(curves)
    if low == high:
        low, high = low - 1, high + 1

    def place(x: float, y: float) -> tuple[float, float]:
        return (x - low) / (high - low) * _WIDTH, (1 - y / top) * _HEIGHT

    marks_y, marks_x = _marks(0, top, 4), [mark for mark in _marks(low, high, 6) if mark == int(mark)]
    grid = "".join(
        f'<line x1="0" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>' for _, y in (place(low, m) for m in marks_y)
    )
    lines = "".join(_line(curve, [place(*point) for point in curve.points]) for curve in curves)
    labels = [f'<span class="y" style="bottom:{100 * mark / top:.2f}%">{mark:.4g}</span>' for mark in marks_y]
    labels += [
        f'<span class="x" style="left:{100 * (mark - low) / (high - low):.2f}%">{mark:,.0f}</span>' for mark in marks_x
    ]
    legend = "".join(
        f'<span><i style="color:{c.colour};opacity:{c.opacity}"></i>{escaped(c.name)}</span>'
        for c in curves
        if c.points
    )
    last = "; ".join(f"{c.name} {c.points[-1][1]:.4g}" for c in curves if c.points)
    return (
        f'<figure class="curves" role="img" aria-label="{escaped(f"{title}, at step {high:,.0f}: {last}")}">'
        f"<figcaption><b>{escaped(title)}</b>{legend}</figcaption>"
        f'<div class="plot"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" aria-hidden="true">'
        f"{grid}{lines}</svg>{''.join(labels)}</div></figure>"
    )


def _line(curve: Curve, places: Sequence[tuple[float, float]]) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    style = f"stroke:{curve.colour};stroke-width:{curve.width}px;opacity:{curve.opacity}"
    line = f'<polyline points="{path}" style="{style}"/>'
    if not curve.marked and len(places) > 1:
        return line
    dots = "".join(f'<path d="M{x:.1f} {y:.1f}h0" style="stroke-linecap:round;{style}"/>' for x, y in places)
    return line + dots.replace(f"stroke-width:{curve.width}px", f"stroke-width:{curve.width * 3}px")


def _top(curves: Sequence[Curve]) -> float:
    """The upper end of the scale: all of each curve but rare peaks, which would press the rest flat."""
    tops = []
    for curve in curves:
        heights = sorted(y for _, y in curve.points)
        if heights:
            tops.append(heights[min(len(heights) - 1, math.ceil(0.98 * len(heights)))])
    top = max(tops) * 1.05
    return top if top > 1e-12 else 1.0


def _marks(low: float, high: float, count: int) -> list[float]:
    """Round numbers between `low` and `high`, about so many."""
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    stride = next(power * step for step in (1, 2, 5, 10) if power * step >= rough * 0.999)
    first = math.ceil(low / stride - 1e-9)
    return [number * stride for number in range(first, math.floor(high / stride + 1e-9) + 1)]
