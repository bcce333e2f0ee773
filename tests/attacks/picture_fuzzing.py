"""Mutate good pictures and decode them: each becomes an RGB picture or is refused in one line, soon and in bounds.

python tests/attacks/picture_fuzzing.py --count 100000 --seed 0
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import random
import resource
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms

from sd_lora.data.findings import CODES
from sd_lora.data.pictures import decode as pictures
from sd_lora.data.pictures.decode import PictureError, read_picture

HEIC = Path(__file__).parents[1] / "data" / "pictures" / "files" / "small.heic"
MOST_MEGABYTES, HANGS = 1000, 20.0
UNITS = 2**20 if sys.platform == "darwin" else 2**10  # of ru_maxrss in a megabyte
PNG_START = b"\x89PNG\r\n\x1a\n"
LENGTHS = (0, 1, 2, 127, 128, 255, 256, 4096, 9999, 32767, 32768, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


@dataclass
class Row:
    """What became of the mutants of one seed."""

    name: str
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    megabytes: int = 0


def seeds() -> dict[str, tuple[str, bytes]]:
    """Small good files by name, each with its ending; between them they hold every kind of data beside the pixels."""
    rng = random.Random(0)
    rgb = Image.frombytes("RGB", (24, 16), rng.randbytes(24 * 16 * 3))
    ramp = Image.linear_gradient("L").resize((16, 16))
    frames: dict[str, Any] = {"save_all": True, "append_images": [rgb.transpose(Image.Transpose.ROTATE_180)]}
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    known = {"exif": exif, "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}

    def made(image: Image.Image, kind: str, **options: Any) -> bytes:
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    clear = rgb.copy()
    clear.putalpha(ramp.resize(rgb.size))
    wide = Image.frombytes("I;16", (16, 16), rng.randbytes(512))
    return {
        "PNG": ("png", made(clear, "PNG", **known)),
        "PNG palette": ("png", made(rgb.quantize(16), "PNG", transparency=bytes(range(0, 256, 16)))),
        "PNG 16-bit": ("png", made(wide, "PNG")),
        "APNG": ("apng", made(rgb, "PNG", **frames)),
        "JPEG": ("jpg", made(rgb, "JPEG", **known)),
        "JPEG progressive": ("jpg", made(rgb, "JPEG", progressive=True)),
        "JPEG CMYK": ("jpg", made(rgb.convert("CMYK"), "JPEG")),
        "MPO": ("mpo", made(rgb, "MPO", **frames)),
        "WebP lossy": ("webp", made(clear, "WEBP", **known)),
        "WebP lossless": ("webp", made(rgb, "WEBP", lossless=True)),
        "WebP animated": ("webp", made(rgb, "WEBP", **frames)),
        "BMP": ("bmp", made(rgb, "BMP")),
        "TIFF": ("tif", made(rgb, "TIFF", **known)),
        "TIFF LZW": ("tif", made(rgb, "TIFF", compression="tiff_lzw")),
        "TIFF 16-bit": ("tif", made(wide, "TIFF", compression="tiff_adobe_deflate")),
        "TIFF JPEG": ("tif", made(rgb, "TIFF", compression="jpeg")),
        "GIF": ("gif", made(rgb, "GIF", **frames)),
        "AVIF": ("avif", made(clear, "AVIF", **known)),
        "HEIC": ("heic", HEIC.read_bytes()),
    }


Mutation = Callable[[bytes, bytes, random.Random], bytes]  # of a file, beside another of any kind


def bits(content: bytes, _: bytes, rng: random.Random) -> bytes:
    mutant = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        mutant[rng.randrange(len(mutant))] ^= 1 << rng.randrange(8)
    return bytes(mutant)


def run(content: bytes, _: bytes, rng: random.Random) -> bytes:
    place, length = rng.randrange(len(content)), rng.randrange(1, 33)
    filled = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    return content[:place] + filled + content[place + length :]


def cut(content: bytes, _: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def spliced(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """The start of one file and the end of another."""
    return content[: rng.randrange(len(content))] + other[rng.randrange(len(other)) :]


def headed(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """One file under the first bytes of another."""
    length = rng.choice((4, 8, 12, 16, 33))
    return other[:length] + content[length:]


def lengthened(content: bytes, _: bytes, rng: random.Random) -> bytes:
    """A field of 1, 2 or 4 bytes, most often near the start where the headers are, set to a telling number."""
    place = rng.randrange(min(len(content), rng.choice((40, 40, 200, len(content)))))
    form = rng.choice("BHHIIII")
    value = struct.pack(rng.choice("<>") + form, rng.choice(LENGTHS) % 256 ** struct.calcsize(form))
    return content[:place] + value + content[place + len(value) :]


def doubled(content: bytes, _: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    part = content[start : start + rng.choice((1, 8, 64, len(content)))]
    return content[:start] + part * rng.randrange(2, 5) + content[start + len(part) :]


def dropped(content: bytes, _: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + content[place + rng.randrange(1, 33) :]


MUTATIONS: tuple[Mutation, ...] = (bits, bits, run, cut, spliced, headed, lengthened, lengthened, doubled, dropped)


def mended(content: bytes) -> bytes:
    """A PNG with the checksums its chunks should have; without this nearly every mutant would stop at them."""
    made, place = PNG_START, len(PNG_START)
    while content.startswith(PNG_START) and place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        body = content[place + 4 : place + 8 + length]
        made += content[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return made if place > len(PNG_START) else content


def outcome(path: Path) -> str:
    """ "read" or the code of the refusal; AssertionError for a picture or sentence that is not whole."""
    try:
        picture = read_picture(path)
    except PictureError as error:
        return _checked(error)
    assert type(picture.image) is Image.Image
    assert picture.image.mode == "RGB"
    assert 0 < picture.image.width * picture.image.height <= pictures.MAX_PIXELS
    assert len(picture.digest) == 64
    assert all(code in CODES and detail for code, detail in picture.remarks)
    assert picture.jpeg_quality is None or 1 <= picture.jpeg_quality <= 100
    return "read"


def _checked(error: PictureError) -> str:
    assert error.detail
    assert str(error).isprintable()
    assert CODES[error.code].severity == "error"
    return error.code


def fuzz(name: str, count: int, seed: int, folder: Path) -> Row:
    """`count` mutants of the seed `name`; the one that fails stays in `folder`, whatever becomes of this process."""
    rng, files, row = random.Random(f"{seed} {name}"), seeds(), Row(name)
    ending, good = files[name]
    others = [content for _, content in files.values()]
    path = folder / f"{name}.{ending}"
    for _ in range(count):
        mutant = good
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            mutant = rng.choice(MUTATIONS)(mutant or good, rng.choice(others), rng)
        path.write_bytes(mended(mutant) if rng.random() < 0.7 else mutant)
        faulthandler.dump_traceback_later(HANGS, exit=True)  # a library that never returns ends the process
        start = time.process_time()  # of this process alone, however busy the machine is
        row.outcomes[outcome(path)] += 1
        taken = time.process_time() - start
        faulthandler.cancel_dump_traceback_later()
        row.slowest = max(row.slowest, taken)
        row.megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // UNITS
        assert row.megabytes <= MOST_MEGABYTES, f"{row.megabytes} MB for {path}"
    path.unlink()
    return row


def fuzz_all(count: int, seed: int, folder: Path) -> list[Row]:
    """About `count` mutants, an equal share of each seed, whose process is its own: a crash names its seed."""
    names, rows = list(seeds()), []
    for name in names:
        with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
            rows.append(pool.submit(fuzz, name, -(-count // len(names)), seed, folder).result())
    return rows


def table(rows: list[Row]) -> str:
    codes = ("read", "image-unreadable", "image-unsupported", "image-oversized")
    cells = [["seed", "mutants", *(code.removeprefix("image-") for code in codes), "slowest ms", "peak MB"]]
    for row in rows:
        counts = [row.outcomes[code] for code in codes]
        cells.append([row.name, *map(str, (sum(counts), *counts, round(row.slowest * 1000), row.megabytes))])
    return "\n".join(f"{name:18}" + "".join(f"{cell:>13}" for cell in rest) for name, *rest in cells)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    folder, started = Path(tempfile.mkdtemp(prefix="picture-fuzz-")), time.perf_counter()
    rows = fuzz_all(asked.count, asked.seed, folder)
    print(table(rows))
    total = sum(sum(row.outcomes.values()) for row in rows)
    print(f"{total} mutants from seed {asked.seed} in {time.perf_counter() - started:.0f} s")
    folder.rmdir()


if __name__ == "__main__":
    main()
