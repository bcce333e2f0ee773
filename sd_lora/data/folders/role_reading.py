"""Use the images of folders that are named after what they are for: the same in every layout."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from sd_lora.data.folders import metadata
from sd_lora.data.folders.entries import Entry
from sd_lora.data.folders.mask_folders import with_masks
from sd_lora.data.folders.plain import read_plainly
from sd_lora.data.folders.role_names import meaning_of
from sd_lora.data.folders.roles import Aside, note_doubts, unused
from sd_lora.data.folders.sidecars import Reading, Source
from sd_lora.data.folders.tree import Folder, Notes


def with_roles(layout: str, reading: Reading, source: Source, aside: Sequence[Aside]) -> Reading:
    """What the `layout` read of a folder without the folders `aside`, and what is read of those: regularisation
    images, images to hold out, and masks. All others are noted.

    Images that the layout names by themselves, as a metadata table does, are asked for; a dataset TOML also says what
    they are for.
    """
    entries, summary, notes = list(reading.entries), reading.summary, source.notes
    for folder in (folder for one in aside for folder in one.folder.below()):
        folder.files = {n: f for n, f in folder.files.items() if os.path.realpath(f.path) not in reading.others}
    aside = [one for one in aside if one.count]
    homes = Counter(os.path.realpath(entry.file.parent) for entry in entries)
    if source.config.folder_roles and not source.prior and layout != "kohya-toml":  # which says so of its subsets
        note_doubts(source.folder, homes, notes)
    masks = [one for one in aside if one.role.use == "masks"]
    for one in aside:
        inside = {os.path.realpath(folder.path) for folder in one.folder.below()}
        if homes.keys() & inside:
            entries = _asked_for(entries, inside, one, source) if layout != "kohya-toml" else entries
        elif one.role.use in ("regularisation", "validation"):
            kind = "regularisation" if one.role.use == "regularisation" else "validation"
            read = _read(one, source)
            entries += read.entries
            often = f" (×{one.repeats})" if one.repeats > 1 and kind == "regularisation" else ""
            summary += f"; {kind} in {one.folder.name}/{often}: {read.summary}"
        elif one.role.use == "none":
            notes.findings.append(unused(one))
    for one in masks if source.config.masks else ():
        if not homes.keys() & {os.path.realpath(folder.path) for folder in one.folder.below()}:
            entries = _masked(entries, one, notes)
    return Reading(entries, summary)


def _masked(entries: list[Entry], one: Aside, notes: Notes) -> list[Entry]:
    """`entries` with the masks in a folder. If it holds none of theirs it is noted as such, as it may be no such
    folder."""
    inner = Notes()
    given = with_masks(entries, one.parent.path, one.folder, inner)
    if [finding.code for finding in inner.findings] == ["mask-unmatched"] * one.count:
        notes.findings.append(unused(one, why=", as none has the name of an image"))
    else:
        notes.take(inner)
    return given


def _read(one: Aside, source: Source) -> Reading:
    """The images of a folder, to preserve the base or to hold out."""
    inner, prior = Notes(), one.role.use == "regularisation"
    config = replace(source.config, layout="auto")
    meaning = meaning_of(one.folder.path.name)
    besides = meaning.rest if meaning else ""
    place = Source(config, one.folder, inner, prior=prior or source.prior, besides_role=besides)
    reading = metadata.read(place) or read_plainly(place)
    source.notes.take(inner)
    entries = [
        replace(entry, repeats=entry.repeats * one.repeats, held=entry.held or not prior) for entry in reading.entries
    ]
    return Reading(entries, reading.summary)


def _asked_for(entries: Sequence[Entry], inside: set[str], one: Aside, source: Source) -> list[Entry]:
    """`entries`, those in the folder as what they are for; the others in it are noted as not listed."""
    held, prior = one.role.use == "validation", one.role.use == "regularisation"
    read = {os.path.realpath(entry.file) for entry in entries}
    for name, file in _pictures(one.folder):
        if os.path.realpath(file) not in read:
            source.notes.add("unlisted", name, "not listed")
    return [
        replace(entry, held=entry.held or held, prior=entry.prior or prior)
        if os.path.realpath(entry.file.parent) in inside
        else entry
        for entry in entries
    ]


def _pictures(folder: Folder) -> list[tuple[str, str]]:
    return [(file.name, str(file.path)) for inner in folder.below() for file in inner.pictures().values()]
