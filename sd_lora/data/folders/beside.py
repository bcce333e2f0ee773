"""The caption files beside the images of one folder: whose they are, and what they say."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from sd_lora.data.folders.caption_files import CaptionError, CaptionText, read_caption_file
from sd_lora.data.folders.other_captions import OtherCaptions, read_other
from sd_lora.data.folders.tree import File, Folder, Notes, is_read, key, stem_of, suffix_of
from sd_lora.errors import DataError, shown, some

if TYPE_CHECKING:
    from sd_lora.data.folders.sidecars import Subset

T = TypeVar("T")
#: of a caption; what is unreadable is noted, and nothing takes its place
State = Literal["found", "missing", "empty", "unreadable"]
_NAME_ENDING = "name its ending in data.caption_suffixes, or in caption_extension of a dataset file"


def in_order(name: str, suffixes: Sequence[str], find: Callable[[str], list[T]], *, shared: bool) -> list[T]:
    """The caption files of the image `name`, the one to read first: those named for it alone come before those named
    for its stem, which do not count if it has such files and other images share the stem."""
    exact = [file for suffix in suffixes for file in find(name + suffix)]
    return exact if exact and shared else exact + [file for suffix in suffixes for file in find(stem_of(name) + suffix)]


@dataclass
class Beside:
    """The caption files of one folder: which images they belong to and what they say. Each is read once."""

    folder: Folder
    pictures: dict[str, File]
    subset: Subset
    notes: Notes
    read: set[Path] = field(default_factory=set)
    _texts: dict[Path, CaptionText | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._endings = tuple(suffix.lower() for suffix in self.subset.suffixes)
        self._by_key: dict[str, list[str]] = defaultdict(list)
        for name in self.folder.files:
            if key(name).endswith(self._endings):
                self._by_key[key(name)].append(name)
        self._stems = Counter(key(stem_of(name)) for name in self.pictures)
        self._others = OtherCaptions(self.folder, self.pictures)
        self._users: dict[Path, list[str]] = defaultdict(list)
        for name in self.pictures:
            if is_read(self.pictures[name]) and (files := self._files(name)):
                self._users[files[0].path].append(name)

    def captions(self, name: str) -> tuple[tuple[str, ...], State]:
        """The captions beside the image `name`, and how they were found."""
        files = self._files(name)
        self.read |= {file.path for file in files}
        texts = [(file, text) for file in files if (text := self._text(file)) is not None]
        if not texts:
            return (), "unreadable" if files or self._overlooked(name) else "missing"
        chosen, text = next((pair for pair in texts if pair[1].captions), texts[0])
        image = self.pictures[name].name
        for other, other_text in texts:
            if other_text.captions != text.captions:
                self.notes.add("caption-twice", image, f"{chosen.name} is read and {other.name} is not")
        others = [user for user in self._users[chosen.path] if user != name]
        if others and is_read(self.pictures[name]):
            self.notes.add("caption-shared", image, f"shares {chosen.name} with {some(others)}")
        if not text.captions:
            return (), "empty"
        self.notes.captioned[suffix_of(chosen.name)] += 1
        return text.captions, "found"

    def _files(self, name: str) -> list[File]:
        files = in_order(name, self.subset.suffixes, self._find, shared=self._stems[key(stem_of(name))] > 1)
        return files or (self._others.plain(name) if self.subset.others else [])

    def _overlooked(self, name: str) -> bool:
        """Whether an image without a caption has a file that may hold one, which is noted."""
        plain = self._others.plain(name) if self.subset.suffixes else []
        files = plain or (self._others.unread(name) if self.subset.suffixes else [])
        if files:
            what = f"its caption may be in {some([file.name for file in files])}, which is not read"
            self.notes.add("caption-unread", self.pictures[name].name, what, _NAME_ENDING if plain else "")
        return bool(files)

    def _find(self, name: str) -> list[File]:
        names = self._by_key.get(key(name), [])
        return [self.folder.files[n] for n in ([name] if name in names else names)]

    def _text(self, file: File) -> CaptionText | None:
        if file.path not in self._texts:
            self._texts[file.path] = self._read(file)
        return self._texts[file.path]

    def _read(self, file: File) -> CaptionText | None:
        try:
            if key(file.name).endswith(self._endings):
                text = read_caption_file(file.path, self.subset.lines)
            else:
                text, unread = read_other(file, self.subset.lines)
                if unread:
                    self.notes.add("column-unread", file.name, f"not read is {unread}")
        except CaptionError as error:
            self.notes.add("caption-unreadable", file.name, error.detail)
            return None
        except (DataError, ValueError) as error:
            self.notes.add("caption-unread", file.name, str(error))
            return None
        if text.document:
            text = replace(text, captions=(text.document,))
        if text.guessed:
            seen = shown(" / ".join(text.captions)[:60])
            self.notes.add("caption-encoding", file.name, f"read as {text.encoding}: {seen}")
        if len(text.captions) > 1 and suffix_of(file.name) != ".json":
            self.notes.add("caption-lines", file.name, f"{len(text.captions)} lines")
        return text
