"""Masks of a subset of a dataset TOML, and what the name of its folder says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sd_lora.data.folders.entries import Entry
from sd_lora.data.folders.mask_folders import with_masks
from sd_lora.data.folders.role_names import Meaning, role_of
from sd_lora.data.folders.sidecars import Source
from sd_lora.data.folders.tree import Folder, Notes, relative, walk
from sd_lora.errors import reason


def masked(images: Sequence[Entry], folder: Folder, named: Path | None, source: Source, seen: set[str]) -> list[Entry]:
    """`images` with the masks in the folder that is `named`, or else in one called so in their own `folder`; what is
    read is added to `seen`."""
    if not source.config.masks:
        return list(images)
    inside = [inner for inner in folder.folders if (role := role_of(inner.path.name)) and role.use == "masks"]
    places = [named] if named else [inner.path for inner in inside if source.config.folder_roles]
    given = list(images)
    for place in places:
        label = os.path.normpath(f"{folder.name or '.'}/{relative(place, folder.path)}")
        try:
            masks = walk(place, source.notes, label)
        except OSError as error:
            what = f"conditioning_data_dir {label} cannot be read: {reason(error)}"
            source.notes.add("entry-missing", None, what, "name the folder that holds the masks")
            continue
        seen.update(os.path.realpath(inner.path) for inner in masks.below())
        given = with_masks(given, folder.path, masks, source.notes)
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
