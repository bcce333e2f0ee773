"""Masks of a subset of a dataset TOML, and what the name of its folder says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sd_lora.data.folders.entries import Entry
from sd_lora.data.folders.mask_folders import with_masks
from sd_lora.data.folders.role_names import Meaning, role_of
from sd_lora.data.folders.sidecars import Source
from sd_lora.data.folders.tree import Folder, Notes, relative, walk
from sd_lora.errors import reason


@dataclass
class SubsetMasks:
    """The folders of masks of all subsets, each with the images of those that share it."""

    source: Source
    #: real path of a folder of masks → what is in it, and the numbers of subsets with their folders
    _folders: dict[str, tuple[Folder, list[tuple[int, Path]]]] = field(default_factory=dict)

    def add(self, number: int, folder: Folder, named: Path | None, seen: set[str]) -> None:
        """Subset `number`, of the images in `folder`, has the masks in the folder that is `named`, or else in those
        called so in its own; what is read is added to `seen`."""
        if not self.source.config.masks:
            return
        inside = [inner for inner in folder.folders if (role := role_of(inner.path.name)) and role.use == "masks"]
        places = [named] if named else [inner.path for inner in inside if self.source.config.folder_roles]
        for place in places:
            real = os.path.realpath(place)
            if real not in self._folders:
                label = os.path.normpath(f"{folder.name or '.'}/{relative(place, folder.path)}")
                try:
                    masks = walk(place, self.source.notes, label)
                except OSError as error:
                    what = f"conditioning_data_dir {label} cannot be read: {reason(error)}"
                    self.source.notes.add("entry-missing", None, what, "name the folder that holds the masks")
                    continue
                seen.update(os.path.realpath(inner.path) for inner in masks.below())
                self._folders[real] = (masks, [])
            self._folders[real][1].append((number, folder.path))

    def matched(self, subsets: Sequence[Sequence[Entry]]) -> list[list[Entry]]:
        """The images of all `subsets` with their masks. A mask belongs to none only if it does in all that share its
        folder."""
        given = [list(images) for images in subsets]
        for masks, sharing in self._folders.values():
            images = [entry for number, _ in sharing for entry in given[number]]
            bases = [base for number, base in sharing for _ in given[number]]
            done = iter(with_masks(images, bases, masks, self.source.notes))
            for number, _ in sharing:
                given[number] = [next(done) for _ in given[number]]
        return given


def note_role(given: str, meaning: Meaning, file: str, notes: Notes) -> None:
    """Note that a subset's folder is named after a role that the subset does not mention."""
    role = meaning.role
    if not meaning.sure and role.use == "regularisation":
        notes.add("folder-unsure", file, f"{given} is trained; set is_reg = true if these are {role.what}")
    elif not meaning.sure:
        notes.add("folder-unsure", file, f"{given} is trained; remove its subset if these are {role.what}")
    elif role.use == "regularisation":
        read, advice = "read as regularisation images, as it is named", "set is_reg in its subset to say what is meant"
        notes.add("folder-role", file, f"{given} is {read}", advice)
    else:
        read = f"named after {role.what}, and trained on"
        notes.add("folder-role", file, f"{given} is {read}", "remove its subset if that is not meant")
