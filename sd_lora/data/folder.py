"""Read a folder of images with `.txt` captions. Every image is decoded fully before anything else happens, and all
problems are reported at once."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from sd_lora.config import DataConfig
from sd_lora.errors import DataError, some

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
MAX_PIXELS = 100_000_000
_SIDED = re.compile(r"\b(left|right|text|letters?|words?|writing|sign)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Example:
    """A picture (RGB, upright, any size) and the caption it is trained with, the trigger word's phrase included."""

    name: str
    image: Image.Image
    caption: str
    trigger: str = ""

    @property
    def may_flip(self) -> bool:
        """False if the caption names a side or writing, which a mirrored picture would belie."""
        return _SIDED.search(self.caption.removesuffix(triggered("", self.trigger))) is None


def read_folder(config: DataConfig) -> list[Example]:
    """All images of ``config.folder`` with their captions, sorted by name.

    A caption is ``NAME.txt`` beside the image, else ``default_caption``; with a trigger word it becomes
    "<caption>, in <trigger> style". Raises DataError that lists every unreadable image and missing caption.
    """
    folder = Path(config.folder).expanduser()
    if not config.folder or not folder.is_dir():
        what = "is a file" if folder.is_file() else "does not exist"
        raise DataError(f"image folder {config.folder or '(none given)'} {what}; name a folder of captioned images")
    try:
        files = sorted(p for p in folder.iterdir() if _is_image(p))
    except OSError as error:
        raise DataError(f"image folder {folder} cannot be read: {error.strerror}") from error
    if not files:
        raise DataError(f"image folder {folder} holds no images; put {', '.join(sorted(IMAGE_SUFFIXES))} files into it")
    examples: list[Example] = []
    broken: list[str] = []
    bare: list[str] = []
    for file in files:
        try:
            caption = _caption(file) or config.default_caption
        except (OSError, UnicodeDecodeError):
            broken.append(f"{file.stem}.txt (not UTF-8 text)")
            continue
        if not caption:
            bare.append(file.name)
        try:
            examples.append(Example(file.name, _decode(file), triggered(caption, config.trigger), config.trigger))
        except Exception as error:  # Pillow's decoders raise at least six kinds for a damaged file
            broken.append(f"{file.name} ({str(error).split(chr(10))[0] or type(error).__name__})")
    problems = []
    if broken:
        problems.append(
            f"{len(broken)} of {len(files)} images in {folder} cannot be read: {some(broken)}; repair or remove them"
        )
    if bare:
        problems.append(
            f"{len(bare)} of {len(files)} images in {folder} have no caption ({some(bare)}); "
            f"add {Path(bare[0]).stem}.txt or set data.default_caption"
        )
    clashes = sorted({f.stem for f in files if sum(g.stem == f.stem for g in files) > 1})
    if clashes:
        problems.append(f"images in {folder} share a caption file ({some(clashes)}); give them different names")
    if problems:
        raise DataError("; ".join(problems))
    return examples


def triggered(caption: str, trigger: str) -> str:
    """The caption with its trigger word: ``a red house`` → ``a red house, in xyz style``. Never added twice."""
    suffix = f", in {trigger} style" if trigger else ""
    return caption if caption.endswith(suffix) else caption + suffix


def ignored_files(config: DataConfig) -> list[str]:
    """A sentence on what lies in the folder but is not read, if anything does."""
    entries = [p for p in sorted(Path(config.folder).expanduser().iterdir()) if not p.name.startswith(".")]
    stems = {p.stem for p in entries if _is_image(p)}
    odd = [p.name for p in entries if not _is_image(p) and not (p.suffix == ".txt" and p.stem in stems)]
    return [f"{len(odd)} entries of {config.folder} are not read: {some(odd)}"] if odd else []


def warnings_for(examples: list[Example], resolution: int) -> list[str]:
    """What a user should know before training on `examples` at `resolution` pixels, as sentences."""
    notes = []
    if len(examples) == 1:
        notes.append(
            "one image only: expect the adapter to copy it rather than to learn its style; 4 or more are better"
        )
    cropped = [e.name for e in examples if e.image.width != e.image.height]
    if cropped:
        notes.append(
            f"{len(cropped)} of {len(examples)} images are not square and lose their longer sides: {some(cropped)}"
        )
    small = [e.name for e in examples if min(e.image.size) < resolution]
    if small:
        notes.append(
            f"{len(small)} of {len(examples)} images are smaller than {resolution} px and are enlarged: {some(small)}"
        )
    return notes


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def square(image: Image.Image, size: int) -> Image.Image:
    """`image` scaled and centre-cropped to `size` × `size`."""
    return image if image.size == (size, size) else ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit grey (a plain conversion turns it white); other wide pixels have no agreed white."""
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise DataError(f"{values.dtype} pixels; save it with 8 or 16 bits per channel")
    return Image.fromarray((values / 257 + 0.5).astype(np.uint8), "L")


def _caption(image_file: Path) -> str:
    file = image_file.with_suffix(".txt")
    return " ".join(file.read_text("utf-8-sig").split()) if file.is_file() else ""


def _decode(file: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{image.width} × {image.height} pixels, more than 100 megapixels")
            image.load()
            upright = ImageOps.exif_transpose(image)
            if upright.mode[0] in "IF":
                upright = _eight_bits(upright)
            if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
                rgba = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
            return upright.convert("RGB")
