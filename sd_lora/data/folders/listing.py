"""List a folder of images of any layout: which images, which captions, what is wrong with them.

The first step of reading data; it opens no image."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sd_lora.config.schema import DataConfig
from sd_lora.data.folders import dataset_toml, kohya, metadata
from sd_lora.data.folders.entries import Entry, Listing
from sd_lora.data.folders.kohya import note_number, plural
from sd_lora.data.folders.sidecars import Reading, Source, Subset, captioned, read_leaf
from sd_lora.data.folders.tree import Folder, Notes, likely_folder, relative, suffix_of, walk
from sd_lora.errors import DataError, reason, shown, some

_BARE = "give a trigger word (--trigger WORD), or write captions, which sd-lora caption drafts"


def list_folder(config: DataConfig) -> Listing:
    """The images of ``config.folder`` and ``config.regularisation`` with their captions.

    The first layout that fits the folder is read, or the one ``config.layout`` names. Raises DataError if a folder does
    not exist or cannot be read; everything else that is wrong is a finding.
    """
    given, notes = Path(os.path.expanduser(config.folder)), Notes()
    is_file = suffix_of(given.name) == ".toml" and os.path.isfile(given)
    top = given.parent if is_file else _existing("data.folder", config.folder)
    prior = _existing("data.regularisation", config.regularisation) if config.regularisation else None
    if prior and os.path.samefile(prior, top):
        raise DataError(f"data.regularisation {shown(str(prior))} is data.folder itself; name a folder of other images")
    if not is_file:
        source = Source(config, _walked("data.folder", top, notes, leave_out=prior), notes)
        layout, reading = _understood(source, config.layout)
    elif config.layout in ("auto", "kohya-toml"):
        layout, (reading, _) = "kohya-toml", dataset_toml.read_file(given, Source(config, Folder(top, ""), notes))
    else:
        raise DataError(f"data.folder {shown(config.folder)} is a file; data.layout={config.layout} reads a folder")
    entries, summary = reading.entries, reading.summary
    if all(entry.prior for entry in entries) and not any(finding.severity == "error" for finding in notes.findings):
        notes.add("no-images", None, f"no images to learn from in {shown(config.folder)} or below it")
    if prior:
        priors = _prior(config, prior, top, notes)
        _refuse_shared(config, entries, priors.entries)
        entries, summary = [*entries, *priors.entries], f"{summary}; regularisation: {priors.summary}"
    masks = sum(entry.mask is not None for entry in entries)
    summary += f"; {masks} with masks" if masks else ""
    return Listing(layout, summary, tuple(sorted(entries, key=lambda entry: entry.name)), notes.all())


def _understood(source: Source, layout: str) -> tuple[str, Reading]:
    """The layout that fits the folder, or the one asked for, and what it reads."""
    for name, (read, sought) in LAYOUTS.items():
        if layout in ("auto", name) and (reading := read(source)):
            return name, reading
        if layout == name:
            unread = kohya.unread(source) if name == "kohya" else ""
            what = f"data.layout={name} needs {sought}, but there is none{unread}"
            if not any(finding.code == "dataset-broken" for finding in source.notes.findings):
                source.notes.add("no-images", None, what)
    return layout, Reading([], "no images")


def _prior(config: DataConfig, folder: Path, top: Path, notes: Notes) -> Reading:
    inner = Notes()
    tree = _walked("data.regularisation", folder, inner, relative(folder, top), leave_out=top)
    source = Source(replace(config, layout="auto"), tree, inner, prior=True)
    reading = kohya.read(source) or _beside(source) or _bare(source)
    if not reading.entries and not inner.findings:
        inner.add("no-images", None, f"no images in data.regularisation {shown(str(folder))}")
    notes.findings += inner.findings
    notes.not_read += inner.not_read
    return reading


def _refuse_shared(config: DataConfig, entries: list[Entry], priors: list[Entry]) -> None:
    files = {os.path.realpath(entry.file) for entry in entries}
    both = [entry.name for entry in priors if os.path.realpath(entry.file) in files]
    if both:
        raise DataError(
            f"data.regularisation {shown(config.regularisation)} holds images that are also read from data.folder "
            f"({some(both)}); name a folder of other images"
        )


def _beside(source: Source) -> Reading | None:
    if source.config.layout == "auto" and not captioned(source.folder, source.config.caption_suffixes):
        return None
    entries, where = _everywhere(source, _plain(source))
    counts = source.notes.captioned
    with_file = sum(count for suffix, count in counts.items() if suffix)
    kinds = ", ".join(suffix for suffix in counts if suffix)
    some_of = "" if with_file == len(entries) else f", {with_file}"
    beside = f"{some_of} with captions beside them ({kinds})" if with_file else " without captions"
    return Reading(entries, f"{plural(len(entries))}{beside}{_by_default(source)}{where}")


def _bare(source: Source) -> Reading:
    subset = replace(_plain(source), suffixes=(), required=not source.config.trigger, remedy=_BARE)
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


def _existing(setting: str, given: str) -> Path:
    """The folder that a setting names; DataError, with the likely one, if it does not exist."""
    path = Path(os.path.expanduser(given))
    if given and os.path.isdir(path):
        return path
    what = "is a file" if os.path.isfile(path) else "does not exist"
    likely = likely_folder(path) if given else None
    advice = f"did you mean {shown(str(likely))}?" if likely else "name a folder of images"
    raise DataError(f"{setting} {shown(given) or '(none given)'} {what}; {advice}")


def _walked(setting: str, top: Path, notes: Notes, name: str = "", leave_out: Path | None = None) -> Folder:
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
    "sidecars": (_beside, "images in data.folder"),
    "bare": (_bare, "images in data.folder"),
}
