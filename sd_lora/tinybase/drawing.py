"""Composition: where the subjects of a scene stand, how large they are, and which shapes the whole picture has.

Second step of the renderer: `Scene` → `list[Shape]`, back to front. `canvas` turns the shapes into pixels.
"""

from __future__ import annotations

import random
from dataclasses import replace

from sd_lora.tinybase.backgrounds import backdrop, dusk
from sd_lora.tinybase.shapes import RGB, Shape, ellipse, mark
from sd_lora.tinybase.subjects import DRAWN, FLOATING, MIRRORED, TILT
from sd_lora.tinybase.world import Scene

PALETTE: dict[str, RGB] = {
    "red": (214, 44, 46), "orange": (243, 130, 28), "yellow": (250, 212, 48), "green": (52, 158, 74),
    "blue": (44, 98, 214), "purple": (132, 62, 176), "pink": (246, 140, 186), "white": (250, 250, 248),
}  # fmt: skip
#: half the width of a subject, alone and in a pair, by the word for its size
_HALF = {"small": 0.195, "": 0.275, "big": 0.365}
_HALF_IN_PAIR = {"small": 0.165, "": 0.20, "big": 0.225}
_MIDDLE = {"": 0.5, "on the left": 0.30, "on the right": 0.70}


def shapes_of(scene: Scene) -> list[Shape]:
    """All shapes of `scene`, back to front; deterministic in the scene and its seed."""
    place = backdrop(scene.background, scene.light, scene.seed)
    shapes = [*place.sky, *place.land]
    rng = random.Random(f"place {scene.seed} {scene.subject}")
    if scene.second:
        first = 0.74 if scene.side == "on the right" else 0.26
        level = rng.uniform(-0.02, 0.02)
        spots = [(first, _HALF_IN_PAIR[scene.size], level), (1 - first, _HALF_IN_PAIR[""], level)]
    else:
        middle, half = _MIDDLE[scene.side], _HALF[scene.size]
        if scene.size == "big":
            middle = 0.5 + (middle - 0.5) * 0.75
        middle = min(max(middle + rng.uniform(-0.03, 0.03), half), 1 - half)  # nothing is cut off
        spots = [(middle, half, rng.uniform(-0.02, 0.02))]
    named = ((scene.subject, scene.colour), (scene.second, scene.second_colour))
    for number, ((subject, colour), (middle, size, level)) in enumerate(zip(named, spots, strict=False), 1):
        half = size * (rng.uniform(0.94, 1.0) if scene.second else rng.uniform(0.95, 1.05))
        floats = subject in FLOATING
        foot = 0.90 + level if half > 0.3 else 0.875 + level
        y = 0.44 + level * 1.5 if floats else foot - half
        local = _subject(subject, PALETTE[colour], rng)
        if scene.light:
            local = [replace(s, colour=dusk(s.colour, 0.16), fade=s.fade and dusk(s.fade, 0.16)) for s in local]
        shapes += _ground_shadow(subject, middle, 0.905 if floats else foot, half, place.ground)
        shapes += [s.moved(middle, y, half, number) for s in local]
    return shapes + place.front


def _subject(subject: str, colour: RGB, rng: random.Random) -> list[Shape]:
    """The subject in its own box, tilted and facing as this scene has it."""
    shapes = DRAWN[subject](colour, rng)
    degrees, mirror = rng.uniform(-1, 1) * TILT.get(subject, 0), subject in MIRRORED and rng.random() < 0.5
    return [shape.turned(degrees, mirror) for shape in shapes] if degrees or mirror else shapes


def _ground_shadow(subject: str, x: float, y: float, half: float, colour: RGB) -> list[Shape]:
    if subject in FLOATING:
        return [mark(ellipse(x + 0.04, y, half * 0.5, half * 0.085), colour, opacity=0.22)]
    return [mark(ellipse(x + half * 0.16, y - half * 0.02, half * 1.02, half * 0.15), colour, opacity=0.38)]
