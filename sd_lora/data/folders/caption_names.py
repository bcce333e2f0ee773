"""Captions in the names of images: ``0012_a_red_house (3).png`` is "a red house"."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sd_lora.data.folders.caption_files import tidy

_BETWEEN = r"[\s_\-.,#]"
#: a counter, or the seed and number of a picture that was generated, before the words
_BEFORE = re.compile(rf"(?:\(?\d+\)?{_BETWEEN}*[_\-.#)]{_BETWEEN}*|0\d*\s+|\d{{3,}}\s+)+")
#: an identifier: letters and digits of base 16, a UUID
_ID = r"(?=[0-9a-f\-]*\d)(?:[0-9a-f]{6,}(?:-[0-9a-f]{4,12})*)"
_AFTER = re.compile(
    rf"(?:\s*\(\d+\)|{_BETWEEN}*[_\-#]{_BETWEEN}*\d+|\s+0\d*|\s+\d{{1,3}}|{_BETWEEN}+{_ID}|\s+-?\s*copy|[_\-]+)$",
    re.IGNORECASE,
)
#: characters of a name's end in which a counter or an identifier is looked for
_END = 80
_WORD = re.compile(r"[^\W\d_]+")
_GIVEN = """
img dsc dscn dscf pxl vid mvimg image photo picture screenshot screen shot scan whatsapp telegram signal facebook
download downloads untitled unnamed file copy at am pm comfyui txt img2img upscaled final edited crop
unsplash pexels pixabay
"""
#: words that cameras, phones and programs give instead of a description
_MADE_UP = frozenset(_GIVEN.split())


def caption_of(stem: str) -> str:
    """The caption that the name of an image says, without counters and identifiers; empty if it says none."""
    text = stem
    if match := _BEFORE.match(text):
        text = text[match.end() :]
    while match := _AFTER.search(text[-_END:]):
        text = text[: len(text[:-_END]) + match.start()]
    between = "_" if " " in text.strip() else "_-."
    text = tidy("".join(" " if c in between else c for c in text)).strip(" -.,#")
    words = _WORD.findall(text)
    said = any((len(word) > 1 or not word.isascii()) and word.lower() not in _MADE_UP for word in words)
    return text if said else ""


def reads_like_caption(stem: str) -> bool:
    """Whether the name of an image has at least three words that describe something."""
    words = [word for word in _WORD.findall(caption_of(stem)) if word.lower() not in _MADE_UP]
    return len(words) >= 3 and sum(len(word) > 1 for word in words) >= 2


def like_captions(stems: Iterable[str]) -> list[str]:
    """The captions in `stems`, if more than half of them read like captions."""
    given = list(stems)
    meant = [caption_of(stem) for stem in given if reads_like_caption(stem)]
    return meant if len(meant) > len(given) / 2 else []
