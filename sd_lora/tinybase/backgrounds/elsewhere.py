"""A plain room, the sea, the night, the city and the beach."""

from __future__ import annotations

import math
from random import Random

from sd_lora.tinybase.backgrounds.scenery import Backdrop, clouds, fir, scattered, sky, tuft, wave
from sd_lora.tinybase.shapes import (
    LIT,
    Shape,
    box,
    brush,
    curve,
    darker,
    ellipse,
    lighter,
    mark,
    mixed,
    skyline,
    smooth,
)


def plain(rng: Random) -> Backdrop:
    """A wall and a table top."""
    tint = rng.choice(((240, 226, 202), (228, 222, 214), (214, 224, 228), (232, 216, 212)))
    edge = rng.uniform(0.70, 0.76)
    table = mixed(darker(tint, 0.84), (196, 156, 116), 0.35)
    return Backdrop(
        [Shape(box(0, 0, 1, 1), lighter(tint, 0.25), darker(tint, 0.95), contour=0)],
        [
            Shape(box(0, edge, 1, 1), lighter(table, 0.12), darker(table, 0.94)),
            mark(box(0, edge, 1, edge + 0.012), lighter(table, 0.5)),
        ],
        ground=darker(table, 0.5),
    )


def sea(rng: Random) -> Backdrop:
    horizon = rng.uniform(0.40, 0.46)
    land = [Shape(box(0, horizon, 1, 1), (92, 166, 206), (26, 92, 152))]
    if rng.random() < 0.5:
        x = rng.choice((0.1, 0.9)) + rng.uniform(-0.05, 0.05)
        island = smooth(
            (x - 0.14, horizon), (x - 0.05, horizon - 0.06), (x + 0.04, horizon - 0.04), (x + 0.15, horizon)
        )
        land.append(Shape(island, (126, 158, 170)))
    for row in range(5):
        nearness = row / 4
        y, wide = horizon + 0.06 + 0.105 * row, 0.09 + 0.08 * nearness
        for column in range(4):
            x = (column / 4 + row * 0.13 + rng.uniform(0, 0.09)) % 1.0
            land.append(wave(x, y + rng.uniform(-0.015, 0.015), wide, (168, 214, 234)))
    front = []
    low = rng.uniform(0.925, 0.945)
    crest = [(i / 24, low + 0.014 * math.sin(2 * math.pi * 4 * i / 24 + rng.uniform(-0.3, 0.3))) for i in range(25)]
    front.append(Shape((*crest, (1.0, 1.0), (0.0, 1.0)), (44, 118, 176), (24, 88, 146)))
    front.append(mark(brush(crest, 0.014), (196, 228, 242)))
    return Backdrop([sky((150, 204, 238), (232, 242, 244), 0.5), *clouds(rng)], land, front, (14, 60, 110))


def night(rng: Random) -> Backdrop:
    x, y = rng.choice((0.15, 0.85)) + rng.uniform(-0.04, 0.04), rng.uniform(0.13, 0.18)
    sky = [
        Shape(box(0, 0, 1, 1), (18, 22, 62), (62, 66, 124), contour=0),
        mark(ellipse(x, y, 0.155, 0.155), (120, 124, 176), opacity=0.35),
        Shape(
            ellipse(x, y, 0.10, 0.10, 50, 310) + ellipse(x + 0.055, y, 0.085, 0.085, 120, 240)[::-1], (252, 242, 196)
        ),
    ]
    for i in range(16):
        sx, sy = (i + rng.uniform(0.1, 0.9)) / 16, rng.uniform(0.03, 0.60)
        r = rng.choice((0.007, 0.010, 0.017))
        if r > 0.015:
            reach = [r if k % 2 == 0 else r * 0.35 for k in range(8)]
            spark = tuple(
                (sx + d * math.cos(k * math.pi / 4), sy + d * math.sin(k * math.pi / 4)) for k, d in enumerate(reach)
            )
            sky.append(Shape(spark, (255, 248, 214), contour=0.4))
        else:
            sky.append(Shape(ellipse(sx, sy, r, r), (236, 234, 226), contour=0.4 if r > 0.008 else 0))
    phase = rng.uniform(0, 6)
    land = [
        Shape(skyline(0.66, 0.035, 1.6, phase), (44, 48, 96)),
        Shape(skyline(0.77, 0.025, 0.9, phase + 2), (36, 42, 78), (24, 28, 58)),
    ]
    for tx, ty, near in scattered(rng, 5, 0.70, 0.76):
        land[1:1] = fir(tx, ty, 0.10 + 0.05 * near, (30, 36, 76))
    front = [s for tx in (rng.uniform(0, 0.3), rng.uniform(0.7, 1)) for s in tuft(tx, 1.0, 0.05, (18, 22, 46))]
    return Backdrop(sky, land, front, (10, 12, 36))


def city(rng: Random) -> Backdrop:
    land: list[Shape] = []
    for colour, low, high, wide in (((188, 190, 210), 0.22, 0.38, 0.11), ((142, 142, 172), 0.34, 0.52, 0.17)):
        x = -rng.uniform(0, 0.1)
        while x < 1:
            right, top = x + wide * rng.uniform(0.7, 1.2), rng.uniform(low, high)
            land.append(Shape(box(x, top, right, 0.80), colour))
            if wide > 0.12:
                land += _windows(rng, x, top, right)
            x = right + rng.choice((0.0, 0.0, 0.02))
    road = Shape(box(0, 0.80, 1, 1), (112, 112, 122), (92, 92, 104))
    land += [
        Shape(box(0, 0.73, 1, 0.80), (202, 196, 194), (188, 182, 182)),
        mark(box(0, 0.795, 1, 0.81), (156, 150, 154)),
        road,
    ]
    start = rng.uniform(-0.1, 0.1)
    land += [mark(box(start + 0.28 * i, 0.905, start + 0.28 * i + 0.15, 0.92), (236, 232, 214)) for i in range(5)]
    x = rng.choice((rng.uniform(0.04, 0.10), rng.uniform(0.90, 0.96)))
    lamp = [Shape(box(x - 0.008, 0.42, x + 0.008, 0.77), (70, 70, 84)), Shape(ellipse(x, 0.40, 0.028, 0.034), LIT)]
    return Backdrop([sky((164, 194, 224), (226, 230, 234)), *clouds(rng)[:2]], land + lamp, [], (52, 52, 66))


def _windows(rng: Random, left: float, top: float, right: float) -> list[Shape]:
    columns = max(2, round((right - left) / 0.055))
    step = (right - left) / columns
    panes = []
    y = top + 0.035
    while y < 0.70:
        for i in range(columns):
            x = left + step * (i + 0.28)
            colour = LIT if rng.random() < 0.28 else (186, 204, 226)
            panes.append(mark(box(x, y, x + step * 0.46, y + 0.034), colour))
        y += 0.066
    return panes


def beach(rng: Random) -> Backdrop:
    horizon, shore = rng.uniform(0.38, 0.43), rng.uniform(0.62, 0.67)
    phase = rng.uniform(0, 6)
    sand = skyline(shore, 0.015, 1.2, phase)
    land = [
        Shape(box(0, horizon, 1, 0.8), (40, 160, 186), (112, 216, 206)),
        *[wave(rng.uniform(0, 1), horizon + 0.04 + 0.05 * i, 0.14, (178, 232, 230)) for i in range(4)],
        mark(brush(sand[:41], 0.05), (240, 250, 246)),
        Shape(tuple((x, y + 0.02) for x, y in sand), (250, 228, 178), (238, 204, 146)),
    ]
    side = rng.choice((-1, 1))
    x = 0.5 + side * rng.uniform(0.40, 0.44)
    top = (x - side * 0.10, 0.24)
    land.append(Shape(brush(curve((x, 0.74), (x + side * 0.01, 0.5), top), 0.045, 0.028), (160, 118, 80)))
    for degrees in (-170, -135, -95, -45, -10, 20, 165):
        a = math.radians(degrees)
        tip = (top[0] + 0.17 * math.cos(a), top[1] + 0.13 * math.sin(a) + 0.05)
        bend = (top[0] + 0.10 * math.cos(a), top[1] + 0.10 * math.sin(a) - 0.02)
        land.append(Shape(brush(curve(top, bend, tip, steps=4), 0.05, 0.008), (70, 150, 84)))
    for sx, sy, _ in scattered(rng, 5, 0.78, 0.98):
        kind = rng.random()
        if kind < 0.5:
            land.append(mark(ellipse(sx, sy, 0.014, 0.009), (212, 176, 128)))
        else:
            land.append(
                mark(smooth((sx - 0.018, sy), (sx, sy - 0.022), (sx + 0.018, sy), (sx, sy + 0.006)), (250, 200, 180))
            )
    return Backdrop([sky((120, 200, 240), (214, 240, 248), 0.5), *clouds(rng)], land, [], (176, 132, 84))
