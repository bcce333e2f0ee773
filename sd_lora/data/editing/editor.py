"""Write captions where training reads them, and undo that: one file or one row at a time, nothing else is changed."""

from __future__ import annotations

import os
import shutil
import threading
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sd_lora.config.schema import DataConfig
from sd_lora.data.editing.stores import Beside, Held, Table, bytes_of
from sd_lora.data.findings import sentences
from sd_lora.data.folders import metadata
from sd_lora.data.folders.caption_files import MAX_CAPTIONS, tidy
from sd_lora.data.folders.entries import Listing
from sd_lora.data.folders.listing import list_folder
from sd_lora.data.folders.tree import Notes, suffix_of, walk
from sd_lora.data.pictures.decode import digest_of, read_picture
from sd_lora.errors import DataError, shown
from sd_lora.storage.atomic import remove, storing, sync_folder, write_atomically

if TYPE_CHECKING:
    from PIL import Image

#: how many changes can be undone
_MOST_CHANGES = 1000
#: of two threads that write one file each would lose the changes of the other
_writing = threading.RLock()


class CaptionChanged(DataError):
    """A caption that was changed elsewhere since it was read."""


@dataclass(frozen=True)
class Change:
    """A file as it was before a caption was written: from byte `at` on, `new` replaced `old`."""

    name: str
    file: str
    path: Path
    at: int
    old: bytes
    new: bytes
    #: SHA-256 of the complete file before (None: there was none) and after
    before: str | None
    after: str


class CaptionEditor:
    """Reads and writes the captions of a folder's images, wherever its layout keeps them.

    Captions beside images are written to NAME.txt, those of ``metadata.jsonl`` and ``.csv`` in their row.
    Raises DataError for a folder that does not exist, or whose captions are not text files. Threads may share it.

    >>> editor = CaptionEditor("photos")
    >>> editor.write("cat.png", "a cat on a chair")
    True
    >>> editor.undo()
    'cat.png'
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(os.path.expanduser(folder))
        self._changes: deque[Change] = deque(maxlen=_MOST_CHANGES)
        self._seen: dict[str, Hashable] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the folder again; what was read and written here is still known."""
        listing = list_folder(DataConfig(folder=str(self.folder)))
        with _writing:
            self.layout = listing.layout
            self._images = {entry.name: entry.file for entry in listing.entries}
            tables = {entry.name: metadata.table_within(entry, self.folder) for entry in listing.entries}
            self._tables = {name: table for name, table in tables.items() if table is not None}
            self._store = _store_of(self.folder, listing)
            self._beside = Beside(self._images, self.folder)
            # images of a folder such as reg/ need not be in the table
            self._unlisted = self._images.keys() - self._store.names() if isinstance(self._store, Table) else set()
            self._seen = {name: stamp for name, stamp in self._seen.items() if name in self._images}

    @property
    def names(self) -> tuple[str, ...]:
        """The images, by their names relative to the folder."""
        return tuple(self._images)

    def read(self, name: str) -> str:
        """The captions of an image as they are written, one a line; empty if it has none. DataError."""
        with _writing:
            held = self._held(name)
            self._seen[name] = held.stamp
        return "\n".join(held.captions)

    def write(self, name: str, text: str) -> bool:
        """Give an image other captions, one a line; whether that changes anything.

        Raises CaptionChanged, and writes nothing, if they were changed elsewhere since they were read here, DataError
        if this folder's layout cannot hold them, StorageError if the disk cannot be written.
        """
        self._file(name)
        captions = tuple(clean for line in text.splitlines() if (clean := tidy(line)))
        if len(captions) > MAX_CAPTIONS:
            raise DataError(
                f"{name} was given {len(captions)} captions, but only {MAX_CAPTIONS} are read; leave some out"
            )
        with _writing:
            held = self._held(name)
            if self._seen.get(name, held.stamp) != held.stamp:
                raise CaptionChanged(
                    f"the caption of {name} in {held.file} was changed elsewhere since it was read here; read it again "
                    "before you write"
                )
            if captions == held.captions and (held.content is not None or not captions):
                return False
            if not self._images[name].is_file():
                raise DataError(f"the image {name} no longer exists; refresh the folder")
            content = self._store_for(name).rewritten(name, held, captions)
            if held.content is None and os.path.lexists(held.path):
                raise DataError(f"{held.file} cannot be written, as there is something else of that name; rename that")
            _write(held.path, content)
            self._changes.append(_change(name, held, content))
            self._seen[name] = self._held(name).stamp
        return True

    def undo(self) -> str:
        """Undo the last change, byte for byte; returns the name of its image.

        Raises DataError if there is nothing to undo, or if the file was changed elsewhere since: then it stays as it
        is, and the change is forgotten.
        """
        with _writing:
            if not self._changes:
                raise DataError("nothing was written here that could be undone")
            change = self._changes.pop()
            exists = os.path.isfile(change.path) and os.path.realpath(change.path) == str(change.path)
            content = bytes_of(change.path, change.file) if exists else None
            if content is None or digest_of(content) != change.after:
                raise DataError(
                    f"{change.file} was changed elsewhere since the caption of {change.name} was written, and stays "
                    "as it is; fix it by hand"
                )
            if change.before is None:
                with storing(change.path):
                    remove(change.path)
                    sync_folder(change.path.parent)
            else:
                end = change.at + len(change.new)
                _write(change.path, content[: change.at] + change.old + content[end:])
            self._seen.pop(change.name, None)
        return change.name

    def picture(self, name: str, side: int = 512) -> Image.Image:
        """The image, upright, in sRGB and reduced to fit a square of `side` pixels. DataError if it cannot be read."""
        picture = read_picture(self._file(name)).image
        picture.thumbnail((side, side))
        return picture

    def _file(self, name: str) -> Path:
        if name not in self._images:
            raise DataError(f'there is no image "{shown(name)[:100]}" in {shown(self.folder.name)}; choose another')
        return self._images[name]

    def _store_for(self, name: str) -> Beside | Table:
        return self._beside if name in self._unlisted else self._store

    def _held(self, name: str) -> Held:
        self._file(name)
        if (table := self._tables.get(name)) and (name in self._unlisted or isinstance(self._store, Beside)):
            raise DataError(f"the caption of {name} is in {table}; edit the folder {table.parent} by itself")
        held = self._store_for(name).held(name)
        root = os.path.join(os.path.realpath(self.folder), "")
        if not str(held.path).startswith(root):
            raise DataError(f"the caption of {name} is outside the folder, behind a link; copy it into the folder")
        return held


def _store_of(folder: Path, listing: Listing) -> Beside | Table:
    """Where the captions of a folder are kept. DataError if they cannot be edited there."""
    name = shown(folder.name)
    if listing.layout == "kohya-toml":
        raise DataError(
            f"the captions of {name} are described by a dataset file, which cannot be edited here; edit the folders "
            "that it names, one by one"
        )
    if listing.layout != "metadata":
        return Beside({entry.name: entry.file for entry in listing.entries}, folder)
    place = metadata.file_in(walk(folder, Notes()))
    if place is None:
        raise DataError(f"the metadata file of {name} no longer exists; refresh the folder")
    home, file = place
    if suffix_of(file.name) == ".parquet":
        raise DataError(f"the captions of {name} are in {file.name}, which is not text; save it as metadata.jsonl")
    if not listing.entries:
        raise DataError("; ".join(sentences(listing.findings, "error")) or f"{file.name} lists no images; add rows")
    return Table(home, file)


def _write(path: Path, content: bytes) -> None:
    """Write a file completely or not at all, with the permissions that it had."""

    def keep_mode(partial: Path) -> None:
        if path.exists():
            shutil.copymode(path, partial)

    write_atomically(path, content, keep_mode)


def _change(name: str, held: Held, new: bytes) -> Change:
    old = held.content or b""
    start = _same(old, new)
    end = _same(old[start:][::-1], new[start:][::-1])
    replaced, replacement = old[start : len(old) - end], new[start : len(new) - end]
    before = None if held.content is None else digest_of(old)
    return Change(name, held.file, held.path, start, replaced, replacement, before, digest_of(new))


def _same(one: bytes, other: bytes) -> int:
    """How many of their first bytes are the same."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low
