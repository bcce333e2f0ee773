"""Read the images of one folder with the captions and masks beside them."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sd_lora.config.schema import DataConfig
from sd_lora.data.dialects.reading import read_caption
from sd_lora.data.folders.beside import Beside, State
from sd_lora.data.folders.caption_files import MAX_CAPTIONS, tidy
from sd_lora.data.folders.caption_names import caption_of
from sd_lora.data.folders.entries import Entry, TagRules
from sd_lora.data.folders.metadata_rows import clipped
from sd_lora.data.folders.other_captions import OtherCaptions
from sd_lora.data.folders.tree import File, Folder, Notes, is_read, key, stem_of
from sd_lora.errors import some

_LACKING = {"missing": ("caption-missing", "no caption"), "empty": ("caption-empty", "an empty caption")}
#: how the mask beside an image is named
MASK_NAME = re.compile(r"(.+)(_mask|-masklabel)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Subset:
    """How the images of one folder are read."""

    #: endings of caption files, the preferred one first
    suffixes: tuple[str, ...]
    rules: TagRules
    lines: str = "each"
    masks: bool = True
    #: what is transparent is not learned
    alpha: bool = False
    #: the name of an image is its caption
    names: bool = False
    #: other caption files are read where their name leaves no doubt
    others: bool = False
    #: the caption of an image that has none
    fallback: str = ""
    #: a missing caption is an error
    required: bool = True
    #: what to do about it, other than writing a file
    remedy: str = ""
    repeats: int = 1
    prior: bool = False
    may_flip: bool = True
    #: before and after every caption
    prefix: str = ""
    suffix: str = ""
    #: weights and alternatives in captions are read, not trained as written
    syntax: bool = False
    #: the trigger word
    trigger: str = ""

    @classmethod
    def of(cls, config: DataConfig, fallback: str = "", prior: bool = False) -> Subset:
        """As `config` says; `prior` images do not get its default caption, which may name the style."""
        rules = TagRules(config.shuffle_tags, config.keep_tags, config.tag_dropout, comma=config.tag_separator)
        given = tidy(fallback if prior else config.default_caption or fallback)
        plain = cls(
            config.caption_suffixes, rules, config.caption_lines, config.masks, config.alpha == "mask",
            config.captions_from == "name", config.caption_suffixes == DataConfig().caption_suffixes, given,
            prior=prior,
        )  # fmt: skip
        return replace(plain, syntax=config.syntax == "read", trigger=config.trigger)

    def entry(self, file: File, captions: tuple[str, ...], mask: File | None) -> Entry:
        where = mask.path if mask else None
        more = (self.prior, self.may_flip, self.rules, self.alpha)
        return Entry(file.path, file.name, captions, self.repeats, where, *more)

    def filled(self, name: str, captions: Sequence[str], state: State, notes: Notes) -> tuple[str, ...]:
        """What is trained of the captions of the image `name`, or what replaces them; it is noted if there is none."""
        captions = self._read(name, captions, notes)
        if not captions and state == "found":
            state = "empty"
        if state == "missing" and self.suffixes and not (self.names or self.prior):
            notes.uncaptioned[name] = (f"{stem_of(name)}{self.suffixes[0]}", self.remedy)
        if state in ("missing", "empty"):
            if self.fallback:
                captions = self._read(name, (self.fallback,), notes)
                notes.captioned[""] += 1
            elif self.required:
                code, detail = _LACKING[state]
                notes.add(code, name, detail, self.remedy)
        if len(captions) > MAX_CAPTIONS:
            notes.add("caption-many", name, f"of its {len(captions)} captions the first {MAX_CAPTIONS} are read")
        captions = captions[:MAX_CAPTIONS]
        return tuple(tidy(f"{self.prefix} {caption} {self.suffix}") for caption in captions)

    def _read(self, name: str, captions: Sequence[str], notes: Notes) -> tuple[str, ...]:
        """What describes the image in `captions`; it is noted what else is in them."""
        each = [read_caption(caption, syntax=self.syntax, keep=self.trigger) for caption in captions]
        first = next(
            (f'; trained is "{clipped(tidy(text))}"' for read in each for text in read.captions if tidy(text)), ""
        )
        if foreign := dict.fromkeys(read.note for read in each if read.note):
            notes.add("caption-dialect", name, f"{'; '.join(foreign)}{first}")
        if pieces := list(dict.fromkeys(piece for read in each for piece in read.pieces)):
            code, what = ("caption-read", f"read{first}") if self.syntax else ("caption-syntax", "trained as written")
            notes.add(code, name, f"{some([clipped(piece) for piece in pieces], 3)} {what}")
        if any(read.escaped for read in each):
            notes.add("caption-escaped", name, r"\( and \) are trained as ( and )")
        return tuple(text for read in each for text in read.captions if tidy(text))


@dataclass(frozen=True)
class Source:
    """The folder that a layout reads; `prior`: its images are regularisation images."""

    config: DataConfig
    folder: Folder
    notes: Notes
    prior: bool = False
    #: what the folder's name says of its images besides their role, if it is named after that
    besides_role: str | None = None

    @property
    def word(self) -> str:
        """What the folder's name says of its images, even if it was given as ``.``."""
        return Path(os.path.realpath(self.folder.path)).name if self.besides_role is None else self.besides_role


@dataclass(frozen=True)
class Reading:
    """What a layout read: the images and one line about them; `others` are the real paths of pictures that it says are
    for something else."""

    entries: list[Entry]
    summary: str
    others: frozenset[str] = frozenset()


def read_leaf(folder: Folder, subset: Subset, notes: Notes) -> list[Entry]:
    """The images directly in `folder`; other files there that are not read are noted."""
    masks = masks_of(folder)
    pictures = without_masks(folder, masks)
    beside = Beside(folder, pictures, subset, notes)
    entries = []
    for name, file in pictures.items():
        captions = subset.filled(file.name, *(_of_name(name) if subset.names else beside.captions(name)), notes)
        masks_of_image = masks.get(key(stem_of(name)), [])
        entries.append(subset.entry(file, captions, masks_of_image[0] if masks_of_image and subset.masks else None))
    read = {entry.file for entry in entries} | {entry.mask for entry in entries} | beside.read
    if not subset.masks:  # they were set aside on purpose
        read |= {mask.path for masks_of_image in masks.values() for mask in masks_of_image}
    notes.not_read += [file.name for file in folder.files.values() if file.path not in read]
    return entries


def _of_name(name: str) -> tuple[tuple[str, ...], State]:
    caption = caption_of(stem_of(name))
    return ((caption,), "found") if caption else ((), "missing")


def masks_of(folder: Folder) -> dict[str, list[File]]:
    """The masks in `folder` by the stem of their image as `key` gives it, those named ``_mask`` first."""
    stems = {key(stem_of(name)) for name in folder.pictures()}
    masks: dict[str, list[File]] = defaultdict(list)

    def image_of(stem: str) -> str:
        match = MASK_NAME.fullmatch(stem)
        return key(match[1]) if match and key(match[1]) in stems else ""

    for name, file in folder.files.items():
        stem = image_of(stem_of(name)) if is_read(file) else ""
        if stem and not image_of(stem):  # a mask has no mask
            masks[stem].append(file)
    for files in masks.values():
        files.sort(key=lambda file: stem_of(file.name).lower().endswith("-masklabel"))
    return masks


def without_masks(folder: Folder, masks: dict[str, list[File]]) -> dict[str, File]:
    taken = {file.path for files in masks.values() for file in files}
    return {name: file for name, file in folder.pictures().items() if file.path not in taken}


def captioned(folder: Folder, suffixes: Sequence[str]) -> bool:
    """Whether any image in or below `folder` has a caption file beside it, even one that is not read."""
    for inner in folder.below():
        names = {key(name) for name in inner.files}
        pictures = [key(name) for name in inner.pictures()]
        if any(p + s.lower() in names or stem_of(p) + s.lower() in names for p in pictures for s in suffixes):
            return True
        others = OtherCaptions(inner, inner.pictures())
        if any(others.plain(name) or others.unread(name) for name in inner.pictures()):
            return True
    return False
