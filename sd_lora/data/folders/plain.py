"""Read a folder that has no other layout: images with captions beside them, or images alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from sd_lora.data.folders import kohya
from sd_lora.data.folders.caption_names import like_captions
from sd_lora.data.folders.entries import Entry
from sd_lora.data.folders.kohya import note_number, plural
from sd_lora.data.folders.other_captions import PLAIN
from sd_lora.data.folders.sidecars import Reading, Source, Subset, captioned, read_leaf
from sd_lora.data.folders.tree import stem_of, suffix_of
from sd_lora.errors import some

_BARE = "give a trigger word (--trigger WORD), or write captions, which sd-lora caption drafts"

#: endings of files that may hold the captions of many images
_TABLES = frozenset(["csv", "tsv", "jsonl", "json", "yaml", "yml", "xml", "xlsx", "ods", "parquet"])
#: files beside images that are about them all, or about the folder
_ABOUT = re.compile(
    r"(readme|licen[cs]e|copying|credits|authors|changelog|requirements|sources?|todo).*", re.IGNORECASE
)


def beside(source: Source) -> Reading | None:
    """All images with the captions beside them, or in their names; None if no image has one and none was asked for."""
    names = source.config.captions_from == "name"
    if source.config.layout == "auto" and not names and not captioned(source.folder, source.config.caption_suffixes):
        return None
    entries, where = _everywhere(source, _plain(source))
    if names:
        said = len(entries) - source.notes.captioned[""]
        return Reading(entries, f"{plural(len(entries))}, {said} captioned by name{_by_default(source)}{where}")
    counts = source.notes.captioned
    with_file = sum(count for suffix, count in counts.items() if suffix)
    kinds = ", ".join(suffix for suffix in counts if suffix)
    some_of = "" if with_file == len(entries) else f", {with_file}"
    beside = f"{some_of} with captions beside them ({kinds})" if with_file else " without captions"
    return Reading(entries, f"{plural(len(entries))}{beside}{_by_default(source)}{where}")


def bare(source: Source) -> Reading:
    """All images, without captions."""
    subset = replace(_plain(source), suffixes=(), others=False, required=not source.config.trigger, remedy=_BARE)
    entries, where = _everywhere(source, subset)
    return Reading(entries, f"{plural(len(entries))} without captions{_by_default(source)}{where}")


def _plain(source: Source) -> Subset:
    return Subset.of(source.config, source.word if source.prior else "", source.prior)


def _by_default(source: Source) -> str:
    filled = source.notes.captioned[""]
    return f", {filled} captioned by default" if filled else ""


def _everywhere(source: Source, subset: Subset) -> tuple[list[Entry], str]:
    """All images of the folder, and a clause on how many are in subfolders."""
    entries: list[Entry] = []
    inside: list[str] = []
    for folder in source.folder.below():
        images = read_leaf(folder, subset, source.notes)
        entries += images
        if images and folder is not source.folder:
            inside.append(f"{len(images)} of them in {folder.name}/")
            if source.config.layout == "auto":
                note_number(folder, source.notes)
    return entries, f", {some(inside)}" if inside else ""


def read_plainly(source: Source) -> Reading:
    """The images of a folder in kohya's folders, with captions beside them, or alone."""
    return kohya.read(source) or beside(source) or bare(source)


def note_other_captions(source: Source, entries: Sequence[Entry], layout: str) -> None:
    """Note where captions may be that a bare folder is read without; a `layout` that was asked for is meant so."""
    notes = source.notes
    texts = [
        name
        for name in notes.not_read
        if suffix_of(name)[1:] in PLAIN | _TABLES and not _ABOUT.fullmatch(stem_of(name.rpartition("/")[2]))
    ]
    if texts and entries and layout == "auto":
        notes.add("caption-elsewhere", None, f"no image has a caption, but other files may hold them: {some(texts)}")
    meant = like_captions(stem_of(entry.file.name) for entry in entries)
    if meant:
        have = "has a name that reads like a caption" if len(meant) == 1 else "have names that read like captions"
        names = f'such as "{meant[0]}"' if len(meant) == len(entries) else some([f'"{text}"' for text in meant])
        what = f"{len(meant)} of {plural(len(entries))} {have}, {names}"
        rest = len(entries) - len(meant)
        others = f", and data.default_caption for the other {'one' if rest == 1 else rest}"
        advice = f"set data.captions_from=name to train on them{others}" if rest else ""
        notes.add("caption-names", None, what, advice)
