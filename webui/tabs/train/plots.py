"""Line charts as HTML: they stretch to any width while their labels keep their size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...messages import escaped

_WIDTH, _HEIGHT = 1000, 300


@dataclass(frozen=True)
class Curve:
    """A named line through `points` (x, y), drawn in a CSS colour; `marked`: each point gets a dot."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]
    opacity: float = 1.0
    width: float = 2.0
    marked: bool = False


def chart(title: str, curves: Sequence[Curve]) -> str:
    """`curves` as HTML, from zero up, the last one on top; "" if there is nothing to draw."""
    all_x = [x for curve in curves for x, _ in curve.points]
    if not all_x:
        return ""
    low, high = min(all_x), max(all_x)
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
    """The upper end of the scale: all of each curve except rare peaks, which would flatten the rest."""
    tops = []
    for curve in curves:
        heights = sorted(y for _, y in curve.points)
        if heights:
            tops.append(heights[min(len(heights) - 1, math.ceil(0.98 * len(heights)))])
    top = max(tops) * 1.05
    return top if top > 1e-12 else 1.0


def _marks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers between `low` and `high`."""
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    stride = next(power * step for step in (1, 2, 5, 10) if power * step >= rough * 0.999)
    first = math.ceil(low / stride - 1e-9)
    return [number * stride for number in range(first, math.floor(high / stride + 1e-9) + 1)]
