"""Green hills, desert, snow, forest and mountains: planes of land that pale with distance."""

from __future__ import annotations

import math
from random import Random

from sd_lora.tinybase.backgrounds.scenery import Backdrop, clouds, far_tree, fir, scattered, sky, tuft
from sd_lora.tinybase.shapes import (
    RGB,
    Points,
    Shape,
    box,
    brush,
    curve,
    darker,
    ellipse,
    mark,
    mixed,
    skyline,
    smooth,
)


def hills(rng: Random) -> Backdrop:
    phase, level = rng.uniform(0, 6), rng.uniform(-0.03, 0.03)
    far = skyline(0.50 + level, 0.06, 1.4, phase)
    middle = skyline(0.61 + level, 0.07, 1.0, phase + 2.0)
    near = skyline(0.75, 0.035, 0.8, phase + 4.1)
    land = [Shape(far, (158, 206, 158), (140, 196, 132)), Shape(middle, (128, 194, 98), (104, 174, 78))]
    for x in (rng.uniform(0.04, 0.34), rng.uniform(0.62, 0.96)):
        y = 0.62 + level + 0.07 * math.sin(2 * math.pi * x + phase + 2.0)
        land += far_tree(x, y + 0.02, rng.uniform(0.11, 0.15), (74, 140, 78))
        if rng.random() < 0.6:
            land += far_tree(x + 0.07, y + 0.03, rng.uniform(0.08, 0.11), (90, 152, 84))
    land.append(Shape(near, (98, 176, 72), (70, 140, 60)))
    front = []
    for x, y, near_by in scattered(rng, 7, 0.80, 0.985):
        land += tuft(x, y, 0.020 + 0.02 * near_by, (62, 128, 56))
        if rng.random() < 0.5:
            bloom = rng.choice(((255, 252, 240), (255, 220, 90)))
            land.append(mark(ellipse(x + 0.05, y - 0.02, 0.011, 0.011), bloom))
    for x in (rng.uniform(0.02, 0.2), rng.uniform(0.4, 0.6), rng.uniform(0.8, 0.98)):
        front += tuft(x, 1.0, 0.05, (52, 116, 52))
    return Backdrop([sky((132, 196, 240), (218, 238, 246)), *clouds(rng)], land, front, (38, 84, 44))


def desert(rng: Random) -> Backdrop:
    phase, side = rng.uniform(0, 6), rng.choice((-1, 1))
    sun = 0.5 - side * rng.uniform(0.30, 0.38)
    heaven = [
        sky((250, 214, 150), (255, 240, 206)),
        mark(ellipse(sun, 0.17, 0.13, 0.13), (255, 248, 220), opacity=0.5),
        Shape(ellipse(sun, 0.17, 0.08, 0.08), (255, 250, 226)),
    ]
    x = 0.5 + side * rng.uniform(0.34, 0.40)
    mesa = 0.5 - side * rng.uniform(0.1, 0.3)
    green = (112, 150, 92)
    land = [
        Shape(((mesa - 0.20, 0.64), (mesa - 0.14, 0.47), (mesa + 0.08, 0.46), (mesa + 0.16, 0.64)), (222, 150, 110)),
        mark(((mesa - 0.16, 0.54), (mesa + 0.12, 0.53), (mesa + 0.13, 0.56), (mesa - 0.17, 0.57)), (204, 130, 96)),
        Shape(skyline(0.60, 0.035, 1.0, phase), (238, 192, 122), (226, 172, 100)),
        Shape(brush(((x, 0.74), (x, 0.42)), 0.05, 0.045), green),
        Shape(brush(curve((x, 0.62), (x - 0.07, 0.60), (x - 0.075, 0.50)), 0.034), green),
        Shape(brush(curve((x, 0.57), (x + 0.07, 0.55), (x + 0.075, 0.45)), 0.034), green),
    ]
    dune = skyline(0.74, 0.04, 0.8, phase + 2.0)
    land.append(Shape(dune, (230, 178, 104), (208, 146, 78)))
    for k in range(3):
        y = 0.84 + 0.055 * k
        ripple = curve(*((i / 6, y + 0.012 * math.sin(2.2 * i + phase + k)) for i in range(7)))
        land.append(mark(brush(ripple, 0.009), (196, 134, 72), dune))
    front = [
        mark(smooth((px - 0.03, py), (px - 0.01, py - 0.02), (px + 0.02, py - 0.015), (px + 0.035, py)), (160, 112, 76))
        for px, py, _ in scattered(rng, 3, 0.95, 0.99)
    ]
    return Backdrop(heaven, land, front, (124, 78, 44))


def snow(rng: Random) -> Backdrop:
    phase = rng.uniform(0, 6)
    land = [Shape(skyline(0.60, 0.045, 1.2, phase), (196, 212, 232), (206, 220, 238))]
    for x, y, near in scattered(rng, 5, 0.62, 0.72):
        land += fir(x * 0.5 + (-0.04 if x < 0.5 else 0.54), y, 0.16 + 0.10 * near, (66, 104, 104), snowy=True)
    drift = skyline(0.74, 0.03, 0.9, phase + 2)
    land.append(Shape(drift, (232, 238, 248), (208, 220, 238)))
    for k in range(3):
        x, y = rng.uniform(0.0, 0.8), 0.83 + 0.05 * k
        land.append(
            mark(
                brush(curve((x, y), (x + 0.12, y - 0.012), (x + 0.28, y + 0.004)), 0.012, 0.004), (188, 204, 228), drift
            )
        )
    flakes = [
        mark(ellipse((i + rng.uniform(0.1, 0.9)) / 16, rng.uniform(0.03, 0.70), r, r), (252, 253, 255))
        for i, r in enumerate(rng.choice((0.008, 0.011, 0.015)) for _ in range(16))
    ]
    bank = smooth((-0.1, 1.1), (0.0, 0.965), (0.35, 0.975), (0.6, 0.96), (1.05, 0.97), (1.1, 1.1))
    return Backdrop(
        [sky((140, 164, 196), (198, 212, 228)), *flakes], land, [mark(bank, (240, 245, 252))], (120, 140, 180)
    )


def forest(rng: Random) -> Backdrop:
    """Trunks in three planes around a clearing of pale light."""
    sky = [Shape(box(0, 0, 1, 1), (196, 218, 168), (222, 232, 186), contour=0)]
    land: list[Shape] = []
    for count, colour, wide, foot in ((7, (160, 190, 148), 0.030, 0.66), (5, (112, 148, 112), 0.045, 0.72)):
        for i in range(count):
            x = (i + rng.uniform(0.2, 0.8)) / count
            land.append(
                Shape(brush(((x, foot + 0.05), (x + rng.uniform(-0.02, 0.02), -0.02)), wide, wide * 0.7), colour)
            )
        land.append(mark(skyline(foot, 0.02, 2.0, rng.uniform(0, 6)), mixed(colour, (120, 170, 90), 0.4)))
    floor = skyline(0.76, 0.02, 1.0, rng.uniform(0, 6))
    land.append(Shape(floor, (84, 128, 62), (50, 90, 48)))
    for side in (-1, 1):
        x = 0.5 + side * rng.uniform(0.43, 0.47)
        trunk = (
            (x - 0.075, 0.84),
            (x - 0.045, 0.70),
            (x - 0.038, -0.02),
            (x + 0.038, -0.02),
            (x + 0.045, 0.70),
            (x + 0.075, 0.84),
        )
        land.append(Shape(trunk, (84, 66, 54)))
        land.append(mark(brush(((x + 0.02, 0.8), (x + 0.016, 0.1)), 0.022), (66, 52, 46), trunk))
    leaves = [
        (i / 10, 0.10 + 0.05 * math.sin(i * 2.3 + rng.uniform(0, 1)) + 0.10 * abs(i / 10 - 0.5)) for i in range(11)
    ]
    canopy = (*curve((-0.05, 0.2), *leaves, (1.05, 0.2), steps=3), (1.0, -0.1), (0.0, -0.1))
    land.append(Shape(canopy, (58, 104, 62), (74, 124, 66)))
    front: list[Shape] = []
    for x, y, near in scattered(rng, 6, 0.82, 0.98):
        land += tuft(x, y, 0.025 + 0.02 * near, (44, 84, 44))
    for x in (rng.uniform(0.0, 0.16), rng.uniform(0.84, 1.0)):
        for blade in range(5):
            a = math.radians(-150 + 30 * blade)
            tip = (x + 0.13 * math.cos(a), 1.0 + 0.15 * math.sin(a))
            frond = brush(curve((x, 1.02), ((x + tip[0]) / 2, tip[1] - 0.02), tip), 0.035, 0.006)
            front.append(Shape(frond, (38, 78, 46)))
    return Backdrop(sky, land, front, (26, 54, 34))


def mountains(rng: Random) -> Backdrop:
    land: list[Shape] = []
    for colour, fade, low, count, snow in (
        ((172, 182, 214), (196, 204, 226), 0.24, 4, 0.4),
        ((112, 122, 164), (140, 150, 180), 0.14, 3, 0.34),
    ):
        shift = rng.uniform(-0.12, 0.12)
        for i in rng.sample(range(count), count):
            x, y = (i + 0.5) / count + shift + rng.uniform(-0.05, 0.05), low + rng.uniform(0, 0.12)
            land += _peak(x, y, 0.30 + 0.04 * rng.random(), colour, fade, snow)
    meadow = skyline(0.72, 0.03, 1.0, rng.uniform(0, 6))
    for x, y, near in scattered(rng, 6, 0.70, 0.75):
        land += fir(x * 0.7 + (0.3 if x >= 0.5 else 0), y + 0.02, 0.09 + 0.04 * near, (72, 104, 100))
    land.append(Shape(meadow, (142, 150, 128), (104, 112, 100)))
    for x, y, near in scattered(rng, 5, 0.80, 0.98):
        size = 0.025 + 0.02 * near
        rock = smooth(
            (x - size, y), (x - size * 0.6, y - size * 0.8), (x + size * 0.3, y - size), (x + size, y), steps=3
        )
        land.append(Shape(rock, (158, 158, 166)))
        land.append(mark(ellipse(x + size * 0.4, y, size, size * 0.8), (122, 122, 134), rock))
    return Backdrop([sky((128, 178, 226), (224, 232, 244))], land, [], (58, 64, 70))


def _peak(x: float, y: float, half: float, colour: RGB, fade: RGB, snow: float) -> list[Shape]:
    """A mountain with its tip at (x, y): a lit and a shaded flank, and snow on its top."""
    foot = 0.80
    outline: Points = (
        (x, y),
        (x + half * 0.45, y + 0.24),
        (x + half, foot),
        (x - half, foot),
        (x - half * 0.5, y + 0.30),
    )
    zigzag = ((x - 0.30 * half, y + snow * 0.42), (x - 0.12 * half, y + snow * 0.30), (x, y + snow * 0.50),
              (x + 0.14 * half, y + snow * 0.30), (x + 0.34 * half, y + snow * 0.46))  # fmt: skip
    dark = (
        (x, y + 0.1),
        (x + 0.1 * half, y + 0.3),
        (x + 0.02 * half, foot),
        (x + half, foot),
        (x + 0.3 * half, y + 0.2),
    )
    return [
        Shape(outline, colour, fade),
        mark(((x, y), (x + half, foot), (x + half * 1.2, y), (x, y)), darker(colour, 0.82), outline),
        mark(dark, darker(colour, 0.82), outline),
        mark(((x - half, y), *zigzag, (x + half, y), (x, y - 0.1)), (244, 248, 253), outline),
        mark(((x, y), *zigzag[2:], (x + half, y)), (206, 216, 236), outline),
    ]
