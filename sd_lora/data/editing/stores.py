"""Where captions that can be edited are kept: in files beside the images, or in the rows of a table."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sd_lora.config.schema import DataConfig
from sd_lora.data.editing.table_text import TextRow, text_rows, with_captions
from sd_lora.data.folders.beside import in_order
from sd_lora.data.folders.caption_files import MARKS, MAX_BYTES, CaptionError, decode_text, read_caption_file
from sd_lora.data.folders.metadata import entries_of
from sd_lora.data.folders.metadata_rows import MAX_BYTES as MAX_TABLE
from sd_lora.data.folders.metadata_rows import read_rows
from sd_lora.data.folders.other_captions import OtherCaptions, read_other
from sd_lora.data.folders.sidecars import Subset
from sd_lora.data.folders.tree import File, Folder, Notes, key, relative, stem_of, suffix_of, walk
from sd_lora.data.pictures.decode import digest_of
from sd_lora.errors import DataError, reason

_SUFFIXES = DataConfig().caption_suffixes


@dataclass(frozen=True)
class Held:
    """The `captions` of an image, and the `file` that holds them: its `path`, its `content` (None: it does not exist)
    and `stamp`, which shows whether the captions were changed elsewhere."""

    path: Path
    file: str
    captions: tuple[str, ...]
    content: bytes | None
    stamp: Hashable


class Beside:
    """Captions in files beside the images, NAME.txt or NAME.caption."""

    def __init__(self, images: Mapping[str, Path], folder: Path) -> None:
        self._images, self._folder = images, folder
        self._stems = Counter(_stem(file) for file in images.values())

    def held(self, name: str) -> Held:
        """The captions of an image. DataError if they cannot be read."""
        image = self._images[name]
        files = self._files(image)
        shared = self._stems[_stem(image)] > 1
        new = image.parent / ((image.name if shared else stem_of(image.name)) + _SUFFIXES[0])
        if not files:
            return self._new(new, *self._elsewhere(image))
        read, captions = self._read(files)
        content = bytes_of(read, self._name(read))
        stamp = (str(read), digest_of(content))
        if shared and key(stem_of(read.name)) != key(image.name):  # it is also the caption of other images
            return self._new(new, captions, stamp)
        return Held(Path(os.path.realpath(read)), self._name(read), captions, content, stamp)

    def rewritten(self, name: str, held: Held, captions: tuple[str, ...]) -> bytes:
        """The content of the file with other captions for the image. DataError if it cannot hold them."""
        content = rewritten_lines(held.content, captions)
        if len(content) > MAX_BYTES:
            raise DataError(
                f"the caption of {name} has {len(content) / 1000:.0f} kB, but only {MAX_BYTES // 1000} kB are read; "
                "shorten it"
            )
        return content

    def _new(self, file: Path, captions: tuple[str, ...], stamp: tuple[str, ...]) -> Held:
        return Held(Path(os.path.realpath(file)), self._name(file), captions, None, (str(file), *stamp))

    def _elsewhere(self, image: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The captions in a file of another kind, such as NAME.json, which stays as it is, and what shows that they
        were changed."""
        folder = walk(image.parent, Notes(), deep=False)
        names = [file.name for file in self._images.values() if file.parent == image.parent]
        files = OtherCaptions(folder, names).plain(image.name)
        for file in files[:1]:
            try:
                captions = read_other(file, DataConfig().caption_lines)[0].captions
            except (DataError, ValueError) as error:
                raise DataError(f"{self._name(file.path)} cannot be read: {error}; save it as UTF-8 text") from error
            return captions, (str(file.path), *captions)
        return (), ()

    def _name(self, file: Path) -> str:
        return relative(file, self._folder)

    def _read(self, files: Sequence[Path]) -> tuple[Path, tuple[str, ...]]:
        """The first file with a caption, else the first that can be read, and its captions."""
        read: list[tuple[Path, tuple[str, ...]]] = []
        refused = ""
        for file in files:
            try:
                read.append((file, read_caption_file(file).captions))
            except CaptionError as error:
                refused = refused or f"{self._name(file)} cannot be read: {error.detail}; save it as UTF-8 text"
        if not read:
            raise DataError(refused)
        return next((pair for pair in read if pair[1]), read[0])

    def _files(self, image: Path) -> list[Path]:
        """The caption files of an image in the order in which training looks for them."""
        try:
            with os.scandir(image.parent) as entries:
                names = {entry.name for entry in entries if not entry.is_dir()}
        except OSError as error:
            raise DataError(f"{self._name(image.parent) or '.'} cannot be read: {reason(error)}; allow it") from error
        alike: dict[str, list[str]] = {}
        for name in sorted(names):
            alike.setdefault(key(name), []).append(name)

        def find(name: str) -> list[Path]:
            return [image.parent / n for n in ([name] if name in names else alike.get(key(name), []))]

        return in_order(image.name, _SUFFIXES, find, shared=self._stems[_stem(image)] > 1)


def _stem(image: Path) -> tuple[Path, str]:
    return image.parent, key(stem_of(image.name))


def rewritten_lines(content: bytes | None, captions: Sequence[str]) -> bytes:
    """A caption file of `captions`, one per line, with the mark, encoding and line ends of its old `content`; in UTF-8
    if that encoding cannot hold them or would not be recognised."""
    text, encoding, _ = decode_text(content or b"")
    mark = _mark(content or b"", text, encoding) or b""
    end = "\r\n" if "\r\n" in text else "\r" if "\r" in text and "\n" not in text else "\n"
    new = end.join(captions) + end * bool(captions and (not text or text.endswith(("\n", "\r"))))
    try:
        written = mark + new.encode(encoding or "utf-8")
        if decode_text(written)[0] == new:
            return written
    except ValueError:
        pass
    return new.encode()


def _mark(content: bytes, text: str, encoding: str) -> bytes | None:
    """The mark before the `text` in the `content` it was decoded from; None if some bytes are not part of a letter."""
    body = text.encode(encoding or "utf-8", "replace")
    mark = content[: len(content) - len(body)]
    return mark if content == mark + body and mark in (b"", *MARKS) else None


@dataclass(frozen=True)
class _Content:
    """A table as it is now: its bytes and text, its rows by place, and by image the places of its rows."""

    content: bytes
    text: str
    mark: bytes
    encoding: str
    rows: dict[str, TextRow]
    images: dict[str, list[str]]


class Table:
    """Captions in the rows of a table that is text."""

    def __init__(self, home: Folder, file: File) -> None:
        self._home, self._file = home, file
        self._is_csv = suffix_of(file.name) == ".csv"
        self._last: _Content | None = None

    def names(self) -> set[str]:
        """The images that it lists. DataError if it cannot be edited."""
        return set(self._table().images)

    def held(self, name: str) -> Held:
        """As in `Beside`."""
        table = self._table()
        rows = self._rows(name, table)
        captions = tuple(caption for row in rows for caption in row.captions)
        stamp = tuple(row.raw.rstrip("\r\n") for row in rows)
        return Held(Path(os.path.realpath(self._file.path)), self._file.name, captions, table.content, stamp)

    def rewritten(self, name: str, held: Held, captions: tuple[str, ...]) -> bytes:
        """As in `Beside`."""
        table = self._table()
        rows = self._rows(name, table)
        if len(rows) > 1 and len(captions) != len(held.captions):
            raise DataError(
                f"{name} has {len(rows)} rows in {held.file} with {len(held.captions)} captions, but {len(captions)} "
                "lines were given; keep their number, or edit the table itself"
            )
        changes, rest = {}, captions
        for row in rows:
            count = len(row.captions) if len(rows) > 1 else len(rest)
            if rest[:count] != row.captions:
                changes[row.place] = rest[:count]
            rest = rest[count:]
        longest = max(map(len, captions), default=0)
        if longest > MAX_BYTES:
            raise DataError(
                f"the caption of {name} has {longest} characters, but only {MAX_BYTES} are read; shorten it"
            )
        try:
            content = self._encoded(table, changes)
        except ValueError as error:
            raise DataError(f"the caption of {name} cannot be written to {held.file}: {error}") from error
        if len(content) > MAX_TABLE:
            raise DataError(
                f"{held.file} would be over {MAX_TABLE // 1_000_000} MB, the most that is read; shorten captions"
            )
        return content

    def _encoded(self, table: _Content, changes: Mapping[str, Sequence[str]]) -> bytes:
        """The table with these captions; ValueError, in a clause, if its encoding cannot hold them."""
        escaped = table.text.isascii() and "\\u" in table.text  # then all foreign letters are escaped, and stay so
        for plain_ascii in (escaped, True):
            text = with_captions(table.text, changes, table.rows, plain_ascii=plain_ascii)
            with contextlib.suppress(ValueError):
                content = table.mark + text.encode(table.encoding or "utf-8")
                if decode_text(content)[0] == text and self._is_as_meant(table, changes, text):
                    return content
        raise ValueError(
            f"its encoding, {table.encoding or 'UTF-8'}, cannot hold it or would not be recognised; save the "
            "file as UTF-8"
        )

    def _is_as_meant(self, table: _Content, changes: Mapping[str, Sequence[str]], text: str) -> bool:
        """Whether a new text is the same apart from the changes; it may have fewer lines, as a caption takes one."""
        pairs = list(zip(table.rows.items(), text_rows(text, is_csv=self._is_csv).values(), strict=False))
        return len(pairs) == len(table.rows) and all(
            new.captions == tuple(changes[place]) if place in changes else new.raw == old.raw
            for (place, old), new in pairs
        )

    def _rows(self, name: str, table: _Content) -> list[TextRow]:
        places = table.images.get(name, [])
        rows = [table.rows[place] for place in places if place in table.rows]
        if not places:
            raise DataError(f"{name} is no longer listed in {self._file.name}; refresh the folder")
        if len(rows) < len(places):
            place = next(place for place in places if place not in table.rows)
            raise DataError(
                f"{name} has no place for a caption in {self._file.name}, {place}; add a column text, or edit the "
                "table itself"
            )
        return rows

    def _table(self) -> _Content:
        """The table as it is now, read again if it has changed. DataError."""
        path, name = self._file.path, self._file.name
        last, state = self._last, _state(path)
        if (
            last is not None
            and path.is_file()
            and state[0] == len(last.content)
            and bytes_of(path, name) == last.content
        ):
            return last
        try:
            read = read_rows(path)  # checks kind and size before it reads anything
        except DataError as error:
            raise DataError(f"{name} cannot be read: {error}; correct it") from error
        content = bytes_of(path, name)
        if _state(path) != state:
            raise DataError(f"{name} is just being changed elsewhere; try again")
        text, encoding, _ = decode_text(content)
        mark = _mark(content, text, encoding)
        if mark is None:
            raise DataError(f"{name} is not completely in a known encoding; save it as UTF-8")
        rows = text_rows(text, is_csv=self._is_csv)
        for row in read.rows:
            if row.place in rows and rows[row.place].captions != (row.captions or ()):
                raise DataError(f"{name} cannot be edited here, as {row.place} is read in two ways; edit it by hand")
        # the image of each row is found as for training, with its number in place of its captions
        numbered = [replace(row, captions=(str(i),)) for i, row in enumerate(read.rows)]
        entries, _ = entries_of(numbered, self._home, Subset.of(DataConfig()), Notes())
        images = {entry.name: [read.rows[int(i)].place for i in entry.captions] for entry in entries}
        self._last = _Content(content, text, mark, encoding, rows, images)
        return self._last


def _state(file: Path) -> tuple[int, int, int]:
    """Size, time of change and identity of a file; zeros if it does not exist."""
    try:
        status = file.stat()
    except OSError:
        return 0, 0, 0
    return status.st_size, status.st_mtime_ns, status.st_ino


def bytes_of(file: Path, name: str) -> bytes:
    """The content of a file; DataError, which calls it `name`, if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{name} cannot be read: {reason(error)}; allow it") from error
