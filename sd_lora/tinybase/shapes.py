"""What every drawing of the world is made of: filled outlines in unit coordinates (x right, y down), and colours."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

Point = tuple[float, float]
Points = tuple[Point, ...]
RGB = tuple[int, int, int]

#: Lamps and lit windows: dusk leaves them as they are.
LIT: RGB = (255, 226, 128)


@dataclass(frozen=True)
class Shape:
    """A filled outline. `fade` is the colour it has at its lower end, `opacity` how much it covers.

    `inside` is an outline it is clipped to; `contour` is how strongly line drawings outline it (0..1). `form`: a body
    with a shaded side (towards the lower right). `subject` is 1 or 2 for what belongs to a subject, otherwise 0.
    """

    points: Points
    colour: RGB
    fade: RGB | None = None
    opacity: float = 1.0
    inside: Points | None = None
    contour: float = 1.0
    form: bool = False
    subject: int = 0

    def moved(self, x: float, y: float, scale: float, subject: int) -> Shape:
        """This shape of a subject at its place in the picture."""
        place = [tuple((x + px * scale, y + py * scale) for px, py in outline) for outline in self._outlines()]
        return replace(self, points=place[0], inside=place[1] if self.inside else None, subject=subject)

    def turned(self, degrees: float, mirror: bool) -> Shape:
        """This shape turned about the origin, and before that mirrored if `mirror`."""
        sine, cosine, sign = math.sin(math.radians(degrees)), math.cos(math.radians(degrees)), -1 if mirror else 1
        place = [
            tuple((sign * x * cosine - y * sine, sign * x * sine + y * cosine) for x, y in outline)
            for outline in self._outlines()
        ]
        return replace(self, points=place[0], inside=place[1] if self.inside else None)

    def _outlines(self) -> list[Points]:
        return [self.points, self.inside] if self.inside else [self.points]


def form(points: Points, colour: RGB, fade: RGB | None = None) -> Shape:
    """A body: outlined and shaded."""
    return Shape(points, colour, fade, form=True)


def mark(points: Points, colour: RGB, inside: Points | None = None, opacity: float = 1.0) -> Shape:
    """A detail that has no outline of its own, clipped to `inside`."""
    return Shape(points, colour, None, opacity, inside, contour=0)


def detail(points: Points, colour: RGB, inside: Points) -> Shape:
    """A detail that line drawings outline too, clipped to `inside`."""
    return Shape(points, colour, inside=inside)


# ---- colours


def darker(colour: RGB, factor: float = 0.72) -> RGB:
    """`colour` in the shade: darker, a little towards blue, and warm colours towards red (yellow turns brown, not
    olive)."""
    red, green, blue = colour
    warm = factor**1.2 if red - blue > 60 else factor
    return (int(red * factor), int(green * warm), int(min(255, blue * factor + (1 - factor) * 26)))


def lighter(colour: RGB, amount: float = 0.45) -> RGB:
    return mixed(colour, (255, 255, 255), amount)


def mixed(one: RGB, other: RGB, amount: float) -> RGB:
    red, green, blue = (int(a + (b - a) * amount) for a, b in zip(one, other, strict=True))
    return (red, green, blue)


# ---- outlines


def ellipse(cx: float, cy: float, rx: float, ry: float, start: float = 0, stop: float = 360) -> Points:
    steps = 32
    angles = [math.radians(start + (stop - start) * i / steps) for i in range(steps + (stop - start < 360))]
    return tuple((cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles)


def lobed(cx: float, cy: float, rx: float, ry: float, lobes: int, turn: float = 0, stop: float = 360) -> Points:
    """An ellipse, from `turn` on for `stop` degrees, whose edge swells into round lobes with notches between them."""
    steps = 5 * lobes
    out = []
    for i in range(steps + (stop < 360)):
        angle, swell = math.radians(turn + stop * i / steps), math.sqrt(abs(math.sin(math.pi * i / 5)))
        reach = 0.82 + 0.18 * swell
        out.append((cx + rx * reach * math.cos(angle), cy + ry * reach * math.sin(angle)))
    return tuple(out)


def petal(cx: float, cy: float, length: float, width: float, degrees: float) -> Points:
    """An ellipse of half axes `length`, `width` whose long axis points to `degrees`."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return tuple((cx + x * cosine - y * sine, cy + x * sine + y * cosine) for x, y in ellipse(0, 0, length, width))


def ring(cx: float, cy: float, rx: float, ry: float, width: float, start: float, stop: float) -> Points:
    """A band of `width` along an arc, such as a handle."""
    return ellipse(cx, cy, rx, ry, start, stop) + ellipse(cx, cy, rx - width, ry - width, start, stop)[::-1]


def box(left: float, top: float, right: float, bottom: float) -> Points:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def rounded(left: float, top: float, right: float, bottom: float, radius: float) -> Points:
    """A box with round corners."""
    corners = ((right, bottom, 0), (left, bottom, 90), (left, top, 180), (right, top, 270))
    points: list[Point] = []
    for x, y, start in corners:
        cx = x - radius if x == right else x + radius
        cy = y - radius if y == bottom else y + radius
        points += [
            (cx + radius * math.cos(math.radians(a)), cy + radius * math.sin(math.radians(a)))
            for a in range(start, start + 91, 18)
        ]
    return tuple(points)


def smooth(*points: Point, steps: int = 6) -> Points:
    """The closed curve through `points`."""
    count, out = len(points), []
    for i in range(count):
        out += _spline(points[i - 1], points[i], points[(i + 1) % count], points[(i + 2) % count], steps)
    return tuple(out)


def curve(*points: Point, steps: int = 6) -> Points:
    """The open curve through `points`."""
    last, out = len(points) - 1, []
    for i in range(last):
        out += _spline(points[max(i - 1, 0)], points[i], points[i + 1], points[min(i + 2, last)], steps)
    return (*out, points[-1])


def brush(line: Iterable[Point], width: float, end: float | None = None) -> Points:
    """A stroke along `line`, `width` wide at its start and `end` (as wide) at its end."""
    line, end = tuple(line), width if end is None else end
    left, right = [], []
    for i, (x, y) in enumerate(line):
        (x0, y0), (x1, y1) = line[max(i - 1, 0)], line[min(i + 1, len(line) - 1)]
        length = math.hypot(x1 - x0, y1 - y0) or 1
        half = (width + (end - width) * i / (len(line) - 1)) / 2
        dx, dy = (y1 - y0) / length * half, (x0 - x1) / length * half
        left.append((x + dx, y + dy))
        right.append((x - dx, y - dy))
    return (*left, *reversed(right))


def skyline(height: float, swing: float, waves: float, phase: float) -> Points:
    """A gentle ridge across the picture and everything below it."""
    steps = 40
    ridge = [(i / steps, height + swing * math.sin(2 * math.pi * waves * i / steps + phase)) for i in range(steps + 1)]
    return (*ridge, (1.0, 1.0), (0.0, 1.0))


def _spline(before: Point, start: Point, stop: Point, after: Point, steps: int) -> list[Point]:
    """Catmull-Rom from `start` up to (without) `stop`."""
    out = []
    for i in range(steps):
        t = i / steps
        weights = (
            -0.5 * t + t * t - 0.5 * t**3,
            1 - 2.5 * t * t + 1.5 * t**3,
            0.5 * t + 2 * t * t - 1.5 * t**3,
            -0.5 * t * t + 0.5 * t**3,
        )
        x, y = (
            sum(w * v for w, v in zip(weights, vs, strict=True)) for vs in zip(before, start, stop, after, strict=True)
        )
        out.append((x, y))
    return out
