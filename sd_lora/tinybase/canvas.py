"""Layers of a picture: shapes rasterised, supersampled, as flat colours, ink lines and the subject's mask.

Third step of the renderer. Styles are functions of these layers, so no style can change the scene.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from sd_lora.tinybase.shapes import RGB, Points, Shape, darker

SUPERSAMPLING = 3
#: the side of the picture that widths and blurs are given for
UNIT = 64
Plane = NDArray[np.floating]
Pixels = list[tuple[float, float]]


@dataclass(frozen=True)
class Layers:
    """`flat` (h, w, 3) colours, `line` (h, w) ink, `mask` (h, w) subjects: float32 in 0..1, supersampled.

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
        """Coordinates x, y of every sample in pixels of the finished picture, so that marks have the same period
        (4 or 8 pixels) at every size and stay on the VAE's lattice."""
        side = self.size * SUPERSAMPLING
        axis = (np.arange(side, dtype=np.float32) + 0.5) / SUPERSAMPLING
        return np.broadcast_to(axis, (side, side)), np.broadcast_to(axis[:, None], (side, side))

    def rng(self, salt: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, salt))


def rasterise(shapes: list[Shape], size: int, seed: int) -> Layers:
    """Draw `shapes` (unit coordinates, back to front) for a picture of `size` pixels a side."""
    sheet = _Sheet(size * SUPERSAMPLING)
    for shape in shapes:
        sheet.draw(shape)
    return Layers(_plane(sheet.flat), _plane(sheet.line), _plane(sheet.mask), size, seed)


def rasterise_mask(shapes: list[Shape], size: int, subjects: Collection[int]) -> Plane:
    """What is seen of the `subjects` (1, 2), as `Layers.mask`."""
    side = size * SUPERSAMPLING
    mask = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(mask)
    for shape in shapes:
        if shape.opacity == 1:
            draw.polygon(_pixels(shape.points, side), fill=255 * (shape.subject in subjects))
    return _plane(mask)


class _Sheet:
    """The three layers while they are drawn, `side` samples a side."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.flat = Image.new("RGB", (side, side))
        self.line, self.mask = Image.new("L", (side, side), 0), Image.new("L", (side, side), 0)
        self._flat, self._line, self._mask = (ImageDraw.Draw(layer) for layer in (self.flat, self.line, self.mask))

    def draw(self, shape: Shape) -> None:
        points = _pixels(shape.points, self.side)
        if shape.fade or shape.opacity < 1 or shape.inside:
            self._paste(shape, points)
        else:
            self._flat.polygon(points, fill=shape.colour)
        if shape.opacity == 1 and not shape.inside:
            self._mask.polygon(points, fill=255 if shape.subject else 0)
            if shape.contour or not shape.subject:
                self._line.polygon(points, fill=0)
        if shape.subject and not shape.contour and max(shape.colour) < 90:
            self._line.polygon(points, fill=255)  # eyes, mouths and whiskers are ink in every drawing
        if shape.form:
            self._shade(shape, points)
        if shape.contour:
            self._outline(shape, points)

    def _outline(self, shape: Shape, points: Pixels) -> None:
        closed, pixel = [*points, *points[:2]], self.side / UNIT
        if not shape.subject:  # land ends outside the picture, so the rim of the picture is no contour
            closed = [(_beyond(x, self.side), _beyond(y, self.side)) for x, y in closed]
        if shape.inside:
            box = _bounds(points, self.side)
            ink = Image.new("L", (box[2] - box[0], box[3] - box[1]), 0)
            local = [(x - box[0], y - box[1]) for x, y in closed]
            ImageDraw.Draw(ink).line(local, fill=255, width=round(0.6 * pixel), joint="curve")
            self.line.paste(255, box, ImageChops.multiply(ink, _stencil(_pixels(shape.inside, self.side), box)))
            return
        self._line.line(
            closed, fill=round(255 * shape.contour), width=round((1.0 if shape.subject else 0.7) * pixel), joint="curve"
        )
        if shape.subject:
            self._flat.line(closed, fill=darker(shape.colour, 0.62), width=round(0.55 * pixel), joint="curve")

    def _paste(self, shape: Shape, points: Pixels) -> None:
        box = _bounds(points, self.side)
        stencil = _stencil(points, box, round(255 * shape.opacity))
        if shape.inside:
            stencil = ImageChops.multiply(stencil, _stencil(_pixels(shape.inside, self.side), box))
        if shape.fade:
            self.flat.paste(_gradient(shape.colour, shape.fade, stencil.size), box[:2], stencil)
        else:
            self.flat.paste(shape.colour, box, stencil)

    def _shade(self, shape: Shape, points: Pixels) -> None:
        """The side of a body that is turned from the light: what its own outline, moved up and left, leaves bare."""
        box = _bounds(points, self.side)
        reach = 0.11 * min(box[2] - box[0], box[3] - box[1])
        lit = _stencil([(x - reach, y - reach * 0.8) for x, y in points], box)
        self.flat.paste(darker(shape.colour, 0.84), box, ImageChops.subtract(_stencil(points, box), lit))


def _pixels(points: Points, side: int) -> Pixels:
    return [(x * side, y * side) for x, y in points]


def _beyond(place: float, side: int) -> float:
    return place if 0 < place < side else place + (side / 32 if place > 0 else -side / 32)


def _bounds(points: Pixels, side: int) -> tuple[int, int, int, int]:
    """The box of whole pixels, at least one, that holds `points` within the sheet."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    left, top = (min(max(int(low), 0), side - 1) for low in (min(xs), min(ys)))
    right, bottom = (min(max(int(high) + 2, low + 1), side) for high, low in ((max(xs), left), (max(ys), top)))
    return left, top, right, bottom


def _stencil(points: Pixels, box: tuple[int, int, int, int], value: int = 255) -> Image.Image:
    left, top, right, bottom = box
    stencil = Image.new("L", (right - left, bottom - top), 0)
    ImageDraw.Draw(stencil).polygon([(x - left, y - top) for x, y in points], fill=value)
    return stencil


def _gradient(top: RGB, bottom: RGB, size: tuple[int, int]) -> Image.Image:
    ramp = np.linspace(top, bottom, size[1]).round().astype(np.uint8)
    return Image.fromarray(ramp[:, None], "RGB").resize(size, Image.Resampling.NEAREST)


def finish(picture: Plane) -> Image.Image:
    """Supersampled floats in 0..1 → the finished RGB image."""
    image = Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8), "RGB")
    return image.reduce(SUPERSAMPLING)


def blur(plane: Plane, radius: float) -> Plane:
    """Gaussian blur of a (h, w) or (h, w, 3) plane; `radius` in pixels of a 64-pixel picture."""
    samples = radius * plane.shape[0] / UNIT
    image = Image.fromarray((np.clip(plane, 0, 1) * 255 + 0.5).astype(np.uint8))
    if radius < 1:
        return _plane(image.filter(ImageFilter.GaussianBlur(samples)))
    small = image.reduce(SUPERSAMPLING).filter(ImageFilter.GaussianBlur(samples / SUPERSAMPLING))
    return _plane(small.resize(image.size, Image.Resampling.BILINEAR))


def cells(plane: Plane, pixels: int) -> Plane:
    """Mean over a lattice of cells of `pixels` × `pixels` of the finished picture, at full resolution again."""
    side = pixels * SUPERSAMPLING
    count = plane.shape[0] // side
    mean = plane.reshape(count, side, count, side, *plane.shape[2:]).mean(axis=(1, 3), dtype=np.float32)
    return mean.repeat(side, axis=0).repeat(side, axis=1)


def clouds(rng: np.random.Generator, side: int, count: int) -> Plane:
    """Smooth noise (side, side) in about -1..1 with `count` × `count` blobs."""
    seeds = Image.fromarray(rng.uniform(-1, 1, (count, count)).astype(np.float32), "F")
    return np.asarray(seeds.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)


def grain(rng: np.random.Generator, size: int) -> Plane:
    """One normal random number per pixel of the finished picture, at full resolution."""
    noise = rng.standard_normal((size, size)).astype(np.float32)
    return noise.repeat(SUPERSAMPLING, 0).repeat(SUPERSAMPLING, 1)


def _plane(image: Image.Image) -> Plane:
    return np.asarray(image, dtype=np.float32) / np.float32(255)
