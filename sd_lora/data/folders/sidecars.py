"""Read the images of one folder with the captions and masks beside them."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from sd_lora.config.schema import DataConfig
from sd_lora.data.folders.caption_files import MAX_CAPTIONS, CaptionError, CaptionText, read_caption_file, tidy
from sd_lora.data.folders.entries import Entry, TagRules
from sd_lora.data.folders.tree import File, Folder, Notes, key, stem_of, suffix_of
from sd_lora.data.pictures.decode import IMAGE_SUFFIXES
from sd_lora.errors import shown, some

T = TypeVar("T")
State = Literal["found", "missing", "empty", "unreadable"]
_LACKING = {"missing": ("caption-missing", "no caption"), "empty": ("caption-empty", "an empty caption")}
_MASK = re.compile(r"(.+)(_mask|-masklabel)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Subset:
    """How the images of one folder are read."""

    #: endings of caption files, the preferred one first
    suffixes: tuple[str, ...]
    rules: TagRules
    lines: str = "each"
    masks: bool = True
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

    @classmethod
    def of(cls, config: DataConfig, fallback: str = "", prior: bool = False) -> Subset:
        """As `config` says; `prior` images do not get its default caption, which may name the style."""
        rules = TagRules(config.shuffle_tags, config.keep_tags, config.tag_dropout, comma=config.tag_separator)
        given = tidy(fallback if prior else config.default_caption or fallback)
        return cls(config.caption_suffixes, rules, config.caption_lines, config.masks, given, prior=prior)

    def entry(self, file: File, captions: tuple[str, ...], mask: File | None) -> Entry:
        where = mask.path if mask else None
        return Entry(file.path, file.name, captions, self.repeats, where, self.prior, self.may_flip, self.rules)

    def filled(self, name: str, captions: Sequence[str], state: State, notes: Notes) -> tuple[str, ...]:
        """The captions of the image `name`, or what replaces them; it is noted if there is neither."""
        if state in ("missing", "empty"):
            if self.fallback:
                captions = (self.fallback,)
                notes.captioned[""] += 1
            elif self.required:
                code, detail = _LACKING[state]
                notes.add(code, name, detail, self.remedy)
        if len(captions) > MAX_CAPTIONS:
            notes.add("caption-many", name, f"of its {len(captions)} captions the first {MAX_CAPTIONS} are read")
        captions = captions[:MAX_CAPTIONS]
        return tuple(tidy(f"{self.prefix} {caption} {self.suffix}") for caption in captions)


@dataclass(frozen=True)
class Source:
    """The folder that a layout reads; `prior`: its images are regularisation images."""

    config: DataConfig
    folder: Folder
    notes: Notes
    prior: bool = False

    @property
    def word(self) -> str:
        """The folder's name, even if it was given as ``.``."""
        return Path(os.path.realpath(self.folder.path)).name


@dataclass(frozen=True)
class Reading:
    """What a layout read: the images and one line about them."""

    entries: list[Entry]
    summary: str


def read_leaf(folder: Folder, subset: Subset, notes: Notes) -> list[Entry]:
    """The images directly in `folder`; other files there that are not read are noted."""
    masks = masks_of(folder)
    pictures = without_masks(folder, masks)
    beside = _Beside(folder, pictures, subset, notes)
    entries = []
    for name, file in pictures.items():
        captions = subset.filled(file.name, *beside.captions(name), notes)
        masks_of_image = masks.get(key(stem_of(name)), [])
        entries.append(subset.entry(file, captions, masks_of_image[0] if masks_of_image and subset.masks else None))
    read = {entry.file for entry in entries} | {entry.mask for entry in entries} | beside.read
    if not subset.masks:  # they were set aside on purpose
        read |= {mask.path for masks_of_image in masks.values() for mask in masks_of_image}
    notes.not_read += [file.name for file in folder.files.values() if file.path not in read]
    return entries


def masks_of(folder: Folder) -> dict[str, list[File]]:
    """The masks in `folder` by the stem of their image as `key` gives it, those named ``_mask`` first."""
    stems = {key(stem_of(name)) for name in folder.pictures()}
    masks: dict[str, list[File]] = defaultdict(list)

    def image_of(stem: str) -> str:
        match = _MASK.fullmatch(stem)
        return key(match[1]) if match and key(match[1]) in stems else ""

    for name, file in folder.files.items():
        stem = image_of(stem_of(name)) if suffix_of(name) in IMAGE_SUFFIXES else ""
        if stem and not image_of(stem):  # a mask has no mask
            masks[stem].append(file)
    for files in masks.values():
        files.sort(key=lambda file: stem_of(file.name).lower().endswith("-masklabel"))
    return masks


def without_masks(folder: Folder, masks: dict[str, list[File]]) -> dict[str, File]:
    taken = {file.path for files in masks.values() for file in files}
    return {name: file for name, file in folder.pictures().items() if file.path not in taken}


def captioned(folder: Folder, suffixes: Sequence[str]) -> bool:
    """Whether any image in or below `folder` has a caption file beside it."""
    for inner in folder.below():
        names = {key(name) for name in inner.files}
        pictures = [key(name) for name in inner.pictures()]
        if any(p + s.lower() in names or stem_of(p) + s.lower() in names for p in pictures for s in suffixes):
            return True
    return False


def in_order(name: str, suffixes: Sequence[str], find: Callable[[str], list[T]], *, shared: bool) -> list[T]:
    """The caption files of the image `name`, the one to read first: those named for it alone come before those named
    for its stem, which do not count if it has such files and other images share the stem."""
    exact = [file for suffix in suffixes for file in find(name + suffix)]
    return exact if exact and shared else exact + [file for suffix in suffixes for file in find(stem_of(name) + suffix)]


@dataclass
class _Beside:
    """The caption files of one folder: which images they belong to and what they say. Each is read once."""

    folder: Folder
    pictures: dict[str, File]
    subset: Subset
    notes: Notes
    read: set[Path] = field(default_factory=set)
    _texts: dict[Path, CaptionText | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        endings = tuple(suffix.lower() for suffix in self.subset.suffixes)
        self._by_key: dict[str, list[str]] = defaultdict(list)
        for name in self.folder.files:
            if key(name).endswith(endings):
                self._by_key[key(name)].append(name)
        self._stems = Counter(key(stem_of(name)) for name in self.pictures)
        self._users: dict[Path, list[str]] = defaultdict(list)
        for name in self.pictures:
            if suffix_of(name) in IMAGE_SUFFIXES and (files := self._files(name)):
                self._users[files[0].path].append(name)

    def captions(self, name: str) -> tuple[tuple[str, ...], State]:
        """The captions beside the image `name`, and how they were found."""
        files = self._files(name)
        self.read |= {file.path for file in files}
        texts = [(file, text) for file in files if (text := self._text(file)) is not None]
        if not texts:
            return (), "unreadable" if files else "missing"
        chosen, text = next((pair for pair in texts if pair[1].captions), texts[0])
        image = self.pictures[name].name
        for other, other_text in texts:
            if other_text.captions != text.captions:
                self.notes.add("caption-twice", image, f"{chosen.name} is read and {other.name} is not")
        others = [user for user in self._users[chosen.path] if user != name]
        if others and suffix_of(name) in IMAGE_SUFFIXES:
            self.notes.add("caption-shared", image, f"shares {chosen.name} with {some(others)}")
        if not text.captions:
            return (), "empty"
        self.notes.captioned[suffix_of(chosen.name)] += 1
        return text.captions, "found"

    def _files(self, name: str) -> list[File]:
        return in_order(name, self.subset.suffixes, self._find, shared=self._stems[key(stem_of(name))] > 1)

    def _find(self, name: str) -> list[File]:
        names = self._by_key.get(key(name), [])
        return [self.folder.files[n] for n in ([name] if name in names else names)]

    def _text(self, file: File) -> CaptionText | None:
        if file.path not in self._texts:
            self._texts[file.path] = self._read(file)
        return self._texts[file.path]

    def _read(self, file: File) -> CaptionText | None:
        try:
            text = read_caption_file(file.path, self.subset.lines)
        except CaptionError as error:
            self.notes.add("caption-unreadable", file.name, error.detail)
            return None
        if text.guessed:
            seen = shown(" / ".join(text.captions)[:60])
            self.notes.add("caption-encoding", file.name, f"read as {text.encoding}: {seen}")
        if len(text.captions) > 1:
            self.notes.add("caption-lines", file.name, f"{len(text.captions)} lines")
        return text
