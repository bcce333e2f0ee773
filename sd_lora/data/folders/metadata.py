"""Read a folder with ``metadata.jsonl``, ``.csv`` or ``.parquet``; a row cannot name a file outside of the folder."""

from __future__ import annotations

import contextlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath

from sd_lora.data.folders.entries import Entry
from sd_lora.data.folders.kohya import plural
from sd_lora.data.folders.metadata_rows import Row, Rows, RowsError, clipped, read_rows
from sd_lora.data.folders.sidecars import Reading, Source, Subset, masks_of, without_masks
from sd_lora.data.folders.tree import File, Folder, Notes, key, stem_of
from sd_lora.errors import some

FILES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
#: rows of one kind that are named if they cannot be used; more are counted
_MOST_NAMED = 50


class RowError(Exception):
    """Why a row cannot be used: the code of a finding, and its detail."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def read(source: Source) -> Reading | None:
    """The images that a metadata file in the folder, or in its ``train``, lists; None if there is no such file."""
    place = file_in(source.folder)
    if place is None:
        return None
    (home, file), notes = place, source.notes
    try:
        table = read_rows(file.path)
    except RowsError as error:
        notes.add("entry-broken", file.name, str(error))
        return Reading([], f"{file.name} cannot be read")
    if table.encoding:
        notes.add("caption-encoding", file.name, f"read as {table.encoding}")
    if table.unread:
        unread = [f"{column} ({_rows(count)})" for column, count in table.unread.items()]
        notes.add("column-unread", file.name, f"not read {'is' if len(unread) == 1 else 'are'} {', '.join(unread)}")
    note_rows([("entry-broken", f"{file.name} {place}", why) for place, why in table.broken], notes)
    rows = table.rows if source.config.folder_roles else [replace(row, use="") for row in table.rows]
    entries, met = entries_of(rows, home, Subset.of(source.config, prior=source.prior), notes)
    steering = _steering(rows, home)
    _note_purposes(table, rows, file.name, notes)
    note_rest(source.folder, entries, {file.path} | met | steering, notes)
    counts = {
        "with several captions": sum(len(entry.captions) > 1 for entry in entries),
        "to hold out": sum(entry.held for entry in entries),
        "for regularisation": sum(entry.prior for entry in entries) if not source.prior else 0,
    }
    more = "".join(f", {count} of them {what}" for what, count in counts.items() if count)
    used = frozenset(os.path.realpath(path) for path in steering)
    return Reading(entries, f"{plural(len(entries))} listed in {file.name}{more}", used)


def _steering(rows: Iterable[Row], home: Folder) -> set[Path]:
    """The pictures that rows name to steer a ControlNet, and that are there."""
    finder, found = _Finder(home, by_stem=False), set()
    for name in (name for row in rows for name in row.steering):
        with contextlib.suppress(RowError):
            found.add(finder.find(name).path)
    return found


def _note_purposes(table: Rows, rows: Iterable[Row], file: str, notes: Notes) -> None:
    """Note the columns that say what images are for, where those are not what is learned from."""
    if table.steering:
        columns = some([f"{column} ({_rows(count)})" for column, count in table.steering.items()])
        note_steering(columns, file, notes, "call the column mask if they are masks")
    unused = sum(row.use in ("none", "masks") for row in rows)
    if unused:
        what = f"{_rows(unused)} not read, as {'its' if unused == 1 else 'their'} split says"
        notes.add("column-role", file, what, "set data.folder_roles=false to train on them")
    if table.unknown:
        splits = some([f"{split} ({_rows(count)})" for split, count in table.unknown.items()])
        notes.add("column-role", file, f"{splits} is trained, as it is neither train nor validation nor test")


def note_steering(columns: str, file: str, notes: Notes, advice: str) -> None:
    """Note the columns of a `file` that name pictures which are neither trained on nor masks."""
    notes.add("column-role", file, f"pictures that steer a ControlNet are not used: {columns}", advice)


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def file_in(top: Folder) -> tuple[Folder, File] | None:
    """The metadata file that is read of a folder, and the folder that holds it: `top` itself, or its ``train``."""
    for home in (top, *(folder for folder in top.folders if folder.path.name.lower() == "train")):
        named = {name.lower(): file for name, file in home.files.items()}
        for name in FILES:
            if name in named:
                return home, named[name]
    return None


def table_within(entry: Entry, top: Path) -> Path | None:
    """The metadata file of the folder below `top` that a regularisation or validation image is in, if it has one."""
    if not (entry.prior or entry.held):
        return None
    inside = [place for place in entry.file.parents if place != top and place.is_relative_to(top)]
    return next((place / name for place in inside for name in FILES if (place / name).is_file()), None)


def entries_of(
    rows: Iterable[Row], home: Folder, subset: Subset, notes: Notes, by_stem: bool = False
) -> tuple[list[Entry], set[Path]]:
    """The images of `rows`, searched in `home`; rows of one image are its captions. Also all files that are named, used
    or not. What cannot be used is noted.

    `by_stem`: a row may leave out the ending of its image.
    """
    finder = _Finder(home, by_stem)
    images: dict[Path, _Image] = {}
    subset = replace(subset, remedy="give its row a text, or set data.default_caption")
    refused = []
    for row in rows:
        sought = row.name
        try:
            file = finder.find(sought)
            sought = row.mask or ""
            mask = finder.find(sought) if sought else None
        except RowError as error:
            refused.append((error.code, clipped(sought), f"{row.place}: {error}"))
            continue
        image = images.setdefault(file.path, _Image(file))
        image.mask = image.mask or mask
        image.uses.add(row.use)
        image.captions.update(dict.fromkeys(row.captions or ()))
        image.empty |= row.captions is not None
    note_rows(refused, notes)
    beside = {}
    for folder in home.below():
        masks = masks_of(folder)
        beside |= {
            f.path: masks[key(stem_of(name))][0] for name, f in folder.files.items() if key(stem_of(name)) in masks
        }
    entries = []
    for path, image in images.items():
        if image.uses & {"none", "masks"}:
            continue
        state = "found" if image.captions else "empty" if image.empty else "missing"
        prior = "regularisation" in image.uses and not subset.prior
        of_row = replace(subset, prior=True, fallback="") if prior else subset
        captions = of_row.filled(image.file.name, tuple(image.captions), state, notes)
        entry = of_row.entry(image.file, captions, (image.mask or beside.get(path)) if subset.masks else None)
        entries.append(replace(entry, held="validation" in image.uses))
    return entries, finder.met


def note_rows(refused: Sequence[tuple[str, str, str]], notes: Notes) -> None:
    """Note rows that cannot be used: the code of a finding, the file and the detail."""
    counts = Counter[str]()
    for code, file, detail in refused:
        counts[code] += 1
        if counts[code] <= _MOST_NAMED:
            notes.add(code, file, detail)
    for code, count in counts.items():
        if count > _MOST_NAMED:
            notes.add(code, None, f"{count - _MOST_NAMED} more rows")


def note_rest(top: Folder, entries: Iterable[Entry], known: set[Path], notes: Notes, advice: str = "") -> None:
    """Note the images in or below `top` that are in no entry as unlisted, with `advice` instead of adding rows, and all
    other files as not read."""
    known = known | {entry.file for entry in entries} | {entry.mask for entry in entries if entry.mask}
    for folder in top.below():
        pictures = {file.path for file in without_masks(folder, masks_of(folder)).values()}
        for file in folder.files.values():
            if file.path not in known and file.path in pictures:
                notes.add("unlisted", file.name, "not listed", advice)
            elif file.path not in known:
                notes.not_read.append(file.name)


@dataclass
class _Image:
    file: File
    captions: dict[str, None] = field(default_factory=dict)  # a set that keeps its order
    mask: File | None = None
    empty: bool = False
    uses: set[str] = field(default_factory=set)


class _Finder:
    """Finds the files that rows name, in one folder and nowhere else."""

    def __init__(self, home: Folder, by_stem: bool) -> None:
        self.home = home
        self.root = os.path.realpath(home.path)
        self.met: set[Path] = set()
        self.files: dict[str, File] = {}
        self.alike: dict[str, list[File]] = defaultdict(list)
        for folder in home.below():
            inner = "" if folder is home else f"{Path(os.path.relpath(folder.path, home.path)).as_posix()}/"
            pictures = folder.pictures() if by_stem else {}
            for name, file in folder.files.items():
                self.files[inner + name] = file
                self.alike[key(inner + name)].append(file)
                if name in pictures:
                    self.alike[key(inner + stem_of(name))].append(file)

    def find(self, name: str) -> File:
        """The file; RowError if it does not exist or is not in the folder."""
        parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
        plain = "/".join(parts)
        file = self.files.get(name)
        if file is None:
            if ".." in parts or name[:1] in ("/", "\\") or PureWindowsPath(name).drive or "\0" in name:
                raise RowError("entry-outside", "its path leads out of the folder")
            alike = self.alike.get(key(plain), [])
            file = self.files.get(plain) or (alike[0] if len(alike) == 1 else self._hidden(plain))
        self.met.add(file.path)
        if file.linked and not os.path.realpath(file.path).startswith(os.path.join(self.root, "")):
            raise RowError("entry-outside", "a link in its path leads out of the folder")
        return file

    def _hidden(self, plain: str) -> File:
        """A file that the walk left out."""
        path = self.home.path / plain
        try:
            if path.is_dir():
                raise RowError("entry-broken", "a folder, not an image")
            if path.exists():
                return File(path, self.home.inner(plain), True)
        except (OSError, ValueError):
            pass
        raise RowError("entry-missing", "there is no such file")
