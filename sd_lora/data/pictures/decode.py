"""Decode any picture that users bring, or say in one sentence why not; nothing else reads image files."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageChops, ImageColor, ImageFile, UnidentifiedImageError

from sd_lora.data.findings import Finding
from sd_lora.data.pictures import pixels
from sd_lora.data.pictures.pixels import NoWhite, layers, orientation_of, turn_upright
from sd_lora.errors import DataError, printable

MAX_PIXELS = 100_000_000
_MAX_BYTES = 1_000_000_000
_LARGE_PIXELS, _LARGE_BYTES = 25_000_000, 100_000_000
_START = 1024  # bytes that show what a file is
_MOST_PER_BYTE = 10_000  # a large picture with more pixels for each byte of its file is a false claim, or blank
_large = threading.RLock()  # large files are read and decoded one at a time, however many threads there are

_SUFFIXES = {
    "PNG": ".png .apng", "JPEG": ".jpg .jpeg .jpe .jfif .mpo .jpg_large .jpeg_large .jpg_orig",
    "WEBP": ".webp", "BMP": ".bmp .dib",
    "TIFF": ".tif .tiff", "GIF": ".gif", "AVIF": ".avif", "HEIF": ".heic .heif .hif",
}  # fmt: skip
_FORMAT_OF = {suffix: name for name, suffixes in _SUFFIXES.items() for suffix in suffixes.split()}
_KIN = {"MPO": "JPEG", "DIB": "BMP"}  # formats that share their endings
_OPENED = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF")
IMAGE_SUFFIXES = frozenset(_FORMAT_OF)
#: kinds that begin like nothing else; a text may begin like a BMP, and a video like a HEIF
_PLAIN_TO_SEE = frozenset({"PNG", "JPEG", "WEBP", "TIFF", "GIF", "AVIF"})
_HEIC = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1")

_KINDS = {
    "a JPEG XL file, for which no reader has a licence that fits": ".jxl",
    "a file of layers": ".psd .psb .xcf .kra .clip",
    "a drawing of shapes, not of pixels": ".svg .svgz .eps .ai .emf .wmf",
    "a camera's raw file": ".raw .arw .cr2 .cr3 .crw .dng .erf .nef .nrw .orf .pef .raf .rw2 .sr2 .srw .x3f .3fr",
    "a file of light without an agreed white": ".exr .hdr",
    "an icon": ".ico .cur .icns",
    "a JPEG 2000 file": ".jp2 .j2k .jpf .jpx .j2c",
    "a file of a rare kind": ".tga .ppm .pgm .pbm .pnm .pfm .pcx .dds .qoi .sgi .jxr .wdp .bpg",
}
FOREIGN_SUFFIXES = {suffix: kind for kind, suffixes in _KINDS.items() for suffix in suffixes.split()}
_MAGIC = {
    b"\xff\x0a": ".jxl", b"\0\0\0\x0cJXL ": ".jxl", b"8BPS": ".psd", b"gimp xcf": ".xcf", b"%!PS": ".eps",
    b"\xc5\xd0\xd3\xc6": ".eps", b"<svg": ".svg", b"v/1\x01": ".exr", b"#?RADIANCE": ".hdr", b"\0\0\1\0": ".ico",
    b"\0\0\0\x0cjP  ": ".jp2", b"\xff\x4f\xff\x51": ".j2k", b"DDS ": ".dds", b"qoif": ".qoi", b"FUJIFILM": ".raf",
}  # fmt: skip

# Pillow warns about what is checked here anyway; catching that for each picture would not be thread-safe.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class PictureError(DataError):
    """A picture that cannot be used: its `code` is one of CODES, `detail` what was found."""

    def __init__(self, code: str, name: str, detail: str) -> None:
        super().__init__(Finding(code, printable(name), detail).message)
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class Picture:
    """A decoded picture: `image` is RGB, sRGB and upright, `alpha` (mode L) how opaque it is, None if completely,
    `digest` the SHA-256 of its file in hexadecimal, `format` Pillow's name of its kind, `remarks` (code, detail) are
    worth knowing, `jpeg_quality` from 1 to 100 for a JPEG.
    """

    image: Image.Image
    digest: str
    format: str
    remarks: tuple[tuple[str, str], ...] = ()
    jpeg_quality: float | None = None
    alpha: Image.Image | None = None


def read_picture(file: Path, background: str = "white") -> Picture:
    """The picture in `file`; transparent parts show the colour `background`. PictureError if there is none."""
    with _turn_of(_size_of(file), _LARGE_BYTES):
        return decode(read_bytes(file), file.name, background)


def read_mask(file: Path, size: tuple[int, int]) -> Image.Image:
    """The mask in `file`, as decode_mask gives it."""
    with _turn_of(_size_of(file), _LARGE_BYTES):
        return decode_mask(read_bytes(file), file.name, size)


def decode_mask(content: bytes, name: str, size: tuple[int, int]) -> Image.Image:
    """The mask (mode L) in the `content` of a file called `name`, at the `size` (width, height) of the upright image it
    belongs to.

    Transparent parts are black; if there is only one colour, the mask is the alpha channel. PictureError if it
    cannot be read or has another shape.
    """
    with _opened(content, name) as image:
        mask, alpha = layers(image)
        orientation = orientation_of(image)
        if mask.mode != "L":
            mask = (mask if mask.mode == "RGB" else mask.convert("RGB")).convert("L")
        mask = _released(mask, image)
        if alpha is not None:
            lowest, highest = mask.getextrema()
            mask = alpha if lowest == highest else ImageChops.multiply(mask, alpha)
        turn_upright(mask, orientation)
    width, height = mask.size
    if abs(width * size[1] / (height * size[0]) - 1) > 0.01:
        raise PictureError("mask-size", name, f"{width} × {height} pixels for an image of {size[0]} × {size[1]}")
    return mask if mask.size == size else mask.resize(size, Image.Resampling.BILINEAR)


def decode(content: bytes, name: str, background: str = "white") -> Picture:
    """The picture in the `content` of a file called `name`, as read_picture gives it."""
    behind = check_colour(background)
    remarks = []
    with _opened(content, name) as image:
        kind = image.format or ""
        ending = suffix_of(name)
        if _FORMAT_OF.get(ending) != _KIN.get(kind, kind):
            remarks.append(("image-extension", f"{kind} data under the ending {ending or '(none)'}"))
        # Counting frames takes time quadratic in their number for a TIFF. An MPO holds the same view again: for the
        # other eye, as a preview or as a gain map.
        if kind != "MPO" and getattr(image, "is_animated", False):
            remarks.append(("image-animated", "several frames"))
        colour, alpha = layers(image)
        orientation, quality = orientation_of(image), pixels.jpeg_quality(image)
        picture, unused = pixels.to_srgb(colour, image.info.get("icc_profile"))
        if unused:
            remarks.append(("image-profile", unused))
        picture = _released(picture, image)
        if alpha is not None:
            remarks.append(pixels.about_alpha(alpha))
            picture.paste(behind, None, ImageChops.invert(alpha))
            turn_upright(alpha, orientation)
        turn_upright(picture, orientation)
        return Picture(picture, digest_of(content), kind, tuple(remarks), quality, alpha)


def digest_of(content: bytes) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _released(picture: Image.Image, source: ImageFile.ImageFile) -> Image.Image:
    """`picture` without the other pixels of its `source`, which take as much memory again."""
    alone = picture._new(picture.im) if picture is source else picture  # a copy would take that memory too
    source.close()
    return alone


def check_colour(text: str) -> tuple[int, int, int]:
    """Red, green and blue of the colour `text`; DataError if it cannot be data.background."""
    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
        if max(red, green, blue) > 255:
            raise ValueError
    except ValueError as error:
        raise DataError(
            f'data.background is not a colour: "{printable(text)}"; name one, such as white, or give #rrggbb'
        ) from error
    return red, green, blue


def read_bytes(file: Path) -> bytes:
    """The content of `file`, or only its beginning if no picture that is read begins so.

    PictureError if it cannot be read, is not a regular file, or is too large for any picture.
    """
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder, not a file" if stat.S_ISDIR(status.st_mode) else "a pipe or device, not a file"
            raise PictureError("image-unreadable", file.name, kind)
        if status.st_size > _MAX_BYTES:
            raise PictureError("image-oversized", file.name, f"{status.st_size / 1e9:.1f} GB")
        with file.open("rb") as opened:
            start = opened.read(_START)
            if not _kinds_of(start):
                return start
            opened.seek(0)
            return opened.read()
    except (OSError, ValueError, MemoryError) as error:
        raise PictureError("image-unreadable", file.name, _why_not_read(file, error)) from error


def holds_image(file: Path) -> bool:
    """Whether `file` begins like an image of a kind that is read, whatever its name."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return False
        with file.open("rb") as opened:
            start = opened.read(_START)
    except (OSError, ValueError):
        return False
    return bool(_PLAIN_TO_SEE.intersection(_kinds_of(start))) or start[4:12] in _HEIC


def _size_of(file: Path) -> int:
    """The size of `file` in bytes; 0 if that fails, which reading it then explains."""
    try:
        return file.stat().st_size
    except (OSError, ValueError):
        return 0


def _kinds_of(start: bytes) -> list[str]:
    """The kinds of picture that may begin with `start`."""
    Image.init()
    padded = start[:16].ljust(16, b"\0")
    kinds = [kind for kind in _OPENED if (accepts := Image.OPEN[kind][1]) and accepts(padded)]
    return kinds or ["HEIF"] * (start[4:8] == b"ftyp")


def _why_not_read(file: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "a link that leads nowhere" if file.is_symlink() else "there is no such file"
    if isinstance(error, OSError):
        looped = "symbolic links" in str(error)
        return "a link that leads in a circle" if looped else (error.strerror or str(error)).lower()
    return printable(str(error)) or "not enough memory"


@contextmanager
def _opened(content: bytes, name: str) -> Iterator[ImageFile.ImageFile]:
    """The image in `content`, its header read and its size checked. Whatever fails in the body is a PictureError."""
    try:
        with _open(content, name) as image, _turn_of(image.width * image.height, _LARGE_PIXELS):
            yield image
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise _unknown(content, name) from error
    except Image.DecompressionBombError as error:
        raise PictureError("image-oversized", name, "far more than 100 megapixels") from error
    except NoWhite as error:
        raise PictureError("image-unsupported", name, str(error)) from error
    except Exception as error:  # Pillow's decoders raise at least six kinds for a damaged file
        raise PictureError("image-unreadable", name, _why_damaged(error)) from error


def _open(content: bytes, name: str) -> ImageFile.ImageFile:
    heif = content[4:8] == b"ftyp" and _reads_heif()
    image = Image.open(io.BytesIO(content), formats=[*_OPENED, "HEIF"] if heif else _OPENED)
    if image.format == "TIFF" and (kind := FOREIGN_SUFFIXES.get(suffix_of(name))):  # its thumbnail would open
        raise PictureError("image-unsupported", name, kind)
    count = image.width * image.height
    if count > MAX_PIXELS:
        raise PictureError("image-oversized", name, f"{image.width} × {image.height} pixels")
    if count > max(_LARGE_PIXELS, _MOST_PER_BYTE * len(content)):
        claim = f"{image.width} × {image.height} pixels claimed in {len(content)} bytes"
        raise PictureError("image-unreadable", name, claim)
    return image


def _turn_of(amount: int, most: int) -> AbstractContextManager[object]:
    return _large if amount > most else nullcontext()


@cache
def _reads_heif() -> bool:
    try:
        import pi_heif
    except ImportError:
        return False
    pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    return True


def _unknown(content: bytes, name: str) -> PictureError:
    """Why Pillow finds no image in `content`."""
    if not content:
        return PictureError("image-unreadable", name, "0 bytes")
    text = content[:_START].lstrip(b"\xef\xbb\xbf \t\r\n")
    known = next((suffix for magic, suffix in _MAGIC.items() if content.startswith(magic)), "")
    if text.startswith((b"<?xml", b"<!--", b"<!DOCTYPE svg", b"<svg")) and b"<svg" in text:
        known = ".svg"
    if content[4:12] in _HEIC and not _reads_heif():
        return PictureError("image-unsupported", name, 'a HEIC file, which needs pip install "sd-lora[heic]"')
    kinds = _kinds_of(content)
    if kinds in ([], ["HEIF"]) and (kind := FOREIGN_SUFFIXES.get(known or suffix_of(name))):
        return PictureError("image-unsupported", name, kind)
    if kinds:
        return PictureError("image-unreadable", name, f"{kinds[0]} data that is damaged or of a rare kind")
    words = printable(content[:12].decode("latin-1"))
    return PictureError("image-unreadable", name, f'not an image (it starts with "{words}")')


def _why_damaged(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "not enough memory"
    message = printable((str(error).splitlines() or [type(error).__name__])[0])
    truncated = "truncated" in message.lower() or "end of file" in message.lower()
    return "the file is truncated" if truncated else f"damaged ({message})"


def suffix_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()
