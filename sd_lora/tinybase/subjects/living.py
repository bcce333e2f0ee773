"""Animals and plants, in a box of -1..1 on both axes, standing on y = 1."""

from __future__ import annotations

import math
from random import Random

from sd_lora.tinybase.shapes import (
    RGB,
    Shape,
    brush,
    curve,
    darker,
    detail,
    ellipse,
    form,
    lighter,
    lobed,
    mark,
    mixed,
    petal,
    ring,
    rounded,
    smooth,
)  # fmt: skip

_BARK, _BARK_LIT, _BLACK, _CREAM = (118, 80, 52), (150, 106, 70), (44, 38, 46), (250, 236, 206)
_LEAF, _LEAF_LIT = (58, 134, 70), (92, 168, 86)
_BEAK, _NOSE = (244, 150, 40), (236, 120, 132)
_EYE_WHITE = (255, 255, 255)


def tree(c: RGB, rng: Random) -> list[Shape]:
    lean, girth = rng.uniform(-0.06, 0.06), rng.uniform(0.13, 0.18)
    trunk = ((-girth * 1.9, 1.0), (-girth, 0.62), (lean - girth * 0.7, 0.0), (lean + girth * 0.7, 0.0),
             (girth, 0.62), (girth * 1.9, 1.0), (0.0, 0.95))  # fmt: skip
    crown = lobed(lean, -0.34, 0.97, 0.66, rng.choice((8, 9, 10)), rng.uniform(0, 360))
    leaves = [
        mark(ring(lean + x, y, r, r, r * 0.42, 20, 160), darker(c, 0.74), crown)
        for x, y, r in ((-0.34, -0.30, 0.15), (0.06, 0.02, 0.16), (0.40, -0.34, 0.16), (0.02, -0.52, 0.15),
                        (-0.50, 0.02, 0.13))
    ]  # fmt: skip
    return [
        form(trunk, _BARK),
        mark(brush(curve((-0.03, 0.9), (-0.02, 0.6), (lean, 0.3)), 0.05, 0.02), _BARK_LIT),
        form(crown, c),
        mark(ellipse(lean - 0.26, -0.66, 0.50, 0.38), lighter(c, 0.26), crown),
        mark(ellipse(lean - 0.34, -0.76, 0.26, 0.18), lighter(c, 0.46), crown),
        *leaves,
    ]


def flower(c: RGB, rng: Random) -> list[Shape]:
    count, turn, bend = rng.choice((5, 6, 6, 7)), rng.uniform(0, 60), rng.uniform(-0.10, 0.10)
    y = -0.36
    heart = (132, 82, 44) if c[2] < 60 and c[0] > 230 else (252, 204, 58)
    petals = []
    for i in range(count):
        a = turn + 360 * i / count
        cosine, sine = math.cos(math.radians(a)), math.sin(math.radians(a))
        length, width = 0.34, 1.72 / count
        petals.append(form(petal(0.36 * cosine, y + 0.36 * sine, length, width, a), c))
    veins = [
        mark(brush(((0.28 * math.cos(a), y + 0.28 * math.sin(a)), (0.56 * math.cos(a), y + 0.56 * math.sin(a))),
                   0.05, 0.01), darker(c, 0.78))
        for a in (math.radians(turn + 360 * i / count) for i in range(count))
    ]  # fmt: skip
    return [
        form(brush(curve((bend, 1.0), (bend * 1.4, 0.5), (0.0, y)), 0.13, 0.09), _LEAF),
        form(smooth((bend, 0.90), (0.26, 0.46), (0.62, 0.34), (0.48, 0.72)), _LEAF_LIT),
        form(smooth((bend, 0.96), (-0.28, 0.56), (-0.60, 0.50), (-0.44, 0.84)), _LEAF),
        mark(brush(curve((bend, 0.88), (0.3, 0.6), (0.5, 0.44)), 0.04, 0.01), _LEAF),
        *petals,
        *veins,
        form(ellipse(0.0, y, 0.23, 0.23), heart),
        mark(ellipse(-0.07, y - 0.07, 0.09, 0.08), lighter(heart, 0.5)),
    ]


def mushroom(c: RGB, rng: Random) -> list[Shape]:
    tall, wide = rng.uniform(-0.10, 0.06), rng.uniform(0.90, 1.0)
    dot = lighter(c, 0.86) if min(c) < 200 else (206, 186, 170)
    cap = smooth((-wide, 0.10), (-0.82 * wide, -0.42), (-0.42, -0.84 + tall), (0.08, -0.96 + tall),
                 (0.54, -0.78 + tall), (0.86 * wide, -0.36), (wide, 0.10), (0.52, 0.24), (-0.52, 0.24))  # fmt: skip
    stem = smooth((-0.20, 0.1), (-0.24, 0.5), (-0.36, 0.92), (0.0, 1.0), (0.36, 0.92), (0.22, 0.5), (0.20, 0.1))
    turn = rng.uniform(-0.10, 0.10)
    spots = ((-0.62, -0.14, 0.17), (-0.22, -0.54, 0.19), (0.12, -0.06, 0.17), (0.46, -0.44, 0.18), (0.80, -0.02, 0.13))
    return [
        form(stem, _CREAM),
        mark(brush(curve((-0.08, 0.34), (-0.10, 0.6), (-0.16, 0.84)), 0.04, 0.02), darker(_CREAM, 0.84)),
        mark(brush(curve((0.08, 0.34), (0.08, 0.6), (0.10, 0.74)), 0.04, 0.02), darker(_CREAM, 0.84)),
        mark(smooth((-0.34, 0.30), (0.0, 0.42), (0.34, 0.30), (0.0, 0.22)), darker(_CREAM, 0.76)),
        form(cap, c),
        detail(smooth((-0.9, 0.16), (0.0, 0.06), (0.9, 0.16), (0.0, 0.34)), darker(_CREAM, 0.92), cap),
        *[detail(petal(x + turn, y, r, r * 0.8, 20 * x), dot, cap) for x, y, r in spots],
    ]


def fish(c: RGB, rng: Random) -> list[Shape]:
    plump = rng.uniform(0.50, 0.58)
    y = 0.22
    body = smooth((-0.96, y + 0.04), (-0.66, y - plump * 0.78), (-0.16, y - plump), (0.34, y - plump * 0.62),
                  (0.62, y - 0.12), (0.62, y + 0.12), (0.30, y + plump * 0.66), (-0.20, y + plump),
                  (-0.68, y + plump * 0.76))  # fmt: skip
    scales = [
        mark(ring(x, y + dy, 0.13, 0.15, 0.045, -80, 80), darker(c, 0.80), body)
        for x, dy in ((-0.10, -0.20), (-0.10, 0.10), (0.10, -0.06), (0.10, 0.24), (0.30, -0.18), (0.30, 0.10))
    ]
    stripe = rng.random() < 0.35
    bands = [detail(brush(curve((x, y - 0.6), (x + 0.10, y), (x, y + 0.6)), 0.14), lighter(c, 0.5), body)
             for x in (-0.02, 0.36)] if stripe else scales  # fmt: skip
    return [
        form(smooth((0.50, y), (0.78, y - 0.36), (1.0, y - 0.50), (0.92, y), (1.0, y + 0.50), (0.78, y + 0.36)),
             darker(c, 0.86)),
        form(smooth((-0.36, y - plump * 0.8), (-0.08, y - plump - 0.26), (0.34, y - plump - 0.16),
                    (0.32, y - plump * 0.5)), darker(c, 0.86)),
        form(smooth((-0.10, y + plump * 0.8), (0.16, y + plump + 0.24), (0.30, y + plump * 0.6)), darker(c, 0.86)),
        form(body, c),
        mark(ellipse(-0.26, y + plump * 0.86, 0.62, 0.34), lighter(c, 0.42), body),
        *bands,
        detail(ring(-0.42, y + 0.02, 0.16, 0.40, 0.05, -75, 75), darker(c, 0.66), body),
        form(smooth((-0.16, y + 0.12), (0.16, y + 0.10), (0.22, y + 0.30), (0.02, y + 0.32)), darker(c, 0.80)),
        form(ellipse(-0.60, y - 0.12, 0.14, 0.15), _EYE_WHITE),
        mark(ellipse(-0.63, y - 0.11, 0.075, 0.085), _BLACK),
        mark(ellipse(-0.66, y - 0.15, 0.03, 0.03), _EYE_WHITE),
        mark(brush(curve((-0.93, y + 0.15), (-0.82, y + 0.20), (-0.72, y + 0.17)), 0.05, 0.03), darker(c, 0.5)),
    ]  # fmt: skip


def cat(c: RGB, rng: Random) -> list[Shape]:
    head = smooth((-0.60, -0.34), (-0.34, -0.74), (0.34, -0.74), (0.60, -0.34), (0.44, 0.06), (0.0, 0.18),
                  (-0.44, 0.06))  # fmt: skip
    body = smooth((-0.26, 0.02), (-0.50, 0.42), (-0.56, 0.86), (-0.30, 1.0), (0.30, 1.0), (0.56, 0.86), (0.50, 0.42),
                  (0.26, 0.02))  # fmt: skip
    tip = rng.uniform(-0.08, 0.10)
    tail = brush(curve((0.40, 0.90), (0.76, 0.86), (0.88, 0.52), (0.76 + tip, 0.20)), 0.22, 0.14)
    ear = ((-0.60, -0.42), (-0.58, -0.98), (-0.18, -0.70))
    inner = ((-0.50, -0.56), (-0.52, -0.84), (-0.30, -0.68))
    iris = rng.choice(((110, 180, 90), (240, 190, 60), (90, 170, 210)))
    if max(abs(a - b) for a, b in zip(iris, c, strict=True)) < 90:
        iris = _EYE_WHITE
    face = []
    for side in (-1, 1):
        x = 0.27 * side
        face += [
            mark(ellipse(x, -0.30, 0.135, 0.155), iris),
            mark(ellipse(x, -0.29, 0.075, 0.135), _BLACK),
            mark(ellipse(x - 0.03, -0.36, 0.035, 0.04), _EYE_WHITE),
            mark(brush(((0.22 * side, -0.04), (0.66 * side, -0.12)), 0.035, 0.02), darker(c, 0.45)),
            mark(brush(((0.22 * side, 0.01), (0.64 * side, 0.06)), 0.035, 0.02), darker(c, 0.45)),
        ]
    stripes = [
        detail(brush(((x, -0.80), (x * 0.9, -0.54)), 0.10, 0.04), darker(c, 0.74), head) for x in (-0.17, 0, 0.17)
    ]
    return [
        form(tail, darker(c, 0.9)),
        form(body, c),
        mark(smooth((0.0, 0.16), (-0.22, 0.40), (-0.18, 0.74), (0.0, 0.82), (0.18, 0.74), (0.22, 0.40)),
             lighter(c, 0.48)),
        mark(brush(curve((-0.20, 0.98), (-0.22, 0.80), (-0.17, 0.62)), 0.045), darker(c, 0.68)),
        mark(brush(curve((0.20, 0.98), (0.22, 0.80), (0.17, 0.62)), 0.045), darker(c, 0.68)),
        form(ear, c),
        form(tuple((-x, y) for x, y in ear), c),
        form(head, c),
        mark(inner, _NOSE),
        mark(tuple((-x, y) for x, y in inner), _NOSE),
        *stripes,
        mark(ellipse(0.0, 0.01, 0.24, 0.15), lighter(c, 0.55), head),
        *face,
        mark(smooth((-0.08, -0.11), (0.08, -0.11), (0.0, -0.01)), _NOSE),
        mark(brush(curve((-0.12, 0.06), (-0.05, 0.09), (0.0, 0.02), (0.05, 0.09), (0.12, 0.06)), 0.035), _BLACK),
    ]  # fmt: skip


def dog(c: RGB, rng: Random) -> list[Shape]:
    """In profile, standing, the nose to the left."""
    wag = rng.uniform(-0.14, 0.10)
    far = darker(c, 0.72)
    body = smooth((-0.50, 0.16), (-0.20, -0.02), (0.40, 0.0), (0.72, 0.12), (0.78, 0.42), (0.60, 0.58), (0.0, 0.62),
                  (-0.44, 0.60), (-0.58, 0.40))  # fmt: skip
    head = smooth((-0.98, -0.22), (-0.88, -0.38), (-0.70, -0.44), (-0.62, -0.66), (-0.36, -0.76), (-0.10, -0.62),
                  (-0.08, -0.30), (-0.26, -0.06), (-0.56, -0.04), (-0.86, -0.06))  # fmt: skip
    collar = (226, 70, 70) if c[0] < 200 or c[1] > 200 else (70, 120, 200)
    patch = [mark(ellipse(0.36, 0.10, 0.26, 0.22), lighter(c, 0.55), body)] if rng.random() < 0.5 else []
    return [
        form(brush(curve((0.66, 0.20), (0.86, -0.02), (0.90 + wag, -0.42)), 0.17, 0.09), c),
        form(rounded(-0.30, 0.40, -0.10, 1.0, 0.07), far),
        form(rounded(0.36, 0.40, 0.56, 1.0, 0.07), far),
        form(smooth((-0.46, -0.30), (-0.10, -0.34), (0.02, 0.16), (-0.24, 0.46), (-0.56, 0.34)), c),
        form(body, c),
        mark(ellipse(-0.02, 0.62, 0.44, 0.16), lighter(c, 0.45), body),
        *patch,
        form(rounded(-0.56, 0.34, -0.33, 1.0, 0.08), c),
        form(rounded(0.56, 0.34, 0.80, 1.0, 0.08), c),
        mark(rounded(-0.58, 0.86, -0.33, 1.0, 0.07), lighter(c, 0.6)),
        mark(rounded(0.54, 0.86, 0.80, 1.0, 0.07), lighter(c, 0.6)),
        mark(brush(curve((-0.54, -0.02), (-0.30, 0.10), (-0.04, 0.02)), 0.11), collar),
        form(head, c),
        mark(ellipse(-0.80, -0.14, 0.26, 0.14), lighter(c, 0.5), head),
        form(smooth((-0.34, -0.70), (-0.08, -0.70), (0.08, -0.36), (0.02, -0.06), (-0.16, -0.10), (-0.22, -0.42)),
             darker(c, 0.66)),
        mark(ellipse(-0.50, -0.44, 0.065, 0.08), _BLACK),
        mark(ellipse(-0.52, -0.47, 0.025, 0.025), _EYE_WHITE),
        mark(ellipse(-0.93, -0.27, 0.10, 0.085), _BLACK),
        mark(brush(curve((-0.90, -0.11), (-0.76, -0.08), (-0.62, -0.14)), 0.04, 0.03), darker(c, 0.45)),
    ]  # fmt: skip


def bird(c: RGB, rng: Random) -> list[Shape]:
    """A round garden bird on thin legs, the beak to the left."""
    lift = rng.uniform(-0.12, 0.06)
    body = smooth((-0.80, -0.46), (-0.62, -0.78), (-0.26, -0.84), (0.06, -0.60), (0.34, -0.20), (0.66, 0.10),
                  (0.52, 0.46), (0.06, 0.66), (-0.42, 0.54), (-0.74, 0.14))  # fmt: skip
    wing = smooth((-0.22, -0.22), (0.10, -0.34), (0.46, -0.02), (0.86, 0.20 + lift * 0.5), (0.34, 0.38), (-0.10, 0.24))
    legs = []
    for x in (-0.14, 0.14):
        legs.append(Shape(brush(((x, 0.56), (x - 0.02, 0.98)), 0.06), _BEAK))
        legs.append(Shape(brush(((x - 0.20, 0.98), (x + 0.08, 0.98)), 0.06), _BEAK))
    return [
        *legs,
        form(smooth((0.40, 0.10), (0.72, 0.02 + lift), (1.0, 0.06 + lift), (0.96, 0.26 + lift), (0.50, 0.42)),
             darker(c, 0.66)),
        form(((-0.72, -0.60), (-1.0, -0.42), (-0.70, -0.34)), _BEAK),
        form(body, c),
        mark(smooth((-0.84, -0.20), (-0.56, -0.26), (-0.24, 0.06), (-0.08, 0.70), (-0.60, 0.66)),
             lighter(c, 0.42), body),
        form(wing, darker(c, 0.87)),
        mark(brush(curve((0.02, 0.10), (0.34, 0.16), (0.62, 0.18)), 0.05, 0.02), darker(c, 0.55), wing),
        mark(brush(curve((0.02, -0.08), (0.30, -0.02), (0.52, 0.06)), 0.05, 0.02), darker(c, 0.55), wing),
        mark(ellipse(-0.50, -0.52, 0.11, 0.115), _EYE_WHITE),
        mark(ellipse(-0.52, -0.52, 0.075, 0.08), _BLACK),
        mark(ellipse(-0.55, -0.55, 0.028, 0.028), _EYE_WHITE),
    ]  # fmt: skip


def butterfly(c: RGB, rng: Random) -> list[Shape]:
    spread, dot = rng.uniform(0.86, 0.95), lighter(c, 0.7) if min(c) < 200 else (196, 176, 200)
    edge = mixed(darker(c, 0.5), _BLACK, 0.25)
    wings = []
    for side in (-1, 1):
        upper = smooth(
            *(
                (side * x * spread, y)
                for x, y in (
                    (0.04, -0.10),
                    (0.20, -0.56),
                    (0.62, -0.92),
                    (0.98, -0.78),
                    (0.92, -0.30),
                    (0.56, 0.06),
                    (0.06, 0.10),
                )
            )
        )
        lower = smooth(
            *(
                (side * x * spread, y)
                for x, y in ((0.05, 0.06), (0.46, 0.04), (0.80, 0.26), (0.74, 0.66), (0.42, 0.86), (0.14, 0.56))
            )
        )
        rim = curve(*((side * x * spread, y) for x, y in ((0.56, -0.92), (1.0, -0.72), (0.90, -0.20))))
        wings += [
            form(lower, darker(c, 0.86)),
            detail(ellipse(side * 0.48 * spread, 0.44, 0.15, 0.15), dot, lower),
            form(upper, c),
            detail(brush(rim, 0.16), edge, upper),
            detail(ellipse(side * 0.52 * spread, -0.44, 0.19, 0.17), dot, upper),
            mark(ellipse(side * 0.52 * spread, -0.44, 0.09, 0.08), darker(c, 0.8), upper),
        ]  # fmt: skip
    antennae = [Shape(brush(curve((0.0, -0.34), (s * 0.08, -0.66), (s * 0.26, -0.90)), 0.05, 0.04), _BLACK)
                for s in (-1, 1)]  # fmt: skip
    return [
        *wings,
        *antennae,
        form(ellipse(0.0, 0.10, 0.085, 0.52), (74, 56, 54)),
        form(ellipse(0.0, -0.42, 0.11, 0.12), (74, 56, 54)),
    ]
