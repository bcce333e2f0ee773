"""Captions in the names of images: ``0012_a_red_house (3).png`` is "a red house"."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sd_lora.data.folders.caption_files import tidy

_BETWEEN = r"[\s_\-.,#]"
#: a counter, or the seed and number of a picture that was generated, before the words
_BEFORE = re.compile(rf"(?:\(?\d+\)?{_BETWEEN}*[_\-.#)]{_BETWEEN}*|0\d*\s+|\d{{3,}}\s+)+")
#: what a camera or a program puts before the words, and the date and numbers behind it: ``IMG 20240101``
_MAKERS = "img dsc dscn dscf pxl vid mvimg image photo picture scan screenshot comfyui"
_CAMERA = re.compile(
    rf"(?:{_MAKERS.replace(' ', '|')}|whatsapp image){_BETWEEN}*\d[\d_\-.]*"
    rf"(?:{_BETWEEN}*(?:at\b|wa\d+|\d+|[ap]m\b))*{_BETWEEN}+(?=\S)",
    re.IGNORECASE,
)
#: what programs and people put behind the words: a version, a size, an upscaler; an engine is none
_SURE = (
    r"v(?!(?:6|8|10|12)\b)\d+(?:\.\d+)?|\d{1,2}x|@\d{1,2}x|\d{3,4}px|\d{3,5}x\d{3,5}|upscayl|upscaled|waifu2x|"
    r"(?:real-?)?esrgan|x4plus(?:-anime)?|ultrasharp|remacri|gigapixel|removebg|rembg|edited|resized|cropped|compressed"
)
#: what means that only beside one of those
_PERHAPS = r"final|standard|topaz|preview|enhanced?|denoised?|photo|lite|[248]k|x\d|ai|scale|crop|copy|\d{1,2}"
_RESIDUE = re.compile(rf"(?:{_BETWEEN}+(?:{_SURE}|{_PERHAPS})|(?<=\w)@\d{{1,2}}x)+$", re.IGNORECASE)
_IS_SURE = re.compile(rf"(?:{_BETWEEN}|(?=@))(?:{_SURE})(?![^\W_])", re.IGNORECASE)
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
    for before in (_CAMERA, _BEFORE):
        if match := before.match(text):
            text = text[match.end() :]
    while cut := _residue_of(text[-_END:]):
        text = text[:-cut]
    between = "_" if " " in text.strip() else "_-."
    text = tidy("".join(" " if c in between else c for c in text)).strip(" -.,#")
    words = _WORD.findall(text)
    said = any((len(word) > 1 or not word.isascii()) and word.lower() not in _MADE_UP for word in words)
    return text if said else ""


def _residue_of(end: str) -> int:
    """How many characters at the `end` of a name are a counter, an identifier or what programs put there."""
    after, residue = _AFTER.search(end), _RESIDUE.search(end)
    found = residue if residue and _IS_SURE.search(residue[0]) else after
    return len(end) - found.start() if found else 0


def reads_like_caption(stem: str) -> bool:
    """Whether the name of an image has at least three words that describe something."""
    words = [word for word in _WORD.findall(caption_of(stem)) if word.lower() not in _MADE_UP]
    return len(words) >= 3 and sum(len(word) > 1 for word in words) >= 2


def like_captions(stems: Iterable[str]) -> list[str]:
    """The captions in `stems`, of those that read like captions."""
    return [caption_of(stem) for stem in stems if reads_like_caption(stem)]
