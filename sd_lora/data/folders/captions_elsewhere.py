"""Captions that are not where they are looked for: in a folder beside, or under a longer name than their image's."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from sd_lora.data.folders.caption_files import CaptionError, read_caption_file
from sd_lora.data.folders.other_captions import PLAIN, UNREAD
from sd_lora.data.folders.tree import PICTURE_SUFFIXES, Notes, key, stem_of
from sd_lora.errors import some

_TEXTS = PLAIN | UNREAD
#: what editors and people put behind an ending
_COPIES = frozenset(["bak", "old", "orig", "1"])
_ADVICE = "move or rename [it|them], or set data.layout=bare to train without captions"


def note_elsewhere(top: Path, notes: Notes) -> None:
    """Note the files of `top` that are not read and may hold the caption of an image that has none, instead of that it
    has none."""
    files: dict[str, list[str]] = defaultdict(list)
    for file in notes.not_read if notes.uncaptioned else ():
        if (stem := _of_image(key(file.rpartition("/")[2]))) and _is_text(top / file):
            files[stem].append(file)
    met = {image: found for image in notes.uncaptioned if (found := [f for n in _names(image) for f in files[n]])}
    notes.findings = [f for f in notes.findings if f.code != "caption-missing" or f.file not in met]
    for image, found in met.items():
        wanted, advice = notes.uncaptioned[image]
        why = "not read" if advice else f"read only as {wanted}"
        notes.add("caption-unread", image, f"its caption may be in {some(found)}, which is {why}", advice or _ADVICE)


def _of_image(file: str) -> str:
    """The name of the image whose caption a `file` may hold, without an ending; empty if it holds none."""
    stem, texts = file.removesuffix("~"), False
    while "." in stem:
        shorter, _, ending = stem.rpartition(".")
        if not shorter or not (ending in _TEXTS | _COPIES or f".{ending}" in PICTURE_SUFFIXES):
            break
        stem, texts = shorter, texts or ending in _TEXTS
    return stem if texts else ""


def _names(image: str) -> Iterator[str]:
    """The names of an image under which its caption may be: ``c.jpeg.1`` is also ``c``."""
    stem = key(stem_of(image.rpartition("/")[2]))
    yield stem
    while f".{stem.rpartition('.')[2]}" in PICTURE_SUFFIXES and "." in stem:
        stem = stem_of(stem)
        yield stem


def _is_text(file: Path) -> bool:
    """Whether a file may hold words: not only numbers, as the labels of a detector do."""
    with contextlib.suppress(CaptionError):
        return any(c.isalpha() for caption in read_caption_file(file).captions for c in caption)
    return True
