"""Layers of a picture: shapes rasterised, supersampled, as flat colours, ink lines and the subject's mask.

Third step of the renderer. Styles are functions of these layers, so no style can change the scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from sd_lora.tinybase.drawing import Shape, darker

SUPERSAMPLING = 3
Plane = NDArray[np.floating]


@dataclass(frozen=True)
class Layers:
    """`flat` (h, w, 3) colours, `line` (h, w) ink, `mask` (h, w) subject: float32 in 0..1, supersampled.

    `size` is the side of the finished picture in pixels and `seed` the seed of a style's randomness.
    """

    flat: Plane
    line: Plane
    mask: Plane
    size: int
    seed: int

    @property
    def tone(self) -> Plane:
        """Luminance (h, w)."""
        return self.flat @ np.array([0.299, 0.587, 0.114], dtype=np.float32)

    def grid(self) -> tuple[Plane, Plane]:
        """Coordinates x, y of every sample in pixels of a 64-pixel picture, so textures look the same at any size
        and their periods (multiples of 4) stay on the VAE's lattice."""
        side = self.size * SUPERSAMPLING
        axis = ((np.arange(side, dtype=np.float32) + 0.5) * 64 / side).astype(np.float32)
        return np.broadcast_to(axis, (side, side)), np.broadcast_to(axis[:, None], (side, side))

    def rng(self, salt: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, salt))


def rasterise(shapes: list[Shape], size: int, seed: int) -> Layers:
    """Draw `shapes` (unit coordinates, back to front) for a picture of `size` pixels a side."""
    side = size * SUPERSAMPLING
    flat, line, mask = Image.new("RGB", (side, side)), Image.new("L", (side, side), 0), Image.new("L", (side, side), 0)
    draw_flat, draw_line, draw_mask = ImageDraw.Draw(flat), ImageDraw.Draw(line), ImageDraw.Draw(mask)
    pixel = side / 64
    for shape in shapes:
        points = [(x * side, y * side) for x, y in shape.points]
        closed = [*points, points[0]]
        draw_flat.polygon(points, fill=shape.colour)
        if shape.contour:
            draw_line.polygon(points, fill=0)
            draw_line.line(closed, fill=255, width=round((1.35 if shape.subject else 0.9) * pixel), joint="curve")
        if shape.subject:
            draw_mask.polygon(points, fill=255)
            if shape.contour:
                draw_flat.line(closed, fill=darker(shape.colour, 0.68), width=round(0.75 * pixel), joint="curve")
    return Layers(_plane(flat), _plane(line), _plane(mask), size, seed)


def finish(picture: Plane) -> Image.Image:
    """Supersampled floats in 0..1 → the finished RGB image."""
    image = Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8), "RGB")
    return image.reduce(SUPERSAMPLING)


def blur(plane: Plane, radius: float) -> Plane:
    """Gaussian blur of a (h, w) or (h, w, 3) plane; `radius` in pixels of a 64-pixel picture."""
    pixels = radius * plane.shape[0] / 64
    image = Image.fromarray((np.clip(plane, 0, 1) * 255 + 0.5).astype(np.uint8))
    return _plane(image.filter(ImageFilter.GaussianBlur(pixels)))


def cells(plane: Plane, count: int) -> Plane:
    """Mean over a lattice of `count` × `count` cells, at full resolution again."""
    side = plane.shape[0] // count
    shape = (count, side, count, side, *plane.shape[2:])
    mean = plane.reshape(shape).mean(axis=(1, 3), dtype=np.float32)
    return mean.repeat(side, axis=0).repeat(side, axis=1)


def clouds(rng: np.random.Generator, side: int, count: int) -> Plane:
    """Smooth noise (side, side) in about -1..1 with `count` × `count` blobs."""
    seeds = Image.fromarray(rng.uniform(-1, 1, (count, count)).astype(np.float32), "F")
    return np.asarray(seeds.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)


def _plane(image: Image.Image) -> Plane:
    return np.asarray(image, dtype=np.float32) / np.float32(255)
