"""The one reader of captions and prompts that were written for, or by, other programs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sd_lora.data.dialects.generations import read_generation
from sd_lora.data.dialects.syntax import pieces_of, read, unescaped
from sd_lora.data.dialects.tags import read_tags, tags_by_line

_ADDED = re.compile(r"<(?:lora|lyco|lycoris|hypernet):[^<>]*>")
#: options that Midjourney and kohya's scripts write behind a prompt; "n" and "no" say what is not to be seen
_OPTIONS = (
    "ar aspect v version q quality s stylize style seed niji no chaos c iw tile stop uplight hd w h weird raw sref "
    "cref cw sw p profile n d l g ss video test testp personalize"
)
_OPTION = re.compile(rf"\s(?:--|—)(?:{'|'.join(sorted(_OPTIONS.split(), key=len, reverse=True))})(?=\s|$)")
#: those that describe pictures, and do not draw them
_DESCRIBING = {"JSON": "JSON", "a booru": "JSON of a booru", "a tagger": "JSON of a tagger"}


@dataclass(frozen=True)
class Read:
    """What is trained of a text: the `captions`, more than one where it has alternatives. `note` is what was recognised
    and left out, `pieces` is the syntax in it, and `escaped` says that brackets were marked as meant."""

    captions: tuple[str, ...]
    note: str = ""
    pieces: tuple[str, ...] = ()
    escaped: bool = False


def document_in(text: str) -> str:
    """The one caption that all lines of a file are together, on one line: what a program wrote beside a picture, or a
    list of tags. Empty if lines are captions."""
    if read_generation(text) is not None:
        return text
    return tags_by_line(text)


def read_caption(text: str, *, syntax: bool = False, keep: str = "") -> Read:
    """What describes the picture in `text`. `syntax`: weights and alternatives are read, not kept as written. `keep` is
    a word that is never changed, the trigger word."""
    if not _may_be_foreign(text):
        return Read((text,))
    notes = []
    generation = read_generation(text)
    if generation is not None:
        body, program = generation.positive, generation.program
        text = " ".join(_ADDED.sub("", body).split()).strip(" ,")
        trained = "captions and tags are" if program in _DESCRIBING else "prompt is"
        what = _DESCRIBING.get(program, f"text of {program}")
        notes.append(f"{what}, of which {f'only the {trained} trained' if text else 'nothing describes the picture'}")
    option = _OPTION.search(text)
    if option is not None:
        notes.append(f'"{_short(text[option.start() :].strip())}" is an option for drawing and is left out')
        text = text[: option.start()].rstrip(" ,")
    text, note = read_tags(text, keep)
    notes += [note] * bool(note)
    pieces = tuple(pieces_of(text, keep))
    versions = read(text, keep) if syntax and pieces else [text]
    captions = tuple(dict.fromkeys(unescaped(version) for version in versions))
    return Read(captions, "; ".join(notes), pieces, captions != tuple(versions))


def _may_be_foreign(text: str) -> bool:
    """Whether `text` holds anything but words and their usual marks."""
    return not text.isalpha() and re.search(r"[\\:_(\[{<|=—0-9]|--|BREAK|AND|ADD", text) is not None


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"
