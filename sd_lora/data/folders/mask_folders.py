"""Masks in a folder of their own: each is the mask of the image that has its name."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sd_lora.data.folders.entries import Entry
from sd_lora.data.folders.sidecars import MASK_NAME
from sd_lora.data.folders.tree import Folder, Notes, key, stem_of
from sd_lora.errors import some


def with_masks(entries: Sequence[Entry], base: Path | Sequence[Path], masks: Folder, notes: Notes) -> list[Entry]:
    """`entries`, those below `base` with the masks of their names below `masks`; a mask beside an image comes first.
    `base` may be one for each, as those of subsets are that share a folder of masks.

    ``10_ink/a.png`` there is the mask of ``10_ink/a.jpg``, ``a.png`` that of the one image of that name wherever it
    is; images to learn from come before others. What belongs to no image, or could belong to several, is noted.
    """
    finder = _Images(entries, [base] * len(entries) if isinstance(base, Path) else base)
    given = list(entries)
    for folder in masks.below():
        inner = Path(os.path.relpath(folder.path, masks.path)).as_posix()
        for name, file in folder.files.items():
            if name not in folder.pictures():
                notes.not_read.append(file.name)
                continue
            hits = finder.find("" if inner == "." else f"{inner}/", stem_of(name))
            if not hits:
                notes.add("mask-unmatched", file.name, "no image has its name")
                continue
            if len({finder.paths[hit] for hit in hits}) > 1:
                notes.add("mask-ambiguous", file.name, f"it could be of {some([entries[hit].name for hit in hits])}")
                continue
            for hit in hits:
                now = given[hit].mask
                if now is None:
                    given[hit] = replace(given[hit], mask=file.path)
                elif os.path.realpath(now) != os.path.realpath(file.path):
                    notes.not_read.append(f"{file.name} (another mask of {given[hit].name} is read)")
    return given


class _Images:
    """The images below a folder, or each below its own, found by their stem."""

    def __init__(self, entries: Sequence[Entry], bases: Sequence[Path]) -> None:
        homes = {entry.file.parent: os.path.realpath(entry.file.parent) for entry in entries}
        roots = {base: os.path.realpath(base) for base in bases}
        #: regularisation images have the names of others by chance, but not where their masks are named
        self._rank = [(2 * entry.prior + entry.held) * (len(roots) < 2) for entry in entries]
        self.paths: dict[int, str] = {}
        self._by_stem: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for number, (entry, base) in enumerate(zip(entries, bases, strict=True)):
            home, root = homes[entry.file.parent], roots[base]
            if home == root or home.startswith(os.path.join(root, "")):
                inner = Path(os.path.relpath(home, root)).as_posix()
                stem = stem_of(entry.file.name)
                self.paths[number] = key(f"/{inner}/{stem}")
                self._by_stem[key(stem)].append((self.paths[number], number))

    def find(self, inner: str, stem: str) -> list[int]:
        """The images of a mask with this `stem` in the folder `inner`: of several those whose path ends in the same."""
        named = self._by_stem.get(key(stem), [])
        if not named and (match := MASK_NAME.fullmatch(stem)):
            stem = match[1]
            named = self._by_stem.get(key(stem), [])
        exact = [number for path, number in named if path.endswith(key(f"/{inner}{stem}"))]
        if len(exact) > 1 and not inner:  # one directly in the folder is meant before one below it
            exact = [number for path, number in named if path == key(f"/./{stem}")] or exact
        hits = exact or [number for _, number in named]
        first = min((self._rank[number] for number in hits), default=0)
        return [number for number in hits if self._rank[number] == first]
