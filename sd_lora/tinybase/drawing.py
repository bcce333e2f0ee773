"""Shapes of the world: what each subject and background is made of, in unit coordinates (x right, y down, 0..1).

Second step of the renderer: `Scene` → `list[Shape]`, back to front. `styles` turns the shapes into pixels.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from sd_lora.tinybase.world import Scene

Point = tuple[float, float]
RGB = tuple[int, int, int]

PALETTE: dict[str, RGB] = {
    "red": (214, 44, 46), "orange": (243, 130, 28), "yellow": (250, 212, 48), "green": (52, 158, 74),
    "blue": (44, 98, 214), "purple": (132, 62, 176), "pink": (246, 140, 186), "white": (250, 250, 248),
}  # fmt: skip
_WOOD, _BLACK, _CREAM, _GLASS = (121, 82, 50), (40, 38, 44), (250, 238, 208), (176, 222, 244)


@dataclass(frozen=True)
class Shape:
    """A filled polygon. `subject`: it belongs to the subject, not the background; `contour`: outlined in drawings."""

    points: tuple[Point, ...]
    colour: RGB
    subject: bool = False
    contour: bool = True


def shapes_of(scene: Scene) -> list[Shape]:
    """All shapes of `scene`, back to front; deterministic in the scene and its seed."""
    rng = random.Random(f"place {scene.seed} {scene.subject}")
    backdrop = _BACKGROUNDS[scene.background](random.Random(f"back {scene.seed}"))
    half = {"small": 0.195, "": 0.275, "big": 0.365}[scene.size] * rng.uniform(0.95, 1.05)
    shift = {"": 0.5, "on the left": 0.30, "on the right": 0.70}[scene.side]
    if scene.size == "big":
        shift = 0.5 + (shift - 0.5) * 0.75
    centre_x = shift + rng.uniform(-0.03, 0.03)
    floats = scene.subject in ("balloon", "star", "rocket")
    centre_y = (0.46 if floats else 0.86 - half) + rng.uniform(-0.02, 0.02)
    local = _SUBJECTS[scene.subject](PALETTE[scene.colour])
    placed = [
        replace(s, points=tuple((centre_x + x * half, centre_y + y * half) for x, y in s.points), subject=True)
        for s in local
    ]
    return backdrop + placed


def darker(colour: RGB, factor: float = 0.72) -> RGB:
    return tuple(int(c * factor) for c in colour)  # type: ignore[return-value]


def lighter(colour: RGB, amount: float = 0.45) -> RGB:
    return tuple(int(c + (255 - c) * amount) for c in colour)  # type: ignore[return-value]


# ---- primitives


def _ellipse(cx: float, cy: float, rx: float, ry: float, start: float = 0, stop: float = 360) -> tuple[Point, ...]:
    steps = 36
    angles = [math.radians(start + (stop - start) * i / steps) for i in range(steps + 1)]
    return tuple((cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles)


def _box(left: float, top: float, right: float, bottom: float) -> tuple[Point, ...]:
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def _bar(start: Point, stop: Point, width: float) -> tuple[Point, ...]:
    (x0, y0), (x1, y1) = start, stop
    length = math.hypot(x1 - x0, y1 - y0)
    dx, dy = (y1 - y0) / length * width / 2, (x0 - x1) / length * width / 2
    return ((x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy), (x0 - dx, y0 - dy))


def _skyline(height: float, swing: float, waves: float, phase: float) -> tuple[Point, ...]:
    steps = 48
    ridge = [(i / steps, height + swing * math.sin(2 * math.pi * waves * i / steps + phase)) for i in range(steps + 1)]
    return (*ridge, (1.0, 1.0), (0.0, 1.0))


# ---- subjects: drawn in a box of -1..1 on both axes, standing on y = 1


def _flower(c: RGB) -> list[Shape]:
    petals = [
        Shape(_ellipse(0.46 * math.cos(a), -0.36 + 0.46 * math.sin(a), 0.30, 0.30), c)
        for a in (2 * math.pi * i / 6 + 0.5 for i in range(6))
    ]
    heart = (126, 78, 40) if c in (PALETTE["yellow"], PALETTE["orange"]) else (252, 206, 60)
    return [
        Shape(_box(-0.07, -0.1, 0.07, 1.0), (58, 128, 58)),
        Shape(((0.0, 0.86), (0.52, 0.36), (0.50, 0.72)), (74, 152, 70)),
        Shape(((0.0, 0.92), (-0.52, 0.46), (-0.48, 0.80)), (74, 152, 70)),
        *petals,
        Shape(_ellipse(0.0, -0.36, 0.27, 0.27), heart),
    ]


def _mushroom(c: RGB) -> list[Shape]:
    spots = [(-0.48, -0.22, 0.15), (0.04, -0.50, 0.18), (0.52, -0.18, 0.14)]
    dot = lighter(c, 0.80) if c != PALETTE["white"] else (206, 190, 176)
    return [
        Shape(((-0.24, 0.0), (0.24, 0.0), (0.36, 1.0), (-0.36, 1.0)), _CREAM),
        Shape((*_ellipse(0.0, 0.06, 0.98, 0.94, 180, 360), (0.6, 0.20), (-0.6, 0.20)), c),
        *[Shape(_ellipse(x, y, r, r * 0.9), dot, contour=False) for x, y, r in spots],
    ]


def _star(c: RGB) -> list[Shape]:
    def ring(outer: float, inner: float) -> tuple[Point, ...]:
        angles = [math.pi * i / 5 - math.pi / 2 for i in range(10)]
        radii = (outer if i % 2 == 0 else inner for i in range(10))
        return tuple((r * math.cos(a), 0.06 + r * math.sin(a)) for a, r in zip(angles, radii, strict=True))

    return [Shape(ring(1.04, 0.46), c), Shape(ring(0.52, 0.24), lighter(c), contour=False)]


_SUBJECTS: dict[str, Callable[[RGB], list[Shape]]] = {
    "house": lambda c: [
        Shape(_box(0.30, -0.95, 0.52, -0.35), darker(c, 0.55)),
        Shape(_box(-0.72, -0.18, 0.72, 1.0), c),
        Shape(((-0.98, -0.14), (0.0, -1.0), (0.98, -0.14)), darker(c)),
        Shape(_box(-0.16, 0.36, 0.20, 1.0), _WOOD),
        Shape(_box(-0.56, 0.08, -0.26, 0.40), (255, 240, 150)),
        Shape(_box(0.32, 0.08, 0.60, 0.40), (255, 240, 150)),
    ],
    "tree": lambda c: [
        Shape(((-0.14, 0.1), (0.14, 0.1), (0.22, 1.0), (-0.22, 1.0)), _WOOD),
        Shape(_ellipse(-0.44, 0.02, 0.46, 0.40), darker(c, 0.85)),
        Shape(_ellipse(0.44, 0.02, 0.46, 0.40), darker(c, 0.85)),
        Shape(_ellipse(0.0, -0.40, 0.62, 0.60), c),
        Shape(_ellipse(-0.20, -0.56, 0.20, 0.18), lighter(c), contour=False),
    ],
    "boat": lambda c: [
        Shape(_box(-0.06, -0.98, 0.06, 0.45), _WOOD),
        Shape(((0.12, -0.92), (0.12, 0.28), (0.86, 0.28)), lighter(c, 0.62)),
        Shape(((-0.12, -0.66), (-0.12, 0.28), (-0.68, 0.28)), lighter(c, 0.40)),
        Shape(((-1.0, 0.42), (1.0, 0.42), (0.64, 1.0), (-0.64, 1.0)), c),
        Shape(((-1.0, 0.42), (1.0, 0.42), (0.92, 0.56), (-0.92, 0.56)), darker(c), contour=False),
    ],
    "fish": lambda c: [
        Shape(((0.38, 0.25), (1.0, -0.32), (0.86, 0.25), (1.0, 0.82)), darker(c)),
        Shape(((-0.25, -0.22), (0.30, -0.62), (0.34, -0.02)), darker(c)),
        Shape(((-0.10, 0.66), (0.24, 1.0), (0.28, 0.56)), darker(c)),
        Shape(_ellipse(-0.20, 0.25, 0.78, 0.54), c),
        Shape(_ellipse(-0.16, 0.44, 0.56, 0.24), lighter(c), contour=False),
        Shape(_ellipse(-0.56, 0.10, 0.17, 0.17), (255, 255, 255)),
        Shape(_ellipse(-0.60, 0.10, 0.08, 0.09), _BLACK, contour=False),
    ],
    "cat": lambda c: [
        Shape(_ellipse(0.62, 0.62, 0.36, 0.40, -60, 120) + _ellipse(0.56, 0.62, 0.20, 0.24, -60, 120)[::-1], darker(c)),
        Shape(_ellipse(0.0, 0.58, 0.56, 0.44), c),
        Shape(_ellipse(0.0, 0.68, 0.28, 0.30), lighter(c), contour=False),
        Shape(((-0.62, -0.30), (-0.60, -1.0), (-0.12, -0.66)), darker(c)),
        Shape(((0.62, -0.30), (0.60, -1.0), (0.12, -0.66)), darker(c)),
        Shape(_ellipse(0.0, -0.26, 0.64, 0.52), c),
        Shape(_ellipse(-0.26, -0.32, 0.11, 0.15), _BLACK, contour=False),
        Shape(_ellipse(0.26, -0.32, 0.11, 0.15), _BLACK, contour=False),
        Shape(((-0.10, -0.10), (0.10, -0.10), (0.0, 0.03)), (240, 120, 130), contour=False),
    ],
    "flower": _flower,
    "mushroom": _mushroom,
    "car": lambda c: [
        Shape(((-0.58, 0.22), (-0.40, -0.30), (0.32, -0.30), (0.60, 0.22)), darker(c, 0.85)),
        Shape(((-0.44, 0.18), (-0.32, -0.18), (-0.04, -0.18), (-0.04, 0.18)), _GLASS),
        Shape(((0.06, 0.18), (0.06, -0.18), (0.26, -0.18), (0.44, 0.18)), _GLASS),
        Shape(((-1.0, 0.36), (-0.88, 0.20), (0.78, 0.20), (1.0, 0.40), (1.0, 0.76), (-1.0, 0.76)), c),
        Shape(_ellipse(-0.54, 0.76, 0.25, 0.24), _BLACK),
        Shape(_ellipse(0.54, 0.76, 0.25, 0.24), _BLACK),
        Shape(_ellipse(-0.54, 0.76, 0.10, 0.10), (200, 200, 205), contour=False),
        Shape(_ellipse(0.54, 0.76, 0.10, 0.10), (200, 200, 205), contour=False),
    ],
    "star": _star,
    "cup": lambda c: [
        Shape(_ellipse(0.58, 0.30, 0.40, 0.40, -90, 90) + _ellipse(0.58, 0.30, 0.21, 0.21, -90, 90)[::-1], darker(c)),
        Shape(((-0.72, -0.30), (0.66, -0.30), (0.50, 1.0), (-0.56, 1.0)), c),
        Shape(_ellipse(-0.03, -0.30, 0.69, 0.20), lighter(c)),
        Shape(_ellipse(-0.03, -0.27, 0.54, 0.12), (104, 66, 42), contour=False),
        Shape(_bar((-0.24, -0.56), (-0.16, -0.96), 0.10), (225, 225, 230), contour=False),
        Shape(_bar((0.14, -0.56), (0.22, -0.96), 0.10), (225, 225, 230), contour=False),
    ],
    "rocket": lambda c: [
        Shape(((-0.24, 0.56), (0.24, 0.56), (0.0, 1.08)), (255, 160, 40)),
        Shape(((-0.30, 0.10), (-0.74, 0.76), (-0.24, 0.62)), darker(c)),
        Shape(((0.30, 0.10), (0.74, 0.76), (0.24, 0.62)), darker(c)),
        Shape((*_ellipse(0.0, -0.14, 0.38, 0.90, 180, 360), (0.30, 0.64), (-0.30, 0.64)), c),
        Shape(((-0.27, -0.62), (0.0, -1.06), (0.27, -0.62)), darker(c, 0.6)),
        Shape(_ellipse(0.0, -0.14, 0.19, 0.19), _GLASS),
    ],
    "balloon": lambda c: [
        Shape(_bar((0.0, 0.46), (0.05, 1.18), 0.07), (92, 84, 84)),
        Shape(((0.0, 0.30), (0.16, 0.54), (-0.16, 0.54)), darker(c)),
        Shape(_ellipse(0.0, -0.28, 0.62, 0.72), c),
        Shape(_ellipse(-0.24, -0.56, 0.14, 0.20), lighter(c, 0.7), contour=False),
    ],
}


# ---- backgrounds


def _plain(rng: random.Random) -> list[Shape]:
    tint = rng.choice(((243, 233, 214), (236, 232, 226), (230, 236, 238)))
    return [
        Shape(_box(0, 0, 1, 1), tint, contour=False),
        Shape(_box(0, 0.80, 1, 1), darker(tint, 0.90), contour=False),
    ]


def _hills(rng: random.Random) -> list[Shape]:
    phase = rng.uniform(0, 6)
    return [
        Shape(_box(0, 0, 1, 1), (170, 214, 242), contour=False),
        Shape(_ellipse(rng.uniform(0.1, 0.3), 0.15, 0.09, 0.05), (244, 250, 255)),
        Shape(_ellipse(rng.uniform(0.65, 0.9), 0.21, 0.11, 0.05), (244, 250, 255)),
        Shape(_skyline(0.56, 0.08, 1.0, phase), (134, 192, 104)),
        Shape(_skyline(0.74, 0.06, 1.3, phase + 2.2), (96, 164, 78)),
    ]


def _sea(rng: random.Random) -> list[Shape]:
    shapes = [
        Shape(_box(0, 0, 1, 1), (208, 232, 244), contour=False),
        Shape(_box(0, 0.46, 1, 1), (62, 138, 186)),
    ]
    for row in range(4):
        y = 0.56 + 0.115 * row
        for column in range(3):
            x = (column / 3 + row * 0.17 + rng.uniform(0, 0.06)) % 1.0 - 0.05
            wave = tuple((x + 0.17 * i / 8, y - 0.028 * math.sin(math.pi * i / 8)) for i in range(9))
            crest = wave + tuple((px, py + 0.026) for px, py in reversed(wave))
            shapes.append(Shape(crest, (168, 212, 232)))
    return shapes


def _night(rng: random.Random) -> list[Shape]:
    shapes = [Shape(_box(0, 0, 1, 1), (26, 30, 68), contour=False)]
    x, y = rng.choice((0.14, 0.86)), 0.15
    crescent = _ellipse(x, y, 0.10, 0.10, 60, 300) + _ellipse(x + 0.05, y, 0.10, 0.10, 120, 240)[::-1]
    shapes.append(Shape(crescent, (250, 240, 190)))
    for i in range(11):
        sx, sy = (i + rng.uniform(0.2, 0.8)) / 11, rng.uniform(0.05, 0.58)
        radius = rng.uniform(0.011, 0.017)
        shapes.append(Shape(_ellipse(sx, sy, radius, radius), (250, 246, 214)))
    shapes.append(Shape(_skyline(0.83, 0.02, 0.8, rng.uniform(0, 6)), (48, 52, 88)))
    return shapes


def _desert(rng: random.Random) -> list[Shape]:
    phase = rng.uniform(0, 6)
    x = rng.choice((0.10, 0.90))
    cactus = (104, 142, 84)
    return [
        Shape(_box(0, 0, 1, 1), (252, 226, 176), contour=False),
        Shape(_ellipse(1 - x, 0.16, 0.085, 0.085), (255, 246, 206)),
        Shape(_skyline(0.62, 0.06, 0.8, phase), (228, 178, 106)),
        Shape(_box(x - 0.028, 0.40, x + 0.028, 0.74), cactus),
        Shape(_box(x - 0.085, 0.48, x - 0.05, 0.60), cactus),
        Shape(_box(x - 0.085, 0.57, x, 0.61), cactus, contour=False),
        Shape(_box(x + 0.05, 0.44, x + 0.085, 0.56), cactus),
        Shape(_box(x, 0.53, x + 0.085, 0.57), cactus, contour=False),
        Shape(_skyline(0.78, 0.05, 1.1, phase + 2.0), (212, 154, 84)),
    ]


def _snow(rng: random.Random) -> list[Shape]:
    shapes = [Shape(_box(0, 0, 1, 1), (158, 178, 204), contour=False)]
    for x in (rng.uniform(0.06, 0.14), rng.uniform(0.86, 0.94)):
        for step, width in ((0.0, 0.05), (0.09, 0.075), (0.18, 0.10)):
            top = 0.40 + step
            shapes.append(Shape(((x, top), (x + width, top + 0.13), (x - width, top + 0.13)), (70, 104, 96)))
    shapes.append(Shape(_skyline(0.70, 0.035, 0.9, rng.uniform(0, 6)), (234, 240, 248)))
    for i in range(12):
        sx, sy = (i + rng.uniform(0.2, 0.8)) / 12, rng.uniform(0.04, 0.60)
        shapes.append(Shape(_ellipse(sx, sy, 0.016, 0.016), (252, 253, 255)))
    return shapes


_BACKGROUNDS: dict[str, Callable[[random.Random], list[Shape]]] = {
    "on a plain background": _plain, "on green hills": _hills, "on the sea": _sea, "at night": _night,
    "in the desert": _desert, "in the snow": _snow,
}  # fmt: skip
