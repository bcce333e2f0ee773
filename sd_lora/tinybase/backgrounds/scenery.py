"""What several places share: the backdrop they fill, sky and clouds, trees, tufts and waves."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from sd_lora.tinybase.shapes import (
    RGB,
    Shape,
    box,
    curve,
    ellipse,
    lighter,
    lobed,
    mark,
)

_CLOUD = (250, 252, 255)


@dataclass
class Backdrop:
    """Shapes back to front: `sky` and `land` behind the subjects, `front` before their feet.

    `ground` is the colour of the shadows that subjects throw.
    """

    sky: list[Shape]
    land: list[Shape]
    front: list[Shape] = field(default_factory=list)
    ground: RGB = (60, 60, 80)


def sky(top: RGB, low: RGB, horizon: float = 0.66) -> Shape:
    return Shape(box(0, 0, 1, horizon), top, low, contour=0)


def clouds(rng: Random) -> list[Shape]:
    shapes = _cloud(rng, rng.uniform(0.08, 0.30), rng.uniform(0.14, 0.20), rng.uniform(0.09, 0.14))
    return shapes + _cloud(rng, rng.uniform(0.66, 0.92), rng.uniform(0.20, 0.30), rng.uniform(0.08, 0.13))


def _cloud(rng: Random, x: float, y: float, wide: float) -> list[Shape]:
    outline = lobed(x, y, wide, wide * rng.uniform(0.50, 0.66), rng.choice((4, 5)), 180, 180)
    return [Shape(outline, _CLOUD), mark(ellipse(x, y, wide, 0.16 * wide), (214, 228, 242), outline)]


def tuft(x: float, y: float, size: float, colour: RGB) -> list[Shape]:
    blades = ((-0.6, -0.7), (-0.15, -1.0), (0.3, -0.85), (0.8, -0.55))
    return [mark(((x - 0.25 * size + bx * 0.3 * size, y), (x + bx * size, y + by * size),
                  (x + 0.2 * size + bx * 0.3 * size, y)), colour) for bx, by in blades]  # fmt: skip


def scattered(rng: Random, count: int, top: float, bottom: float) -> list[tuple[float, float, float]]:
    """Places (x, y, nearness 0..1) over a strip of the ground, far ones first."""
    places = [((i + rng.uniform(0.1, 0.9)) / count, rng.uniform(top, bottom)) for i in range(count)]
    return [(x, y, (y - top) / (bottom - top)) for x, y in sorted(places, key=lambda place: place[1])]


def far_tree(x: float, y: float, size: float, colour: RGB) -> list[Shape]:
    return [
        mark(box(x - 0.05 * size, y - 0.3 * size, x + 0.05 * size, y), (112, 88, 66)),
        Shape(ellipse(x, y - 0.62 * size, 0.34 * size, 0.42 * size), colour),
        mark(ellipse(x - 0.08 * size, y - 0.74 * size, 0.16 * size, 0.18 * size), lighter(colour, 0.22)),
    ]


def fir(x: float, y: float, size: float, colour: RGB, snowy: bool = False) -> list[Shape]:
    shapes = [mark(box(x - 0.05 * size, y - 0.15 * size, x + 0.05 * size, y), (98, 74, 58))]
    for low, top, wide in ((0.12, 0.62, 0.36), (0.42, 0.86, 0.27), (0.68, 1.08, 0.18)):
        tip = (x, y - top * size)
        branch = (
            tip,
            (x + wide * size, y - low * size),
            (x, y - (low + 0.05) * size),
            (x - wide * size, y - low * size),
        )
        shapes.append(Shape(branch, colour))
        if snowy:
            cap = (
                tip,
                (x + wide * 0.5 * size, y - (low + top) / 2 * size),
                (x - 0.04 * size, y - (low * 0.9 + top * 0.3) * size),
            )
            shapes.append(mark(cap, (238, 244, 250), branch))
    return shapes


def wave(x: float, y: float, wide: float, colour: RGB) -> Shape:
    crest = curve(
        (x - wide / 2, y),
        (x - wide * 0.1, y - wide * 0.14),
        (x + wide * 0.2, y - wide * 0.06),
        (x + wide / 2, y + 0.004),
    )
    return Shape((*crest, (x, y + wide * 0.02)), colour)
