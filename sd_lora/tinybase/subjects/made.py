"""Buildings, vehicles and things, in a box of -1..1 on both axes, standing on y = 1."""

from __future__ import annotations

import math
from random import Random

from sd_lora.tinybase.shapes import (
    LIT,
    RGB,
    Points,
    Shape,
    box,
    brush,
    curve,
    darker,
    detail,
    ellipse,
    form,
    lighter,
    mark,
    ring,
    rounded,
    smooth,
)  # fmt: skip

_WOOD, _BLACK, _GLASS = (128, 86, 54), (46, 42, 52), (168, 216, 240)
_BRICK, _STONE, _STEEL = (166, 104, 84), (150, 146, 150), (206, 208, 216)


def trim(c: RGB) -> RGB:
    """White beside a colour, grey beside white."""
    return (252, 248, 240) if min(c) < 200 else (168, 178, 196)


def window(x: float, y: float, wide: float, tall: float, pane: RGB = LIT) -> list[Shape]:
    """A window about (x, y) with a frame and glazing bars."""
    frame = (250, 244, 232)
    return [
        Shape(box(x - wide, y - tall, x + wide, y + tall), frame),
        mark(box(x - wide * 0.74, y - tall * 0.78, x + wide * 0.74, y + tall * 0.78), pane),
        mark(box(x - wide * 0.10, y - tall, x + wide * 0.10, y + tall), frame),
        mark(box(x - wide, y - tall * 0.10, x + wide, y + tall * 0.10), frame),
    ]


def arch(x: float, half: float, top: float, bottom: float) -> Points:
    """A doorway about `x` whose head is round."""
    return (*ellipse(x, top + half, half, half, 180, 360), (x + half, bottom), (x - half, bottom))


def house(c: RGB, rng: Random) -> list[Shape]:
    """Gable to the front, the long side to the right."""
    ridge, corner = rng.uniform(-0.36, -0.26), rng.uniform(0.20, 0.32)
    eaves, top = rng.uniform(-0.12, 0.0), rng.uniform(-0.80, -0.72)
    roof, side = darker(c, 0.56), darker(c, 0.88)
    slab = ((ridge, top - 0.14), (0.62, top - 0.14), (0.99, eaves + 0.08), (corner + 0.06, eaves + 0.08))
    rows = [
        detail(brush(((ridge, top - 0.14 + (eaves - top + 0.22) * t), (1.0, top - 0.14 + (eaves - top + 0.22) * t)),
                   0.035), darker(c, 0.40), slab)
        for t in (0.28, 0.52, 0.76)
    ]  # fmt: skip
    door = rng.uniform(-0.46, -0.34)
    chimney = rng.uniform(0.30, 0.46)
    return [
        form(box(chimney - 0.10, -1.0, chimney + 0.10, -0.5), _BRICK),
        form(box(chimney - 0.13, -1.0, chimney + 0.13, -0.92), darker(_BRICK)),
        form(((corner, eaves), (0.90, eaves), (0.90, 0.97), (corner, 1.0)), side),
        form(((-0.86, 1.0), (-0.86, eaves), (ridge, top), (corner, eaves), (corner, 1.0)), c),
        form(slab, roof),
        *rows,
        form(brush(((ridge + 0.04, top - 0.12), (-0.99, eaves + 0.09)), 0.13), roof),
        *window(ridge, eaves - 0.22, 0.11, 0.12),
        *window(0.58, 0.36, 0.17, 0.20),
        *window(0.0, 0.42, 0.14, 0.18),
        form(arch(door, 0.18, 0.24, 1.0), _WOOD),
        mark(ellipse(door + 0.10, 0.66, 0.035, 0.035), LIT),
    ]


def lighthouse(c: RGB, rng: Random) -> list[Shape]:
    wide = rng.uniform(0.44, 0.52)
    tower = ((-wide, 0.94), (-0.28, -0.42), (0.28, -0.42), (wide, 0.94))
    bands = [
        detail(
            ((-0.6, y), (0.0, y + 0.06), (0.6, y), (0.6, y + 0.17), (0.0, y + 0.23), (-0.6, y + 0.17)), trim(c), tower
        )
        for y in (-0.10, 0.40)
    ]
    return [
        form(smooth((-0.74, 1.0), (-0.60, 0.80), (-0.20, 0.84), (0.24, 0.78), (0.62, 0.82), (0.76, 1.0)), _STONE),
        form(tower, c),
        *bands,
        form(arch(0.0, 0.12, 0.60, 0.94), _WOOD),
        mark(rounded(-0.06, 0.10, 0.06, 0.30, 0.05), darker(c, 0.4)),
        form(box(-0.23, -0.78, 0.23, -0.46), LIT),
        mark(box(-0.025, -0.78, 0.025, -0.46), _BLACK),
        form(rounded(-0.42, -0.50, 0.42, -0.38, 0.05), darker(c, 0.55)),
        form(smooth((-0.32, -0.74), (-0.24, -0.90), (0.0, -0.99), (0.24, -0.90), (0.32, -0.74), (0.0, -0.73)),
             darker(c, 0.72)),
        mark(brush(((0.0, -1.04), (0.0, -0.94)), 0.06), _BLACK),
    ]  # fmt: skip


def castle(c: RGB, rng: Random) -> list[Shape]:
    tall = rng.uniform(-0.06, 0.06)
    roof = darker(c, 0.52)

    def battlements(left: float, right: float, top: float, count: int) -> tuple[tuple[float, float], ...]:
        step = (right - left) / (2 * count - 1)
        points = [(left, 1.0)]
        for i in range(2 * count - 1):
            y = top if i % 2 == 0 else top + 0.10
            points += [(left + i * step, y), (left + (i + 1) * step, y)]
        return (*points, (right, 1.0))

    towers = []
    for x, top in ((-0.66, -0.34 + tall), (0.66, -0.34 - tall)):
        towers += [
            form(box(x - 0.24, top, x + 0.24, 1.0), c),
            form(((x - 0.34, top + 0.06), (x, top - 0.54), (x + 0.34, top + 0.06)), roof),
            mark(arch(x, 0.07, top + 0.22, top + 0.50), _BLACK),
        ]
    return [
        mark(brush(((0.0, -0.98), (0.0, -0.5)), 0.05), _BLACK),
        Shape(((0.0, -0.98), (0.30, -0.88), (0.0, -0.76)), lighter(c, 0.2)),
        form(battlements(-0.27, 0.27, -0.58, 3), darker(c, 0.88)),
        mark(arch(0.0, 0.08, -0.38, -0.12), LIT),
        form(battlements(-0.56, 0.56, 0.12, 6), c),
        *towers,
        form(arch(0.0, 0.21, 0.42, 1.0), _WOOD),
        mark(brush(((0.0, 0.5), (0.0, 1.0)), 0.04), darker(_WOOD, 0.6)),
        *[mark(box(x, y, x + 0.16, y + 0.06), darker(c, 0.80)) for x, y in
          ((-0.46, 0.36), (0.30, 0.40), (-0.74, 0.58), (0.60, 0.66), (-0.64, 0.84), (0.72, 0.30))],
    ]  # fmt: skip


def boat(c: RGB, rng: Random) -> list[Shape]:
    mast, fill = rng.uniform(-0.10, -0.02), rng.uniform(0.04, 0.14)
    hull = smooth((-0.98, 0.40), (-0.5, 0.50), (0.3, 0.50), (1.0, 0.36), (0.80, 0.80), (0.46, 0.99), (-0.56, 0.99),
                  (-0.84, 0.76))  # fmt: skip
    main = (*curve((mast + 0.05, -0.92), (mast + 0.52 + fill, -0.42), (0.84, 0.26)), (mast + 0.05, 0.30))
    jib = (*curve((mast - 0.05, -0.78), (-0.48 - fill, -0.2), (-0.80, 0.28)), (mast - 0.05, 0.30))
    return [
        Shape(brush(((mast, -0.99), (mast, 0.5)), 0.09), _WOOD),
        Shape(((mast, -1.0), (mast + 0.26, -0.93), (mast, -0.85)), darker(c, 0.8)),
        form(main, lighter(c, 0.12)),
        detail(brush(((mast, -0.22), (0.9, -0.22)), 0.04), darker(c, 0.86), main),
        detail(brush(((mast, 0.06), (0.9, 0.06)), 0.04), darker(c, 0.86), main),
        form(jib, lighter(c, 0.45)),
        form(hull, c),
        detail(brush(curve((-1.0, 0.46), (-0.5, 0.58), (0.3, 0.58), (1.0, 0.42)), 0.10), trim(c), hull),
        mark(box(-1, 0.86, 1, 1.1), darker(c, 0.70), hull),
        *[mark(ellipse(x, 0.70, 0.06, 0.06), trim(c)) for x in (-0.36, 0.0, 0.36)],
    ]


def car(c: RGB, rng: Random) -> list[Shape]:
    """The front to the right."""
    roof, front = rng.uniform(-0.46, -0.36), rng.uniform(0.28, 0.38)
    body = smooth((-0.97, 0.30), (-0.90, 0.16), (-0.66, 0.10), (0.50, 0.10), (0.88, 0.20), (0.98, 0.42), (0.97, 0.76),
                  (0.5, 0.80), (-0.5, 0.80), (-0.97, 0.76))  # fmt: skip
    cabin = smooth((-0.74, 0.20), (-0.56, roof + 0.14), (-0.40, roof), (0.16, roof), (front, roof + 0.16), (0.62, 0.20))
    wheels = []
    for x in (-0.54, 0.56):
        wheels += [
            mark(ellipse(x, 0.74, 0.29, 0.29), darker(c, 0.5), body),
            form(ellipse(x, 0.76, 0.24, 0.24), _BLACK),
            mark(ellipse(x, 0.76, 0.13, 0.13), _STEEL),
            mark(ellipse(x, 0.76, 0.05, 0.05), _BLACK),
        ]
    return [
        form(cabin, darker(c, 0.86)),
        Shape(smooth((-0.58, 0.12), (-0.46, roof + 0.17), (-0.36, roof + 0.10), (-0.13, roof + 0.10), (-0.13, 0.12),
                     steps=3), _GLASS),
        Shape(smooth((-0.02, 0.12), (-0.02, roof + 0.10), (0.12, roof + 0.10), (0.24, roof + 0.22), (0.42, 0.12),
                     steps=3), _GLASS),
        mark(brush(((-0.40, 0.08), (-0.24, roof + 0.16)), 0.07), lighter(_GLASS, 0.6)),
        mark(brush(((0.06, 0.08), (0.18, roof + 0.24)), 0.06), lighter(_GLASS, 0.6)),
        form(body, c),
        mark(smooth((-0.9, 0.16), (-0.5, 0.11), (0.5, 0.11), (0.9, 0.24), (0.0, 0.20)), lighter(c, 0.5), body),
        mark(brush(((-0.08, 0.16), (-0.08, 0.68)), 0.035), darker(c, 0.6)),
        mark(rounded(0.0, 0.30, 0.14, 0.36, 0.02), darker(c, 0.5)),
        mark(box(-1, 0.66, 1, 0.9), darker(c, 0.72), body),
        *wheels,
        form(ellipse(0.89, 0.38, 0.07, 0.09), LIT),
        mark(rounded(-0.98, 0.32, -0.89, 0.46, 0.03), (210, 60, 50)),
    ]  # fmt: skip


def cup(c: RGB, rng: Random) -> list[Shape]:
    taper, y = rng.uniform(0.04, 0.16), -0.26
    body = (
        (-0.70, y), *ellipse(-0.06, 0.80, 0.64 - taper, 0.18, 180, 0)[1:-1], (0.58, y),
    )  # fmt: skip
    pattern = rng.choice(("band", "dots", "plain"))
    decoration = {
        "band": [detail(brush(curve((-0.8, 0.26), (-0.06, 0.40), (0.7, 0.26)), 0.20), lighter(c, 0.62), body)],
        "dots": [
            detail(ellipse(x, 0.34 - 0.1 * x * x, 0.09, 0.10), lighter(c, 0.66), body) for x in (-0.5, -0.06, 0.38)
        ],
        "plain": [],
    }[pattern]
    steam = [
        mark(brush(curve((x, y - 0.24), (x + 0.09, y - 0.40), (x - 0.05, y - 0.56), (x + 0.04, y - 0.72)), 0.09, 0.03),
             (236, 236, 240))
        for x in (-0.30, 0.02)
    ]  # fmt: skip
    return [
        *steam,
        form(ellipse(-0.06, 0.90, 0.80, 0.10), darker(trim(c), 0.9)),
        form(ring(0.52, 0.22, 0.44, 0.38, 0.17, -95, 100), darker(c, 0.86)),
        form(body, c),
        *decoration,
        mark(brush(curve((-0.58, y + 0.22), (-0.56, 0.3), (-0.48, 0.66)), 0.10, 0.05), lighter(c, 0.55), body),
        form(ellipse(-0.06, y, 0.64, 0.17), lighter(c, 0.45)),
        mark(ellipse(-0.06, y + 0.02, 0.54, 0.12), (104, 66, 44)),
        mark(ellipse(-0.16, y + 0.03, 0.28, 0.05), (150, 104, 70)),
    ]


def rocket(c: RGB, rng: Random) -> list[Shape]:
    flame = rng.uniform(0.86, 1.04)
    body = smooth((0.0, -1.0), (0.26, -0.62), (0.38, -0.16), (0.34, 0.30), (0.24, 0.60), (-0.24, 0.60), (-0.34, 0.30),
                  (-0.38, -0.16), (-0.26, -0.62))  # fmt: skip
    fin = smooth((0.28, 0.08), (0.62, 0.36), (0.72, 0.82), (0.46, 0.64), (0.20, 0.58))
    return [
        Shape(smooth((-0.22, 0.62), (-0.26, 0.80), (0.0, flame), (0.26, 0.80), (0.22, 0.62)), (246, 128, 36)),
        mark(smooth((-0.12, 0.62), (-0.13, 0.74), (0.0, flame - 0.14), (0.13, 0.74), (0.12, 0.62)), (255, 224, 96)),
        form(fin, darker(c, 0.86)),
        form(tuple((-x, y) for x, y in fin), darker(c, 0.86)),
        form(body, c),
        detail(smooth((-0.5, -1.1), (0.5, -1.1), (0.5, -0.66), (0.0, -0.58), (-0.5, -0.66)), darker(c, 0.68), body),
        detail(box(-0.5, 0.48, 0.5, 0.7), darker(c, 0.68), body),
        mark(brush(curve((-0.24, -0.44), (-0.29, -0.1), (-0.26, 0.32)), 0.08, 0.05), lighter(c, 0.55), body),
        form(ellipse(0.0, -0.20, 0.20, 0.20), trim(c)),
        mark(ellipse(0.0, -0.20, 0.14, 0.14), (92, 168, 214)),
        mark(ellipse(-0.04, -0.24, 0.05, 0.05), (226, 244, 252)),
        form(brush(((0.0, 0.34), (0.0, 0.78)), 0.10, 0.06), darker(c, 0.55)),
    ]


def star(c: RGB, rng: Random) -> list[Shape]:
    outer, inner = 1.02, rng.uniform(0.44, 0.50)
    angles = [math.pi * i / 5 - math.pi / 2 for i in range(10)]
    points = tuple(
        ((outer if i % 2 == 0 else inner) * math.cos(a), 0.06 + (outer if i % 2 == 0 else inner) * math.sin(a))
        for i, a in enumerate(angles)
    )
    facets = [
        detail(((0.0, 0.06), points[i], points[(i + 1) % 10]), lighter(c, 0.34) if i % 2 else darker(c, 0.84), points)
        for i in range(10)
    ]
    return [form(points, c), *facets]


def balloon(c: RGB, rng: Random) -> list[Shape]:
    sway = rng.uniform(-0.14, 0.14)
    body = smooth((0.0, -1.0), (0.46, -0.84), (0.66, -0.36), (0.44, 0.14), (0.08, 0.42), (-0.08, 0.42), (-0.44, 0.14),
                  (-0.66, -0.36), (-0.46, -0.84))  # fmt: skip
    return [
        mark(brush(curve((0.0, 0.46), (sway, 0.62), (-sway * 0.8, 0.80), (sway * 0.5, 1.0)), 0.06), (98, 88, 92)),
        form(((0.0, 0.36), (0.14, 0.54), (-0.14, 0.54)), darker(c, 0.8)),
        form(body, c),
        mark(smooth((-0.40, -0.72), (-0.24, -0.80), (-0.30, -0.52), (-0.42, -0.22), (-0.50, -0.42)), lighter(c, 0.7)),
        mark(ellipse(-0.38, -0.06, 0.05, 0.06), lighter(c, 0.6)),
    ]


def kite(c: RGB, rng: Random) -> list[Shape]:
    x, y = rng.uniform(-0.04, 0.04), -0.38
    top, bottom, left, right = (x, -1.0), (x, 0.54), (-0.74, y), (0.74, y)
    sail = (top, right, bottom, left)
    sway = rng.uniform(0.16, 0.24)
    tail = curve(bottom, (sway, 0.68), (-sway, 0.82), (sway * 0.8, 1.0))
    bows = []
    for i in (5, 10, 15):
        bx, by = tail[i]
        for s in (-1, 1):
            bows.append(Shape(((bx, by), (bx + s * 0.17, by - 0.09), (bx + s * 0.17, by + 0.09)), darker(c, 0.86)))
    return [
        mark(brush(tail, 0.055), (98, 88, 92)),
        *bows,
        Shape(sail, c),
        mark((top, (x, y), left), lighter(c, 0.36)),
        mark((right, bottom, (x, y)), darker(c, 0.76)),
        Shape(brush((top, bottom), 0.045), _WOOD),
        Shape(brush((left, right), 0.045), _WOOD),
    ]
