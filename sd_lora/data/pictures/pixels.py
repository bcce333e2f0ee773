"""From any pixels Pillow decodes to upright 8-bit sRGB: depth, alpha, colour profile and orientation of a picture."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from functools import cache

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageCms, ImageFile, ImageOps

#: colours that show whether a profile is practically sRGB
_PROBE = bytes(itertools.chain.from_iterable(itertools.product((0, 32, 96, 160, 255), repeat=3)))
_MODE_OF_SPACE = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}
_FAINT = 13  # of 255: alpha below 5 % is invisible
_WHITE_IS_ZERO = (262, 0)  # TIFF's PhotometricInterpretation
_TILE = 2048  # wide and transparent pixels are converted in squares of this side: complete copies take gigabytes


class NoWhite(ValueError):
    """Wide pixels of which it is not known which value is white."""


def layers(image: ImageFile.ImageFile) -> tuple[Image.Image, Image.Image | None]:
    """Load `image`: its colour (mode L, RGB, CMYK or LAB) and its alpha (mode L), None if every pixel is opaque.

    Raises what Pillow raises for damaged pixels, and NoWhite.
    """
    raw = _raw_mode(image)
    _scale_colour_key(image, raw)
    image.load()
    if image.mode[0] in "IF":
        colour, alpha = _eight_bits(image, raw)
    elif image.has_transparency_data:
        colour, alpha = _parted(image)
    else:
        plain = image.mode in ("L", "RGB", "CMYK", "LAB")
        return image if plain else image.convert("L" if image.mode == "1" else "RGB"), None
    return colour, alpha if alpha is not None and alpha.getextrema() != (255, 255) else None


def _parted(image: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The colour (L or RGB) and the alpha of what is transparent."""
    mode = "LA" if image.mode in ("LA", "La") else "RGBA"
    colour, alpha = Image.new(mode[:-1], image.size), Image.new("L", image.size)
    for box in _tiles(image.size):
        piece = image.crop(box).convert(mode)
        colour.paste(piece.convert(mode[:-1]), box)
        alpha.paste(piece.getchannel("A"), box)
    return colour, alpha


def _tiles(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) that cover a picture of that `size`."""
    width, height = size
    for top, left in itertools.product(range(0, height, _TILE), range(0, width, _TILE)):
        yield left, top, min(left + _TILE, width), min(top + _TILE, height)


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """How the pixels are stored; Pillow forgets this once they are loaded."""
    args = image.tile[0].args if image.tile else None
    return str(args[0] if isinstance(args, tuple) and args else args)


def _scale_colour_key(image: Image.Image, raw: str) -> None:
    """PNG's transparent colour counts in the file's depth; Pillow scales the pixels to 8 bits, but not that colour."""
    key = image.info.get("transparency")
    if isinstance(key, int) and raw in ("L;2", "L;4"):
        image.info["transparency"] = key * (85 if raw == "L;2" else 17)
    elif isinstance(key, tuple) and raw.startswith("RGB;16"):
        image.info["transparency"] = tuple(part >> 8 for part in key)


def _eight_bits(image: Image.Image, raw: str) -> tuple[Image.Image, Image.Image | None]:
    """Wide grey as L, and its alpha if a tone is transparent: a plain conversion turns 16 bits white and 0..1 black."""
    _check_white(image)
    key, (tag, zero) = image.info.get("transparency"), _WHITE_IS_ZERO
    inverted = getattr(image, "tag_v2", {}).get(tag) == zero  # Pillow inverts 8 bits only
    white = 4095 if raw == "I;12" else 65535
    grey = Image.new("L", image.size)
    alpha = Image.new("L", image.size) if isinstance(key, int) else None
    for box in _tiles(image.size):
        values = np.asarray(image.crop(box))
        if image.mode == "F":
            levels = np.rint(values * 255).astype(np.uint8)
        else:
            levels = ((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
        grey.paste(Image.fromarray(255 - levels if inverted else levels), box)
        if alpha is not None:
            alpha.paste(Image.fromarray(((values != key) * 255).astype(np.uint8)), box)
    return grey, alpha


def _check_white(image: Image.Image) -> None:
    """NoWhite for wide pixels outside of the range whose white is known."""
    extrema = [(part.min(), part.max()) for part in (np.asarray(image.crop(box)) for box in _tiles(image.size))]
    lowest, highest = float(np.min(extrema)), float(np.max(extrema))
    if image.mode == "F":
        if not (lowest >= 0 and highest <= 1):  # also if one is not a number
            raise NoWhite(f"floating-point pixels from {lowest:g} to {highest:g}, where 0 to 1 is read")
    elif lowest < 0 or highest > 65535:
        raise NoWhite(f"whole-number pixels from {lowest:.0f} to {highest:.0f}, where 0 to 65535 is read")


def to_srgb(colour: Image.Image, icc: bytes | None) -> tuple[Image.Image, str]:
    """`colour` in sRGB, through its profile `icc` if it has one, and why not, if that could not be used."""
    problem = ""
    if icc and colour.mode != "LAB":  # Lab's numbers are colours already
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            space = profile.profile.xcolor_space.strip()
            mode = _MODE_OF_SPACE.get(space)
            stored = colour.convert("RGB") if (colour.mode, mode) == ("L", "RGB") else colour
            if mode == stored.mode:
                return _transformed(stored, profile), ""
            problem = f"a profile for {space} colours, though the image is {colour.mode}"
        except (ImageCms.PyCMSError, OSError, ValueError):
            problem = "a damaged colour profile"
    return (colour if colour.mode == "RGB" else colour.convert("RGB")), problem


def _transformed(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    """`image` from `profile` to sRGB; `image` itself if that changes nothing: it costs five times the decoding."""
    transform = ImageCms.buildTransform(
        profile,
        ImageCms.createProfile("sRGB"),
        image.mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if image.mode == "RGB":
        probe = Image.frombytes("RGB", (len(_PROBE) // 3, 1), _PROBE)
        changed = ImageChops.difference(probe, _apply(probe, transform))
        if max(changed.tobytes()) <= 1:
            return image
    return _apply(image, transform)


def _apply(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    made = ImageCms.applyTransform(image, transform)
    assert made is not None  # None comes only of work in place
    return made


def mask_of(mask: Image.Image | None, alpha: Image.Image | None) -> Image.Image | None:
    """What is learned of a picture that has a `mask`, and of which transparent places are left out: both where there
    are both."""
    if mask is None or alpha is None:
        return alpha if mask is None else mask
    return ImageChops.multiply(mask, alpha)


def about_alpha(alpha: Image.Image) -> tuple[str, str]:
    """The remark (code, detail) on a picture that is not completely opaque."""
    counts = alpha.histogram()
    faint = sum(counts[:_FAINT]) / sum(counts)
    if faint > 0.95:
        return "image-transparent", f"{faint:.0%} of it is invisible"
    share = 1 - counts[255] / sum(counts)
    return "image-alpha", f"{f'{share:.0%}' if share >= 0.01 else 'under 1%'} of it is transparent"


def orientation_of(source: Image.Image) -> int:
    """How a loaded image must be rotated by its EXIF or XMP data: EXIF's number, 1 for not at all."""
    try:
        orientation = source.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF raises many kinds, and is no reason to refuse good pixels
        return 1
    return orientation if orientation in range(1, 9) else 1


def turn_upright(picture: Image.Image, orientation: int) -> None:
    """Rotate `picture` as `orientation` says, and drop the other metadata of its file. In place."""
    picture.info.clear()
    if orientation > 1:
        picture.getexif()[ExifTags.Base.Orientation] = orientation
        ImageOps.exif_transpose(picture, in_place=True)


def jpeg_quality(image: Image.Image) -> float | None:
    """The quality (1 to 100) at which libjpeg quantises brightness about as this JPEG does; None for other kinds."""
    tables = getattr(image, "quantization", None)
    if not tables:
        return None
    total = sum(tables[min(tables)])
    sums = _table_sums()
    return float(min(sums, key=lambda quality: abs(sums[quality] - total)))


@cache
def _table_sums() -> dict[int, int]:
    """The sum of the luminance table of each quality, by saving with it."""
    sums = {}
    for quality in range(1, 101):
        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, "JPEG", quality=quality)
        with Image.open(file, formats=["JPEG"]) as image:
            sums[quality] = sum(image.quantization[0])
    return sums
