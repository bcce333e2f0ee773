"""The places of the world: a sky, the land behind the subjects, and what stands before their feet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from sd_lora.tinybase.backgrounds import elsewhere, land
from sd_lora.tinybase.backgrounds.scenery import Backdrop
from sd_lora.tinybase.shapes import LIT, RGB, Shape, box, ellipse, mark, mixed, smooth

_PLACES: dict[str, Callable[[Random], Backdrop]] = {
    "on a plain background": elsewhere.plain, "on green hills": land.hills, "on the sea": elsewhere.sea,
    "at night": elsewhere.night, "in the desert": land.desert, "in the snow": land.snow, "in a forest": land.forest,
    "in the city": elsewhere.city, "on a beach": elsewhere.beach, "in the mountains": land.mountains,
}  # fmt: skip


def backdrop(background: str, light: str, seed: int) -> Backdrop:
    """The place called `background` in that light; `seed` moves its small things."""
    rng = Random(f"back {seed}")
    place = _PLACES[background](rng)
    if light:
        place.sky = _dusk_sky(rng, walls=background == "on a plain background")
        place.land = [_dusky(shape) for shape in place.land]
        place.front = [_dusky(shape) for shape in place.front]
        place.ground = (44, 30, 66)
    return place


def dusk(colour: RGB, strength: float = 1.0) -> RGB:
    """`colour` in the last light: darker and towards violet."""
    if colour == LIT:
        return colour
    red, green, blue = colour
    return mixed(colour, (int(red * 0.70 + 22), int(green * 0.62 + 6), int(blue * 0.62 + 30)), strength)


def _dusky(shape: Shape) -> Shape:
    return replace(shape, colour=dusk(shape.colour), fade=shape.fade and dusk(shape.fade))


def _dusk_sky(rng: Random, walls: bool) -> list[Shape]:
    """A violet sky that glows above the horizon, a low sun and bars of cloud; in a room only its glow."""
    if walls:
        return [Shape(box(0, 0, 1, 1), (150, 112, 160), (250, 186, 150), contour=0)]
    glow = (255, 164, 96)
    sky = [Shape(box(0, 0, 1, 1), glow, contour=0), Shape(box(0, 0, 1, 0.58), (92, 76, 158), glow, contour=0)]
    x = rng.choice((rng.uniform(0.08, 0.24), rng.uniform(0.76, 0.92)))
    sky.append(Shape(ellipse(x, 0.47, 0.17, 0.17), (255, 200, 130), opacity=0.45, contour=0))
    sky.append(Shape(ellipse(x, 0.47, 0.085, 0.085), (255, 232, 160)))
    for _ in range(3):
        cx, cy, wide = rng.uniform(0, 1), rng.uniform(0.08, 0.36), rng.uniform(0.12, 0.22)
        bar = smooth((cx - wide, cy), (cx - wide * 0.3, cy - 0.022), (cx + wide, cy), (cx + wide * 0.2, cy + 0.016))
        sky.append(mark(bar, (246, 150, 140), opacity=0.75))
    return sky
