"""Read kohya's folders: ``10_style`` holds images seen ten times as often, with the default caption "style"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sd_lora.data.folders.entries import Entry
from sd_lora.data.folders.sidecars import Reading, Source, Subset, read_leaf
from sd_lora.data.folders.tree import Folder, Notes
from sd_lora.errors import shown, some

_NUMBERED = re.compile(r"([0-9]+)_(.+)", re.DOTALL)
_IMAGES = frozenset({"img", "image", "images"})


@dataclass(frozen=True)
class Part:
    """A group of images with the same repeats."""

    name: str
    count: int
    repeats: int
    prior: bool


@dataclass(frozen=True)
class _Leaf:
    folder: Folder
    repeats: int
    word: str
    prior: bool


def read(source: Source) -> Reading | None:
    """The folders named so in the folder or in its ``img``, or the folder itself.

    None if there are none. If they are deeper, no image is read and a finding names the likely folder.
    """
    leaves = _leaves(source)
    if not leaves:
        return _too_deep(source)
    config, notes = source.config, source.notes
    leaf_of = {id(folder): leaf for leaf in leaves for folder in leaf.folder.below()}
    entries: list[Entry] = []
    counts = dict.fromkeys((id(leaf) for leaf in leaves), 0)
    for folder in source.folder.below():
        leaf = leaf_of.get(id(folder))
        if leaf:
            images = read_leaf(folder, replace(Subset.of(config, leaf.word, leaf.prior), repeats=leaf.repeats), notes)
            counts[id(leaf)] += len(images)
        else:
            images = read_leaf(folder, Subset.of(config, prior=source.prior), notes)
            for entry in images:
                notes.add("layout-mixed", entry.name, "it is beside kohya's folders and read with repeats 1")
            if images and folder is not source.folder:
                note_number(folder, notes)
        entries += images
    parts = [Part(leaf.folder.name or source.word, counts[id(leaf)], leaf.repeats, leaf.prior) for leaf in leaves]
    loose = len(entries) - sum(counts.values())
    note_repeats([*parts, Part("images beside them", loose, 1, source.prior)] if loose else parts, notes)
    beside = f", {loose} beside them" if loose else ""
    return Reading(entries, f"{plural(len(entries))} in kohya's folders: {listed(parts)}{beside}")


def plural(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"


def listed(parts: Sequence[Part]) -> str:
    """``10_ink (12, ×10), reg/1_house (20, ×1, regularisation)``"""
    return some([f"{p.name} ({p.count}, ×{p.repeats}{', regularisation' if p.prior else ''})" for p in parts], 8)


def note_repeats(parts: Sequence[Part], notes: Notes) -> None:
    """Say how often images are seen, if some are seen more often than others of their kind."""
    if len({(part.prior, part.repeats) for part in parts}) > len({part.prior for part in parts}):
        notes.add("repeats", None, some([f"{part.name} ×{part.repeats}" for part in parts], 8))


def note_number(folder: Folder, notes: Notes) -> None:
    """Say that a number at the start of a folder's name was not read as repeats."""
    if not _NUMBERED.fullmatch(folder.path.name):
        return
    if repeats_of(folder.path.name):
        above = shown(str(folder.path.parent))
        notes.add(
            "layout-number",
            f"{folder.name}/",
            "it is too deep for its number to be read as repeats",
            f"give {above} as the folder if they are meant",
        )
    else:
        notes.add("layout-number", f"{folder.name}/", "its number is read as part of its name")


def unread(source: Source) -> str:
    """A clause on the folders whose number is not read as repeats; empty if there are none."""
    names = [f.name for f in source.folder.below() if _NUMBERED.fullmatch(f.path.name) and not repeats_of(f.path.name)]
    why = "years and numbers with a leading zero are not repeats"
    return f" ({some(names)} does not count: {why})" if names else ""


def repeats_of(name: str) -> tuple[int, str] | None:
    """``10_style`` → 10, "style". None for leading zeros, years and numbers of more than four digits."""
    match = _NUMBERED.fullmatch(name)
    if not match or len(match[1]) > 4 or match[1][0] == "0" or 1900 <= int(match[1]) <= 2100:
        return None
    return int(match[1]), shown(match[2])


def _leaves(source: Source) -> list[_Leaf]:
    top = source.folder
    places = list(top.folders)
    for folder in top.folders:
        if folder.path.name.lower() in _IMAGES:
            places += folder.folders
    named = [(folder, repeats_of(folder.path.name)) for folder in places if folder.holds_pictures()]
    if not any(repeats for _, repeats in named):
        named = [(top, repeats_of(source.word))] if top.pictures() else []
    return [_Leaf(folder, *repeats, source.prior) for folder, repeats in named if repeats]


def _too_deep(source: Source) -> Reading | None:
    """A reading of nothing if all images are in kohya's folders, but too deep."""
    likely: list[tuple[Folder, Folder]] = []
    waiting = [(source.folder, source.folder)]
    while waiting:
        folder, parent = waiting.pop()
        if repeats_of(folder.path.name) and folder is not source.folder:
            likely += [(folder, parent)] * folder.holds_pictures()
        elif folder.pictures():
            return None
        else:
            waiting += [(inner, folder) for inner in reversed(folder.folders)]
    if not likely:
        return None
    paths = {leaf.path if len(likely) == 1 else parent.path: None for leaf, parent in likely}
    meant = some([shown(str(path)) for path in paths])
    what = f"no images in {shown(str(source.folder.path))} or in folders such as 10_style directly in it"
    source.notes.add("no-images", None, f"{what}; you probably meant {meant}")
    return Reading([], f"no images where they are looked for; {meant} {'holds' if len(paths) == 1 else 'hold'} some")
