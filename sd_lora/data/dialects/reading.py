"""The one reader of captions and prompts that were written for, or by, other programs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sd_lora.data.dialects.answers import begins_an_answer, read_answer, unwrapped
from sd_lora.data.dialects.generations import read_generation
from sd_lora.data.dialects.markup import has_tags, text_of_xml, without_html
from sd_lora.data.dialects.options import without_call, without_options
from sd_lora.data.dialects.syntax import pieces_of, read, unescaped
from sd_lora.data.dialects.tags import read_tags, tags_by_line

_ADDED = re.compile(r"<(?:lora|lyco|lycoris|hypernet):[^<>]*>")
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
    """The one caption that all lines of a file are together: what a program wrote beside a picture, a model's answer,
    or a list of tags. Empty if lines are captions."""
    if unwrapped(text)[1] or text_of_xml(text)[1] or has_tags(text) or begins_an_answer(text):
        return text
    return text if read_generation(text) is not None else tags_by_line(text)


def read_caption(text: str, *, syntax: bool = False, keep: str = "") -> Read:
    """What describes the picture in `text`. `syntax`: weights and alternatives are read, not kept as written. `keep` is
    a word that is never changed, the trigger word."""
    if keep and text.strip().lower() == keep.lower():
        return Read((text,))
    notes = []
    for step in (unwrapped, text_of_xml, _prompt_of, without_html, read_answer, without_call, without_options):
        text, note = step(text)
        notes += [note] * bool(note)
    text, note = read_tags(text, keep)
    notes += [note] * bool(note)
    if notes:
        text = " ".join(text.split())
    pieces = tuple(pieces_of(text, keep))
    versions = read(text, keep) if syntax and pieces else [text]
    captions = tuple(dict.fromkeys(unescaped(version) for version in versions))
    return Read(captions, "; ".join(notes), pieces, captions != tuple(versions))


def _prompt_of(text: str) -> tuple[str, str]:
    """The prompt or the description in what a program wrote, and a clause about it; `text` itself if it is none."""
    generation = read_generation(text)
    if generation is None:
        return text, ""
    program = generation.program
    text = " ".join(_ADDED.sub("", generation.positive).split()).strip(" ,")
    trained = "captions and tags are" if program in _DESCRIBING else "prompt is"
    what = _DESCRIBING.get(program, f"text of {program}")
    return text, f"{what}, of which {f'only the {trained} trained' if text else 'nothing describes the picture'}"
