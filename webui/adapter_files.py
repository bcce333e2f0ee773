"""Files of an adapter for a browser, in the page's private folder: a copy, a conversion, its picture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args, get_type_hints

from PIL import Image, UnidentifiedImageError

from sd_lora.adapters.keys import LAYOUTS
from sd_lora.adapters.sidecar import sidecar_of
from sd_lora.adapters.summary import AdapterSummary, local, read_summary
from sd_lora.config.schema import OutputConfig
from sd_lora.errors import ConfigError, SdLoraError
from sd_lora.models.families import kinds
from sd_lora.preview.prompts import plain_name

from .cached_files import cached_file, picture_file
from .site import Site

#: what a conversion can be given, by field; "" leaves it as it is
CHOICES = {"layout": LAYOUTS, "type": ("", *get_args(get_type_hints(OutputConfig)["dtype"])), "kind": ("", *kinds())}
#: bytes that copies leave free on the disk
_SPARE = 2**30
_MOST_PIXELS, _SIDE = 50_000_000, 384


def bundle(site: Site, path: Path) -> list[Path]:
    """What other programs want of the adapter at `path`, under the name it has on the page: a copy, its facts as
    A1111 and Forge read them (.json), and its picture (.png), if it has one.

    Raises SdLoraError if it cannot be read, or the disk is too full.
    """
    name, summary = plain_name(site.name_of(path)), read_summary(path)
    files = [_file_of(site, path, name, "copied", lambda out: shutil.copyfile(path, out))]
    facts = json.dumps(sidecar_of(summary.metadata, summary.kind, summary.strength), indent=2, ensure_ascii=False)
    files.append(cached_file(site.work, facts.encode(), f"{name}.json", lambda out: out.write_text(facts, "utf-8")))
    if (image := picture(summary)) is not None:
        files.append(Path(picture_file(site.work, image, {}, name)))
    return files


def line_to_type(site: Site, path: Path) -> str:
    """What calls the style in a prompt of A1111 or Forge: its phrase, and the tag that loads the file."""
    summary = read_summary(path)
    tag = f"<lora:{plain_name(site.name_of(path))}:{1 if summary.strength is None else summary.strength:g}>"
    return " ".join(filter(None, (summary.phrase, tag)))


def converted(site: Site, path: Path, layout: str, dtype: str, kind: str = "") -> Path:
    """The adapter at `path` in another layout and type, as `convert_adapter` writes it.

    Raises SdLoraError for unknown choices, and for adapters that cannot be converted.
    """
    for field, value in {"layout": layout, "type": dtype, "kind": kind}.items():
        if value not in CHOICES[field]:
            raise ConfigError(f"there is no {field} {str(value)[:20]!r}; choose one from the list")
    name = "-".join(part for part in (plain_name(site.name_of(path)), layout, dtype) if part)

    def convert(out: Path) -> None:
        from sd_lora import convert_adapter  # loads torch

        convert_adapter(path, out, layout=layout, dtype=dtype, kind=kind)

    try:
        return _file_of(site, path, name, "converted", convert, kind)
    except SdLoraError as error:
        raise type(error)(local(str(error), path)) from error


def picture(summary: AdapterSummary) -> Image.Image | None:
    """The adapter's picture, scaled to one size; None if there is none or it cannot be read."""
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


def _file_of(site: Site, path: Path, name: str, verb: str, write: Callable[[Path], object], *more: str) -> Path:
    """The file `name` that `write` makes from the adapter at `path`, or an earlier one from the same content."""

    def write_if_there_is_room(out: Path) -> None:
        needed = path.stat().st_size
        if shutil.disk_usage(site.work).free < needed + _SPARE:
            raise ConfigError(f"the disk is too full for {needed / 1e6:.0f} MB more; free some space, then try again")
        write(out)

    key = "\n".join([site.service.sha256(path), name, *more]).encode()
    try:
        return cached_file(site.work, key, f"{name}.safetensors", write_if_there_is_room)
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be {verb}: {error.strerror or error}; try again") from error
