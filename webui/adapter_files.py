"""Files of an adapter for a browser, in the page's private folder: a copy, a conversion, its picture."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from sd_lora import convert_adapter
from sd_lora.adapters.summary import AdapterSummary, local
from sd_lora.errors import ConfigError, SdLoraError
from sd_lora.preview.prompts import plain_name

from .site import Site

LAYOUTS, TYPES, KINDS = (
    ("kohya", "diffusers"),
    ("", "float16", "bfloat16", "float32"),
    ("", "sd1", "sd2", "sd2-v", "sdxl"),
)
#: bytes that copies leave free on the disk
_SPARE = 2**30
_MOST_PIXELS, _SIDE = 50_000_000, 384


def copied(site: Site, path: Path) -> Path:
    """A copy of the adapter at `path` under the name it has on the page; one that lies there already is used again.

    Raises SdLoraError if it cannot be read, or the disk is too full.
    """
    out = _place(site, path, f"{plain_name(site.name_of(path))}.safetensors")
    try:
        if not _is_there(out):
            _check_space(site, path)
            partial = out.with_name(f".{uuid.uuid4().hex}")
            try:
                shutil.copyfile(path, partial)
                partial.replace(out)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be copied: {error.strerror or error}; try again") from error
    return out


def converted(site: Site, path: Path, layout: str, dtype: str, kind: str = "") -> Path:
    """The adapter at `path` in another layout and type, as `convert_adapter` writes it.

    Raises SdLoraError for what is no choice, and for adapters that cannot be converted.
    """
    for what, given, known in (("layout", layout, LAYOUTS), ("type", dtype, TYPES), ("kind", kind, KINDS)):
        if given not in known:
            raise ConfigError(f"there is no {what} {str(given)[:20]!r}; choose one of the list")
    name = "-".join(part for part in (plain_name(site.name_of(path)), layout, dtype) if part)
    out = _place(site, path, f"{name}.safetensors", kind)
    try:
        if not _is_there(out):
            _check_space(site, path)
            convert_adapter(path, out, layout=layout, dtype=dtype, kind=kind, overwrite=True)
    except SdLoraError as error:
        raise type(error)(local(str(error), path)) from error
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be converted: {error.strerror or error}; try again") from error
    return out


def picture(summary: AdapterSummary) -> Image.Image | None:
    """The adapter's picture, in one size; None if there is none that can be read."""
    if summary.thumbnail is None:
        return None
    try:
        with Image.open(summary.thumbnail, formats=("PNG", "JPEG", "WEBP")) as image:
            if image.width * image.height > _MOST_PIXELS:
                return None
            scale = _SIDE / max(image.size)
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
            return image.convert("RGB").resize(size)
    except (OSError, SyntaxError, ValueError, RuntimeError, UnidentifiedImageError, Image.DecompressionBombError):
        return None


def _place(site: Site, path: Path, name: str, *more: str) -> Path:
    """Where the file `name`, made from what is in `path` now, lies or will lie."""
    digest = hashlib.sha256("\n".join([site.service.sha256(path), name, *more]).encode()).hexdigest()[:32]
    folder = site.work / digest
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def _is_there(path: Path) -> bool:
    """Whether it is; the janitor then takes it for new."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _check_space(site: Site, path: Path) -> None:
    free, needed = shutil.disk_usage(site.work).free, path.stat().st_size
    if free < needed + _SPARE:
        raise ConfigError(f"the disk is too full for another {needed / 1e6:.0f} MB; free some space, then try again")
