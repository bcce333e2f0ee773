"""Removing and turning the pictures of a folder, so that either can be undone: originals stay in a hidden folder."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from sd_lora.config.schema import DataConfig
from sd_lora.data.folders.listing import list_folder
from sd_lora.data.pictures.decode import read_picture
from sd_lora.errors import DataError, reason, shown

#: where originals are kept; nothing reads hidden folders
ASIDE = ".removed"
#: puts everything back as it was
Undo = Callable[[], None]
_TEXTS = DataConfig().caption_suffixes
_EXIF_ORIENTATION = 0x0112
#: with as little loss as a format allows
_FINEST: dict[str, dict[str, Any]] = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}


def remove_picture(folder: Path, name: str) -> Undo:
    """Move the picture called `name` out of a folder, with the captions that are its alone. DataError if that is not
    possible, or if the folder has a table that names its pictures."""
    file, others = _picture(folder, name)
    alone = sum(other.with_suffix("") == file.with_suffix("") for other in others) == 1
    beside = [Path(f"{file}{suffix}") for suffix in _TEXTS]
    beside += [file.with_suffix(suffix) for suffix in _TEXTS] if alone else []
    return _moved(folder, [file, *(text for text in beside if text.is_file())])


def turn_picture(folder: Path, name: str) -> Undo:
    """Turn the picture called `name` by a quarter, clockwise. DataError if that is not possible."""
    file, _ = _picture(folder, name, only=False)
    read_picture(file)  # refuses what training would
    kept = _aside(folder) / file.name
    partial = file.with_name(f".{file.name[:50]}.{os.getpid()}.partial")
    try:
        with Image.open(file) as picture:
            kind = picture.format or "PNG"
            if getattr(picture, "n_frames", 1) > 1:
                raise DataError(f"{shown(name)} has several frames, and only one would be turned; save that one first")
            upright = ImageOps.exif_transpose(picture).transpose(Image.Transpose.ROTATE_270)
            exif = picture.getexif()
            exif.pop(_EXIF_ORIENTATION, None)
            profile = {"icc_profile": picture.info["icc_profile"]} if picture.info.get("icc_profile") else {}
        kind = "JPEG" if kind == "MPO" else kind
        upright.save(partial, kind, exif=exif, **profile, **_FINEST.get(kind, {}))
        shutil.copy2(file, kept)
        partial.replace(file)
    except (OSError, ValueError, KeyError) as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{shown(name)} cannot be turned: {error}; turn it in another program") from error
    return lambda: _put_back([(kept, file)], over=True)


def _picture(folder: Path, name: str, *, only: bool = True) -> tuple[Path, list[Path]]:
    """The file of a picture, and all pictures of the folder."""
    listing = list_folder(DataConfig(folder=str(folder)))
    files = {entry.name: entry.file for entry in listing.entries}
    if name not in files:
        raise DataError(f'there is no picture "{shown(name)[:100]}" in {shown(folder.name)}; choose another')
    if only and listing.layout in ("metadata", "kohya-toml"):
        raise DataError(f"a table in {shown(folder.name)} names its pictures; remove {shown(name)} from that by hand")
    if not os.path.realpath(files[name]).startswith(os.path.join(os.path.realpath(folder), "")):
        raise DataError(f"{shown(name)} is outside the folder, behind a link, and is not changed; copy it first")
    return files[name], list(files.values())


def _aside(folder: Path) -> Path:
    place = folder / ASIDE / uuid.uuid4().hex[:12]
    try:
        place.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"{shown(folder.name)} cannot be changed: {reason(error)}; allow writing") from error
    return place


def _moved(folder: Path, files: list[Path]) -> Undo:
    place, moved = _aside(folder), list[tuple[Path, Path]]()
    try:
        for file in files:
            file.rename(place / file.name)
            moved.append((place / file.name, file))
    except OSError as error:
        _put_back(moved)
        raise DataError(f"{shown(files[0].name)} cannot be removed: {reason(error)}; allow writing") from error
    return lambda: _put_back(moved)


def _put_back(moved: list[tuple[Path, Path]], *, over: bool = False) -> None:
    """Move kept files to where they were; `over` what is there now, which is otherwise never overwritten."""
    taken = [] if over else [file for _, file in moved if os.path.lexists(file)]
    if taken:
        raise DataError(f"there is a new {shown(taken[0].name)}, which is not overwritten; rename that first")
    try:
        for kept, file in moved:
            kept.replace(file)
    except OSError as error:
        raise DataError(f"{shown(moved[0][1].name)} cannot be put back: {reason(error)}; allow writing") from error
