"""The first look at a folder of images: one walk that opens no file but those without an ending, and notes."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sd_lora.data.findings import Finding
from sd_lora.data.pictures.decode import FOREIGN_SUFFIXES, IMAGE_SUFFIXES, holds_image, suffix_of
from sd_lora.errors import reason, shown, some

PICTURE_SUFFIXES = IMAGE_SUFFIXES | FOREIGN_SUFFIXES.keys()
#: entries that are not read, of which all are named; of more the endings are counted too
_MOST_LISTED = 5
_RUN = frozenset({"log.jsonl", "config.toml"})
#: endings under which no image is looked for: those of texts, of what is put aside or not complete, of thumbnails
_OTHER = """
.txt .caption .json .jsonl .csv .toml .yaml .md .safetensors .npz .npy .pt .mp4
.bak .old .tmp .part .partial .crdownload .download .thm
"""
_NO_IMAGE = frozenset(_OTHER.split())
_ARCHIVES = frozenset([".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".cbz", ".zst"])
_JUNK = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir"})


class File(NamedTuple):
    """A file: where it is, its name as shown, whether there is a link in its path, and whether it holds an image
    though its name has no ending that says so."""

    path: Path
    name: str
    linked: bool
    unnamed: bool = False


@dataclass
class Folder:
    """A folder of the walk; `name` is relative to the folder walked, with ``/``, and `files` are keyed by bare name."""

    path: Path
    name: str
    linked: bool = False
    files: dict[str, File] = field(default_factory=dict)
    folders: list[Folder] = field(default_factory=list)

    def below(self) -> Iterator[Folder]:
        """This folder and all in it, sorted by name."""
        waiting: list[Folder] = [self]
        while waiting:
            folder = waiting.pop()
            yield folder
            waiting.extend(reversed(folder.folders))

    def pictures(self) -> dict[str, File]:
        """The images directly in it, including kinds that are not read."""
        return {name: file for name, file in self.files.items() if file.unnamed or suffix_of(name) in PICTURE_SUFFIXES}

    def holds_pictures(self) -> bool:
        return any(folder.pictures() for folder in self.below())

    def inner(self, name: str) -> str:
        """`name` in this folder as it is shown."""
        return f"{self.name}/{shown(name)}" if self.name else shown(name)


@dataclass
class Notes:
    """What is noted while reading: findings, names of what is not read, and how many captions came from where."""

    findings: list[Finding] = field(default_factory=list)
    not_read: list[str] = field(default_factory=list)
    #: captions by the suffix of their file; default captions count under the empty suffix
    captioned: Counter[str] = field(default_factory=Counter)
    #: images for which no caption was found: the file that would be read, and what to do about it, if not writing that
    uncaptioned: dict[str, tuple[str, str]] = field(default_factory=dict)

    def take(self, other: Notes) -> None:
        """Add what was noted while reading a folder inside."""
        self.findings += other.findings
        self.not_read += other.not_read
        self.uncaptioned |= other.uncaptioned

    def add(self, code: str, file: str | None, detail: str, advice: str = "") -> None:
        self.findings.append(Finding(code, file, detail, advice))

    def all(self) -> tuple[Finding, ...]:
        """The findings, with one for everything that is not read."""
        names = sorted(self.not_read)
        listed = some(names) if len(names) <= _MOST_LISTED else f"{_by_ending(names)}: {some(names)}"
        what = f"{len(names)} {'entry is' if len(names) == 1 else 'entries are'} not read: {listed}"
        return (*self.findings, *([Finding("not-read", None, what)] if names else []))


def _by_ending(names: Iterable[str]) -> str:
    """How many of `names` have which ending: ``7 .json, 2 .mp4 and 1 other``."""
    endings = Counter(suffix_of(name) if "(" not in name else "" for name in names)
    others = endings.pop("", 0)
    counted = some([f"{count} {ending}" for ending, count in endings.most_common()], 8)
    return f"{counted}{f' and {others} others' if others > 1 else ' and 1 other' if others else ''}"


def walk(top: Path, notes: Notes, name: str = "", leave_out: Iterable[Path | None] = (), deep: bool = True) -> Folder:
    """All that is in `top` except hidden files, the folders to `leave_out`, caches and the run folders of this program.

    `name` comes before every name. Links to folders are followed last, and no folder is read twice; without `deep`,
    subfolders are not read. Raises OSError if `top` itself cannot be read.
    """
    root, real_top = Folder(top, name), Path(os.path.realpath(top))
    seen = {_identity(folder) for folder in (top, *leave_out) if folder}
    waiting: deque[tuple[Folder, str, bool]] = deque()

    def plan(folder: Folder, inside: list[tuple[str, bool]]) -> None:
        for bare, link in reversed(inside):
            (waiting.append if link else waiting.appendleft)((folder, bare, link))

    plan(root, _scan(root))
    if not deep:
        root.folders = [Folder(top / bare, root.inner(bare)) for _, bare, _ in waiting]
        return root
    while waiting:
        parent, bare, link = waiting.popleft()
        folder = Folder(parent.path / bare, parent.inner(bare), link or parent.linked)
        try:
            who = _identity(folder.path)
            if link and who not in seen and real_top.is_relative_to(os.path.realpath(folder.path)):
                notes.not_read.append(f"{folder.name}/ (a link to a folder that this one is in)")
                continue
            if who in seen:
                notes.not_read += [f"{folder.name}/ (a link to a folder that is read already)"] * link
                continue
            seen.add(who)
            inside = _scan(folder)
        except OSError as error:
            notes.not_read.append(f"{folder.name}/ ({reason(error)})")
            continue
        kind = "a cache" if bare.lower() == "cache" else "a run" if folder.files.keys() >= _RUN else ""
        if kind:
            notes.not_read.append(f"{folder.name}/ ({kind})")
            continue
        parent.folders.append(folder)
        plan(folder, inside)
    for folder in root.below():
        folder.folders.sort(key=lambda f: f.name)
    return root


def _scan(folder: Folder) -> list[tuple[str, bool]]:
    """Fill in the files of `folder`; the names of the folders in it, and which of them are links."""
    inside = []
    with os.scandir(folder.path) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.name.startswith(".") or entry.name.lower() in _JUNK:
                continue
            link = entry.is_symlink()
            if _is_folder(entry):
                inside.append((entry.name, link))
            else:
                path = Path(entry.path)
                unnamed = suffix_of(entry.name) not in _NO_IMAGE | PICTURE_SUFFIXES and holds_image(path)
                file = File(path, folder.inner(entry.name), link or folder.linked, unnamed)
                folder.files[entry.name] = file
    return inside


def is_read(file: File) -> bool:
    """Whether `file` is an image of a kind that is read."""
    return file.unnamed or suffix_of(file.path.name) in IMAGE_SUFFIXES


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def is_archive(name: str) -> bool:
    """Whether a file must be unpacked before anything in it is read."""
    return suffix_of(name) in _ARCHIVES


def likely_folder(path: Path) -> Path | None:
    """The existing folder whose name is closest to `path`."""
    if os.path.isfile(path):
        return path.parent
    parent = next(parent for parent in path.parents if os.path.isdir(parent))
    first, *rest = path.relative_to(parent).parts
    try:
        names = {key(entry.name): entry.name for entry in os.scandir(parent) if entry.is_dir()}
    except OSError:
        return None
    close = difflib.get_close_matches(key(first), names, n=1)
    likely = parent / names[close[0]] if close else None
    return likely.joinpath(*rest) if likely and os.path.isdir(likely.joinpath(*rest)) else likely


def stem_of(name: str) -> str:
    return os.path.splitext(name)[0]


def key(name: str) -> str:
    """The same for names that differ only in case, or in how accents are encoded."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def relative(path: Path, base: Path) -> str:
    """`path` as seen from `base`, with ``/``; empty for `base` itself."""
    try:
        name = Path(os.path.relpath(path, base)).as_posix()
    except ValueError:  # another drive
        name = path.as_posix()
    return "" if name == "." else shown(name)
