"""Bytes of images that Pillow does not write: PNG, TIFF and colour profiles built by hand, and changed headers."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

RED, GREEN, BLUE, YELLOW = (220, 40, 40), (40, 180, 60), (40, 60, 210), (240, 220, 60)
QUARTERS = {(4, 4): RED, (44, 4): GREEN, (4, 28): BLUE, (44, 28): YELLOW}  # of a picture of 48 × 32 pixels


def quarters(mode: str = "RGB") -> Image.Image:
    """48 × 32 pixels, every quarter of its own colour, so that every turn of it shows."""
    image = Image.new("RGB", (48, 32), RED)
    for colour, box in ((GREEN, (24, 0, 48, 16)), (BLUE, (0, 16, 24, 32)), (YELLOW, (24, 16, 48, 32))):
        image.paste(colour, box)
    return image.convert(mode)


def noise(width: int = 64, height: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def stored(upright: Image.Image, orientation: int) -> Image.Image:
    """How a camera stores `upright` under an EXIF orientation: where row 0 and column 0 lie is the text of EXIF 2.3."""
    a = np.asarray(upright)
    turned = {
        1: a,  # row 0 at the top, column 0 on the left
        2: a[:, ::-1],  # top, right
        3: a[::-1, ::-1],  # bottom, right
        4: a[::-1],  # bottom, left
        5: a.swapaxes(0, 1),  # left, top
        6: a.swapaxes(0, 1)[::-1],  # right, top
        7: a.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
        8: a.swapaxes(0, 1)[:, ::-1],  # left, bottom
    }[orientation]
    return Image.fromarray(np.ascontiguousarray(turned))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def oriented(orientation: Any) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(size: tuple[int, int], depth: int, colour_type: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG of raw `rows`, each with its filter byte; `extra` are whole chunks before the pixels."""
    header = struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(extra) + pixels + chunk(b"IEND", b"")


def tiff(
    size: tuple[int, int], bits: int, data: bytes, *, photometric: int = 1, channels: int = 1, kind: int = 1,
    order: str = "<", extra: int | None = None,
) -> bytes:  # fmt: skip
    """An uncompressed TIFF of one strip; `kind` 1 unsigned, 2 signed, 3 floating point; `extra` says what alpha is."""
    tags = {256: size[0], 257: size[1], 258: bits, 259: 1, 262: photometric, 277: channels, 278: size[1], 339: kind}
    tags |= {273: 0, 279: len(data)} | ({} if extra is None else {338: extra})
    end = 8 + 2 + 12 * len(tags) + 4
    tags[273] = end + 2 * 2 * channels
    entries, tail = b"", b""
    for tag, value in sorted(tags.items()):
        if tag in (258, 339) and channels > 2:
            entries += struct.pack(order + "HHII", tag, 3, channels, end + len(tail))
            tail += struct.pack(order + "H" * channels, *[value] * channels)
        elif tag in (258, 339):
            entries += struct.pack(order + "HHIHH", tag, 3, channels, *([value] * channels + [0])[:2])
        else:
            entries += struct.pack(order + "HHII", tag, 4, 1, value)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(tags))
    return (head + entries + b"\0" * 4 + tail).ljust(tags[273], b"\0") + data


def profile(space: bytes, tags: dict[bytes, bytes], pcs: bytes = b"XYZ ") -> bytes:
    """An ICC profile, version 2.1, of the colour `space`, from its `tags`."""
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(data))
        body += data.ljust(-len(data) % 4 + len(data), b"\0")
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"test", 0x02100000, b"mntr", space, pcs)
    head += b"\0" * 12 + b"acsp" + b"\0" * 28 + _fixed(0.9642, 1.0, 0.8249)
    return head.ljust(128, b"\0") + table + body


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(*values)


def _gamma(value: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256)) + b"\0\0"


def wide_profile() -> bytes:
    """An RGB profile with the primaries of Adobe RGB (1998), adapted to D50, and its gamma."""
    red, green, blue = (0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)
    tags = {b"rXYZ": _xyz(*red), b"gXYZ": _xyz(*green), b"bXYZ": _xyz(*blue), b"wtpt": _xyz(0.9642, 1.0, 0.8249)}
    return profile(b"RGB ", tags | {name: _gamma(2.2) for name in (b"rTRC", b"gTRC", b"bTRC")})


def grey_profile(gamma: float) -> bytes:
    return profile(b"GRAY", {b"wtpt": _xyz(0.9642, 1.0, 0.8249), b"kTRC": _gamma(gamma)})


def cmyk_profile() -> bytes:
    """A profile whose inks only darken: lightness falls with their sum, and all is grey."""
    ramp, grid = bytes(range(256)), b""
    for corner in range(16):  # two points for each ink, black changing fastest
        grid += bytes((255 - min(4, corner.bit_count()) * 255 // 4, 128, 128))
    identity = _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + ramp * 4 + grid + ramp * 3
    return profile(b"CMYK", {b"wtpt": _xyz(0.9642, 1.0, 0.8249), b"A2B0": table}, pcs=b"Lab ")


def without_segment(jpeg: bytes, marker: int) -> bytes:
    """`jpeg` less its first segment of that marker."""
    start = jpeg.index(bytes((0xFF, marker)))
    length = struct.unpack(">H", jpeg[start + 2 : start + 4])[0]
    return jpeg[:start] + jpeg[start + 2 + length :]


def with_size(content: bytes, offset: int, form: str, size: Sequence[int]) -> bytes:
    """`content` whose header claims another size, packed by `form` at `offset`."""
    claim = struct.pack(form, *size)
    return content[:offset] + claim + content[offset + len(claim) :]
