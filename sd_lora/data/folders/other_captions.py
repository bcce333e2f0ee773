"""Caption files that no setting names: read where their name leaves no doubt, else found and named."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from sd_lora.data.dialects.objects import described_by, left_out
from sd_lora.data.folders.caption_files import CaptionText, read_caption_file
from sd_lora.data.folders.metadata_rows import TEXTS, clipped, is_blank, kind_of, read_text, texts_of
from sd_lora.data.folders.tree import File, Folder, key, stem_of, suffix_of
from sd_lora.errors import some

#: endings of files that hold nothing but a caption; ``.txt.txt`` and ``.caption.txt`` are made of these
_PLAIN = "txt text caption captions cap tags tag prompt prompts wd14 wd14_cap wd_tags booru blip json"
PLAIN = frozenset(_PLAIN.split())
#: endings of files that may hold a caption in a form that is not read
_UNREAD = "yaml yml xml csv tsv md rtf doc docx odt html htm toml ini desc description"
UNREAD = frozenset(_UNREAD.split())
#: what is said at the end of a name instead of in its ending
_SAID = re.compile(r"(.+)[_\- ](captions?|tags?|prompts?|text|description|desc)", re.IGNORECASE | re.DOTALL)
KEYS = (*TEXTS, "tags")


class OtherCaptions:
    """The files of a folder that may hold a caption of one of its images, besides those that settings name."""

    def __init__(self, folder: Folder, pictures: Iterable[str]) -> None:
        self._owners = {key(owner) for name in pictures for owner in (name, stem_of(name))}
        self._plain: dict[str, list[File]] = defaultdict(list)
        self._unread: dict[str, list[File]] = defaultdict(list)
        own = folder.pictures()
        for name, file in folder.files.items():
            if name not in own:
                self._place(key(name), file)

    def plain(self, name: str) -> list[File]:
        """Files that hold nothing but the caption of the image `name`."""
        return self._of(self._plain, name)

    def unread(self, name: str) -> list[File]:
        """Files that may hold the caption of the image `name`, and are not read."""
        return self._of(self._unread, name)

    @staticmethod
    def _of(places: dict[str, list[File]], name: str) -> list[File]:
        stem = key(stem_of(name))
        return [*places.get(key(name), []), *(places.get(stem, []) if stem != key(name) else [])]

    def _place(self, name: str, file: File) -> None:
        stem, _, ending = name.rpartition(".")
        places = self._plain if ending in PLAIN else self._unread if ending in UNREAD else None
        if not stem or places is None:
            return
        while stem not in self._owners and stem.rpartition(".")[2] in PLAIN | UNREAD and "." in stem:
            stem, _, ending = stem.rpartition(".")
            places = self._unread if ending in UNREAD else places
        if stem not in self._owners and (match := _SAID.fullmatch(stem)):
            stem, places = match[1], self._unread
        if stem in self._owners:
            places[stem].append(file)


def read_other(file: File, lines: str) -> tuple[CaptionText, str]:
    """The captions in a file of an ending that no setting names, and the keys of JSON that are not read. CaptionError,
    or ValueError with the reason."""
    if suffix_of(file.name) != ".json":
        return read_caption_file(file.path, lines), ""
    text, guessed = read_text(file.path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {clipped(str(error))}") from error
    captions, unread = _of_json(content)
    return CaptionText(captions, guessed, bool(guessed)), unread


def _of_json(content: Any) -> tuple[tuple[str, ...], str]:
    if isinstance(content, str):
        return texts_of(content) or (), ""
    if not isinstance(content, dict):
        raise ValueError(f"it holds {kind_of(content)}, not an object with a caption")
    described = described_by(content)
    if described and described[0] != "JSON":
        return texts_of(described[1]) or (), some([clipped(key) for key in left_out(content)])
    given = {str(name).strip().lower(): value for name, value in content.items()}
    known = [name for name in KEYS if given.get(name) is not None] or [name for name in KEYS if name in given]
    if not known and described:  # a model's answer
        return texts_of(described[1]) or (), ""
    if not known:
        has = some([clipped(name) for name in given]) or "nothing"
        raise ValueError(f"it has none of {', '.join(KEYS)}, but {has}")
    chosen = next((name for name in known if not is_blank(given[name])), known[0])
    captions = texts_of(given[chosen]) or ()
    if chosen == "tags" and captions:
        captions = (", ".join(captions),)
    others = [name for name in known if name != chosen and not is_blank(given[name])]
    return captions, some([name for name in others if given[name] != given[chosen]])
