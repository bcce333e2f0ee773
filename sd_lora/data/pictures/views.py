"""The size and the crop in which an image is seen: aspect-ratio buckets for small sets, where every image counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from PIL import Image, ImageOps

from sd_lora.config.schema import DataConfig

Size = tuple[int, int]  # width, height in pixels

#: buckets are at least this share of the trained area, and at most all of it
_SMALLEST_AREA = 0.7
#: losing one percent of a picture to the crop is as bad as training five percent fewer pixels
_AREA_FOR_CROP = 0.2
_LONGEST = 4


@dataclass(frozen=True)
class Framing:
    """Sizes in pixels, (height, width): of the `original` image and of the `target` crop, whose top left corner is
    at `crop` (top, left) once the image is scaled."""

    original: tuple[int, int]
    crop: tuple[int, int]
    target: tuple[int, int]


@dataclass(frozen=True)
class View:
    """An image scaled to cover `size` and cropped at `position`: 0 is its left or top end, 0.5 its middle, 1 the other
    end."""

    size: Size
    position: float = 0.5

    def cut(self, image: Image.Image) -> Image.Image:
        """The part of `image` that is seen, scaled to `size`."""
        if image.size == self.size:
            return image
        return ImageOps.fit(image, self.size, Image.Resampling.LANCZOS, centering=(self.position, self.position))

    def framing(self, width: int, height: int, mirrored: bool = False) -> Framing:
        """The framing of this view of an image of `width` × `height` pixels."""
        scale = max(self.size[0] / width, self.size[1] / height)
        across, down = (max(0.0, s * scale - t) for s, t in zip((width, height), self.size, strict=True))
        left = across * ((1 - self.position) if mirrored else self.position)
        return Framing((height, width), (round(down * self.position), round(left)), (self.size[1], self.size[0]))


def views_of(width: int, height: int, side: int, grain: int, config: DataConfig) -> tuple[View, ...]:
    """The views of an image of `width` × `height` pixels, all of one bucket: one if the bucket fits it, else
    ``config.crops`` of them, from one end to the other.

    `side` is the side of the square whose area is trained, the sides of buckets are multiples of `grain`.
    """
    size = bucket_for(width, height, side, grain, config)
    scale = max(size[0] / width, size[1] / height)
    slack = max(width * scale - size[0], height * scale - size[1])
    count = config.crops if slack >= config.crops else 1  # views less than a pixel apart are one
    return tuple(View(size, (number + 0.5) / count) for number in range(count))


def bucket_for(width: int, height: int, side: int, grain: int, config: DataConfig) -> Size:
    """The size in which an image is trained: the bucket that crops least, of several the largest."""
    if not config.buckets:
        smaller = min(width, height) // grain * grain
        side = side if config.upscale or min(width, height) >= side else max(grain, smaller)
        return side, side
    choices = {(side, side), *_near(width, height, side, grain)}
    if not config.upscale:
        smaller = min(side, max(grain, int((width * height) ** 0.5) // grain * grain))
        larger = {*choices, (smaller, smaller), *_near(width, height, smaller, grain)}
        choices = {c for c in larger if c[0] <= width and c[1] <= height} or {(grain, grain)}
    return min(choices, key=lambda c: (_cost(width, height, c, side), -c[0] * c[1], c))


def cropped_share(width: int, height: int, size: Size) -> float:
    """The share of an image of `width` × `height` pixels that is outside when it covers `size`."""
    scale = max(size[0] / width, size[1] / height)
    return 1 - size[0] * size[1] / (width * height * scale * scale)


def _columns(side: int, grain: int) -> Iterator[tuple[int, range]]:
    """Each width of buckets, and its heights: multiples of `grain`, up to four times as long as wide, of nearly the
    area of `side` × `side`."""
    for width in range(grain, 2 * side + 1, grain):
        least = max(ceil(_SMALLEST_AREA * side * side / width), ceil(width / _LONGEST))
        most = min(side * side // width, _LONGEST * width)
        heights = range(ceil(least / grain) * grain, most + 1, grain)
        if heights:
            yield width, heights


def _near(width: int, height: int, side: int, grain: int) -> Iterator[Size]:
    """The buckets of which one is best for an image: for each width the two heights around the image's shape, and
    the largest. All buckets would be hundreds of thousands if `side` is large."""
    for across, heights in _columns(side, grain):
        place = (across * height // width - heights.start) // grain
        for k in {place, place + 1, len(heights) - 1}:
            yield across, heights[min(max(k, 0), len(heights) - 1)]


def _cost(width: int, height: int, size: Size, side: int) -> float:
    unused = 1 - size[0] * size[1] / (side * side)
    return cropped_share(width, height, size) + _AREA_FOR_CROP * unused
