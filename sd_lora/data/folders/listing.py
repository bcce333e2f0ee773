"""List a folder of images of any layout: which images, which captions, what is wrong with them.

The first step of reading data; it opens no image."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from sd_lora.config.schema import DataConfig
from sd_lora.data.folders import dataset_toml, kohya, metadata
from sd_lora.data.folders.captions_elsewhere import note_elsewhere
from sd_lora.data.folders.entries import Entry, Listing
from sd_lora.data.folders.mask_folders import with_masks
from sd_lora.data.folders.plain import bare, beside, note_other_captions, read_plainly
from sd_lora.data.folders.role_reading import with_roles
from sd_lora.data.folders.roles import Aside, set_aside
from sd_lora.data.folders.sidecars import Reading, Source
from sd_lora.data.folders.tree import Folder, Notes, is_archive, likely_folder, relative, suffix_of, walk
from sd_lora.errors import DataError, reason, shown, some


def list_folder(config: DataConfig) -> Listing:
    """The images of ``config.folder`` and ``config.regularisation`` with their captions and masks.

    The first layout that fits the folder is read, or the one ``config.layout`` names. Folders that are named after what
    their images are for are used as that, in every layout. Raises DataError if a folder does not exist or cannot be
    read; everything else that is wrong is a finding.
    """
    given, notes = Path(os.path.expanduser(config.folder)), Notes()
    is_file = suffix_of(given.name) == ".toml" and os.path.isfile(given)
    top = given.parent if is_file else _existing("data.folder", config.folder)
    prior = _other("data.regularisation", config.regularisation, top)
    masks = _other("data.mask_folder", config.mask_folder, top)
    aside: list[Aside] = []
    if not is_file:
        source = Source(config, _walked("data.folder", top, notes, leave_out=(prior, masks)), notes)
        aside = set_aside(source.folder) if config.folder_roles else []
        layout, reading = _understood(source, config.layout)
        reading = with_roles(layout, reading, source, aside)
    elif config.layout in ("auto", "kohya-toml"):
        layout, (reading, _) = "kohya-toml", dataset_toml.read_file(given, Source(config, Folder(top, ""), notes))
    else:
        raise DataError(f"data.folder {shown(config.folder)} is a file; data.layout={config.layout} reads a folder")
    entries, summary = reading.entries, reading.summary
    if all(e.prior or e.held for e in entries) and not any(finding.severity == "error" for finding in notes.findings):
        notes.add(
            "no-images", None, f"no images to learn from in {shown(config.folder)} or below it", _likely(aside, notes)
        )
    if prior:
        priors = _prior(config, prior, top, notes)
        _refuse_shared(config, entries, priors.entries)
        entries, summary = [*entries, *priors.entries], f"{summary}; regularisation: {priors.summary}"
    if masks:
        entries = with_masks(entries, top, _walked("data.mask_folder", masks, notes, relative(masks, top)), notes)
    note_elsewhere(top, notes)
    masked = sum(entry.mask is not None for entry in entries)
    summary += f"; {masked} with masks" if masked else ""
    return Listing(layout, summary, tuple(sorted(entries, key=lambda entry: entry.name)), notes.all())


def _understood(source: Source, layout: str) -> tuple[str, Reading]:
    """The layout that fits the folder, or the one asked for, and what it reads."""
    for name, (read, sought) in LAYOUTS.items():
        if layout in ("auto", name) and (reading := read(source)):
            if name == "bare":
                note_other_captions(source, reading.entries, layout)
            return name, reading
        if layout == name:
            unread = kohya.unread(source) if name == "kohya" else ""
            what = f"data.layout={name} needs {sought}, but there is none{unread}"
            if not any(finding.code == "dataset-broken" for finding in source.notes.findings):
                source.notes.add("no-images", None, what)
    return layout, Reading([], "no images")


def _prior(config: DataConfig, folder: Path, top: Path, notes: Notes) -> Reading:
    inner = Notes()
    tree = _walked("data.regularisation", folder, inner, relative(folder, top), leave_out=(top,))
    source = Source(replace(config, layout="auto"), tree, inner, prior=True)
    aside = set_aside(tree) if config.folder_roles else []
    reading = with_roles("", read_plainly(source), source, aside)
    if not reading.entries and not inner.findings:
        inner.add("no-images", None, f"no images in data.regularisation {shown(str(folder))}")
    notes.take(inner)
    return reading


def _likely(aside: Sequence[Aside], notes: Notes) -> str:
    """What to do about a folder without images to learn from; empty if it has no folders of a role, nor archives."""
    archives = [name for name in notes.not_read if is_archive(name)]
    if aside:
        names = some([f"{one.folder.name}/ ({one.role.what})" for one in aside])
        return f"rename {names}, or set data.folder_roles=false, if they are in there"
    return f"unpack {some(archives)} and give the folder that this makes" if archives else ""


def _refuse_shared(config: DataConfig, entries: list[Entry], priors: list[Entry]) -> None:
    files = {os.path.realpath(entry.file) for entry in entries}
    both = [entry.name for entry in priors if os.path.realpath(entry.file) in files]
    if both:
        raise DataError(
            f"data.regularisation {shown(config.regularisation)} holds images that are also read from data.folder "
            f"({some(both)}); name a folder of other images"
        )


def _other(setting: str, given: str, top: Path) -> Path | None:
    """The folder beside the images' own that a setting names, if it names one. DataError if it is `top` itself."""
    folder = _existing(setting, given) if given else None
    if folder and os.path.samefile(folder, top):
        raise DataError(f"{setting} {shown(str(folder))} is data.folder itself; name a folder of other images")
    return folder


def _existing(setting: str, given: str) -> Path:
    """The folder that a setting names; DataError, with the likely one, if it does not exist."""
    path = Path(os.path.expanduser(given))
    if given and os.path.isdir(path):
        return path
    if os.path.isfile(path) and is_archive(path.name):
        raise DataError(f"{setting} {shown(given)} is an archive, not a folder; unpack it and give the folder")
    what = "is a file" if os.path.isfile(path) else "does not exist"
    likely = likely_folder(path) if given else None
    advice = f"did you mean {shown(str(likely))}?" if likely else "name a folder of images"
    raise DataError(f"{setting} {shown(given) or '(none given)'} {what}; {advice}")


def _walked(setting: str, top: Path, notes: Notes, name: str = "", leave_out: Sequence[Path | None] = ()) -> Folder:
    try:
        return walk(top, notes, name, leave_out)
    except OSError as error:
        raise DataError(
            f"{setting} {shown(str(top))} cannot be read: {reason(error)}; allow it or name another"
        ) from error


LAYOUTS: dict[str, tuple[Callable[[Source], Reading | None], str]] = {
    "kohya-toml": (dataset_toml.read, "one TOML file with [[datasets]] in data.folder"),
    "metadata": (metadata.read, f"{', '.join(metadata.FILES[:-1])} or {metadata.FILES[-1]} in data.folder"),
    "kohya": (kohya.read, "folders such as 10_style in data.folder"),
    "sidecars": (beside, "images in data.folder"),
    "bare": (bare, "images in data.folder"),
}
