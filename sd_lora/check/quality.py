"""What is wrong with a decoded picture for training: too small, blurred, compressed, bordered, blank or duplicated. How
well this is recognised is measured by benchmarks/picture_findings.py."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sd_lora.data.findings import Finding
from sd_lora.data.pictures.views import cropped_share

Remark = tuple[str, str]
Pixels = NDArray[np.uint8]

#: the side in pixels of the copy that is looked at
_SIDE = 512
_MOST_PIXELS = 40_000_000
_MOST_AREAS = 16
#: this many take no time worth mentioning, however small they are trained
_FEW_PIXELS = 4_000_000
_MOST_CROPPED = 0.2
#: how wide the sharpest edges of a blurred picture are at least: a share of its longer side, and pixels of the copy
_BLURRED_SHARE, _BLURRED_PIXELS = 0.005, 1.8
_COMPRESSED_QUALITY = 40
#: the brightness table of ITU T.81, annex K.1, by rows; what libjpeg calls quality 50
_JPEG_ROWS = """
16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99
"""
_JPEG_TABLE = np.array(_JPEG_ROWS.split(), dtype=np.float32).reshape(8, 8)
#: how far from a border's colour a pixel may be, in any channel
_SAME = 12
_SIDES = ("top", "bottom", "left", "right")
#: bits in which the hashes of two pictures differ at most if they are nearly the same
_NEAR = 6
#: mirroring a picture turns the sign of every second column of its hash's cosine transform
_MIRRORED = np.tile(np.array([1, -1], dtype=np.float32), 32)


@dataclass(frozen=True)
class Look:
    """What a picture looks like: its perceptual hash of 64 bits (0: nothing to compare), and remarks (code, detail)."""

    phash: int
    remarks: tuple[Remark, ...]


def look_at(image: Image.Image, *, trained: tuple[int, int], jpeg_quality: float | None = None) -> Look:
    """Look at an upright RGB `image` that is trained at the size `trained` (width, height); `jpeg_quality` from 1 to
    100 if its file is a JPEG.

    Blur means edges wider than about half a percent of the picture everywhere, so one thing in focus is enough. Heavy
    compression is found in the tables of the file, or in the pixels of a JPEG that was saved again in another format.
    """
    import imagehash

    copy = _fitted(image, _SIDE)
    remarks = list(_about_size(image.size, trained))
    if (quality := _compression(image, jpeg_quality)) is not None:
        remarks.append(("image-compressed", quality))
    pixels = np.asarray(copy)
    if _is_blank(pixels):
        return Look(0, (*remarks, ("image-blank", f"almost all of it has the colour {_hex(pixels.mean((0, 1)))}")))
    if border := _border(pixels, max(image.size) / max(copy.size)):
        remarks.append(("image-bordered", border))
    if width := _blur(copy):
        remarks.append(("image-blurred", f"even its sharpest edges are about {width:.1%} of its length wide"))
    return Look(int(str(imagehash.phash(copy)), 16), tuple(remarks))


def thumbnail(image: Image.Image, side: int = 176) -> bytes:
    """`image` as a small JPEG that fits a square of `side` pixels."""
    file = io.BytesIO()
    _fitted(image, side).save(file, "JPEG", quality=80, optimize=True)
    return file.getvalue()


def duplicates(names: Sequence[str], digests: Sequence[str], hashes: Sequence[int]) -> list[Finding]:
    """Pictures that are the same file as an earlier one, or look almost the same as it or as its mirror image.

    `digests` are of the files' bytes, `hashes` those of `Look.phash`. Time is quadratic in the number of pictures
    (about 1 s for 10,000), memory linear.
    """
    findings, first, compared = list[Finding](), dict[str, int](), list[int]()
    for i, digest in enumerate(digests):
        if digest in first:
            findings.append(Finding("image-duplicate", names[i], f"the same as {names[first[digest]]}"))
            continue
        first[digest] = i
        if hashes[i]:
            compared.append(i)
    for later, earlier, how in _near([hashes[i] for i in compared]):
        detail = f"almost {how} {names[compared[earlier]]}"
        findings.append(Finding("image-near-duplicate", names[compared[later]], detail))
    return findings


def _near(hashes: Sequence[int]) -> Iterator[tuple[int, int, str]]:
    """(later, earlier, how) for every hash that is near an earlier one."""
    if not hashes:
        return
    packed = np.array(hashes, dtype=">u8").view(np.uint8).reshape(len(hashes), 8)
    signs = np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1  # (n, 64); a product is 64 - 2 · distance
    for start in range(0, len(hashes), 512):
        block = signs[start : start + 512]
        earlier = np.tri(len(block), start + len(block), start - 1, dtype=bool)
        for turned, how in ((block, "the same as"), (block * _MIRRORED, "the mirror image of")):
            near: NDArray[np.bool_] = np.logical_and(turned @ signs[: start + len(block)].T >= 64 - 2 * _NEAR, earlier)
            for row in np.flatnonzero(near.any(1)):
                yield start + int(row), int(near[row].argmax()), how
            earlier &= ~near.any(1, keepdims=True)


def _fitted(image: Image.Image, side: int) -> Image.Image:
    """`image` reduced so that it fits a square of `side` pixels; never upscaled."""
    scale = min(1.0, side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=1.1)


def _about_size(size: tuple[int, int], trained: tuple[int, int]) -> Iterator[Remark]:
    """Remarks on the size (width, height) of a picture and the size at which it is trained."""
    width, height = size
    scale = max(trained[0] / width, trained[1] / height)
    cropped = cropped_share(width, height, trained)
    if scale > 1.05:
        yield "image-tiny" if scale > 2 else "image-small", f"{width} × {height}, upscaled {scale:.1f} times"
    if width * height > max(_FEW_PIXELS, min(_MOST_PIXELS, _MOST_AREAS * trained[0] * trained[1])):
        yield "image-huge", f"{width} × {height}, trained at {trained[0]} × {trained[1]}"
    if cropped > _MOST_CROPPED:
        yield "image-aspect", f"{width} × {height}, of which {cropped:.0%} is cropped away"


def _is_blank(pixels: Pixels) -> bool:
    """Whether all but a thousandth of the picture is of nearly one colour."""
    for channel in range(3):
        below = np.cumsum(np.bincount(pixels[..., channel].ravel(), minlength=256))
        low, high = np.searchsorted(below, [0.0005 * below[-1], 0.9995 * below[-1]])
        if high - low > _SAME:
            return False
    return True


def _blur(copy: Image.Image) -> float | None:
    """The width of the sharpest strong edges, a share of the longer side, if that makes the picture blurred.

    An edge of width s is weakened by another blur of width r to 1 / sqrt(1 + r² / s²) (Zhuo and Sim, Defocus map
    estimation from a single image, 2011), which gives s.
    """
    from scipy.ndimage import gaussian_filter

    if min(copy.size) < 8:  # no room for an edge
        return None
    calm = gaussian_filter(np.asarray(copy.convert("L"), dtype=np.float32), 1.0)  # so that grain is not an edge
    slope, softer = _slope(calm), _slope(gaussian_filter(calm, 2.0))
    strong = slope >= max(0.4 * np.quantile(slope, 0.998), 1.5)
    if strong.sum() < 30:
        return None
    ratio = np.maximum(slope[strong] / np.maximum(softer[strong], 1e-6), 1.0001)
    width = float(np.quantile(2.0 / np.sqrt(ratio**2 - 1), 0.1))
    longest = max(copy.size)
    return width / longest if width > max(_BLURRED_SHARE * longest, _BLURRED_PIXELS) else None


def _slope(grey: NDArray[Any]) -> NDArray[Any]:
    down, across = np.gradient(grey)
    return np.hypot(down, across)


def _compression(image: Image.Image, quality: float | None) -> str | None:
    """How heavily a JPEG was compressed; None for a good one and for other pictures.

    A JPEG's blocks of 8 × 8 pixels have no frequency weaker than half a step of its table, which still shows after it
    was saved again without loss.
    """
    from scipy.fft import dctn

    if quality is not None and quality < _COMPRESSED_QUALITY:
        return f"JPEG quality {quality:.0f} of 100"
    blocks = _blocks(image)
    low, high = blocks.min((1, 2)), blocks.max((1, 2))
    # where a colour is at its limit the decoder has clipped it
    intact = (low > 0).all(-1) & (high < 255).all(-1) & (high - low > 4).any(-1)
    grey = blocks[intact] @ np.array([0.299, 0.587, 0.114], dtype=np.float32)  # (n, 8, 8)
    if len(grey) < 16:
        return None
    strength = np.abs(np.asarray(dctn(grey, axes=(1, 2), norm="ortho")))
    strength[:, 0, 0] = 0
    there = strength > 3
    weak = there & (strength < 1.2 * _JPEG_TABLE)
    if weak.sum() < 0.15 * there.sum():
        return "the blocks of a JPEG of low quality, saved again"
    return None


def _blocks(image: Image.Image) -> Pixels:
    """At most about 2,048 blocks (n, 8, 8, 3) from bands all over `image`, on the lattice of a JPEG."""
    width, rows = image.width // 8, image.height // 8
    if not width or not rows:
        return np.empty((0, 8, 8, 3), dtype=np.uint8)
    step = max(1, -(-width * rows // 2048))
    bands = [np.asarray(image.crop((0, 8 * row, 8 * width, 8 * row + 8))) for row in range(0, rows, step)]
    return np.stack(bands).reshape(len(bands), 8, width, 8, 3).swapaxes(1, 2).reshape(-1, 8, 8, 3)


def _border(pixels: Pixels, scale: float) -> str | None:
    """Which sides have a border of one colour that ends in a straight, sharp edge, and how wide in pixels of the
    original, which is `scale` times as large; None unless two opposite sides have one of the same colour."""
    turned = [pixels, pixels[::-1], pixels.swapaxes(0, 1), pixels.swapaxes(0, 1)[::-1]]
    colours = [np.median(side[0], axis=0) for side in turned]
    depths = [_depth(side, colour) for side, colour in zip(turned, colours, strict=True)]
    edged = []
    for i, (side, colour, depth) in enumerate(zip(turned, colours, depths, strict=True)):
        near, far = depths[2:] if i < 2 else depths[:2]
        edged.append(bool(depth) and _ends_sharply(side[:, near : side.shape[1] - far], colour, depth))
    pairs = [
        (a, b) for a, b in ((0, 1), (2, 3)) if edged[a] and edged[b] and np.abs(colours[a] - colours[b]).max() <= _SAME
    ]
    top, bottom, left, right = depths
    inside = pixels[top : pixels.shape[0] - bottom, left : pixels.shape[1] - right]
    if not pairs or _is_blank(inside):
        return None
    widths = ", ".join(f"{depths[i] * scale:.0f} px {_SIDES[i]}" for pair in pairs for i in pair)
    return f"{_hex(colours[pairs[0][0]])}: {widths}"


def _depth(side: Pixels, colour: NDArray[np.floating]) -> int:
    """How many first rows of `side` have that colour; 0 if they are too few or too many for a border."""
    least, most = max(2, round(0.015 * side.shape[0])), int(0.4 * side.shape[0])
    for depth in range(most):
        if (np.abs(side[depth] - colour).max(-1) <= _SAME).mean() < 0.98:
            return depth if depth >= least else 0
    return 0


def _ends_sharply(side: Pixels, colour: NDArray[np.floating], depth: int) -> bool:
    """Whether most columns of `side` leave the border's colour at the same row, and abruptly."""
    rows = side[: depth + 10].astype(np.int16)  # JPEG's ringing may have frayed the last 8 rows of the border
    other = np.abs(rows - colour).max(-1) > _SAME
    ends = np.where(other.any(0), other.argmax(0), len(rows))
    row = int(np.bincount(ends[ends < len(rows)], minlength=1).argmax())
    jump = np.abs(rows[min(row + 1, len(rows) - 1)] - rows[max(row - 2, 0)]).max(-1) > _SAME
    return float(((np.abs(ends - row) <= 1) & jump).mean()) >= 0.6


def _hex(colour: NDArray[np.floating]) -> str:
    return "#" + "".join(f"{round(float(value)):02x}" for value in colour)
