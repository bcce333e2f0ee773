"""From captions as written to captions as trained: the trigger word, shuffled tags, what a text encoder can read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sd_lora.data.folders.entries import TagRules

PLACEHOLDER = "[trigger]"
_PLACE = re.compile(r"\[\s*trigger\s*\]", re.IGNORECASE)
_SIDED = re.compile(r"\b(left|right|text|letters?|words?|writing|sign)\b", re.IGNORECASE)
#: a longer one is text written without spaces, which may be cut anywhere
_LONGEST_WORD = 30
#: characters; of longer captions the beginning is tried first, as counting all their tokens takes long
LONG = 2000
_SPLIT = re.compile(r"[\s,;]")
_LOOSE = " ,;，、；"


def trigger_phrase(trigger: str) -> str:
    """What calls the style at the end of a caption or prompt: ``in xyz style``; empty without a trigger word."""
    return f"in {_composed(trigger)} style" if trigger else ""


def triggered(caption: str, trigger: str) -> str:
    """The caption with its trigger word: ``a red house`` → ``a red house, in xyz style``.

    ``[trigger]`` in it stands for the word alone; a caption that names the word itself is left as it is.
    """
    if not trigger:
        return caption
    if names_trigger(caption, trigger):
        return _PLACE.sub(lambda _: _composed(trigger), _composed(caption))
    return f"{_composed(caption)}, {trigger_phrase(trigger)}" if caption else trigger_phrase(trigger)


def has_placeholder(caption: str) -> bool:
    """Whether ``[trigger]`` is in `caption`, in any case and with any spaces."""
    return _PLACE.search(caption) is not None


def names_trigger(caption: str, trigger: str) -> bool:
    """Whether `caption` holds the trigger word, or ``[trigger]`` in its place."""
    if has_placeholder(caption):
        return True
    word = rf"(?<!\w){re.escape(_composed(trigger))}(?!\w)"
    return bool(trigger) and re.search(word, _composed(caption), re.IGNORECASE) is not None


def is_sided(caption: str, trigger: str = "") -> bool:
    """Whether the caption, apart from the trigger word, names a side or writing, which mirroring would make wrong."""
    return _SIDED.search(_composed(caption).removesuffix(trigger_phrase(trigger))) is not None


@dataclass(frozen=True)
class Tags:
    """The tags of a caption: those that stay at the beginning and at the end, and between them those that may vary,
    of which the ones at `free` (places) do: the others are or hold the trigger word. `marked`: the caption itself says
    which stay."""

    first: list[str]
    middle: list[str]
    last: list[str]
    free: list[int]
    marked: bool

    @classmethod
    def of(cls, caption: str, rules: TagRules, trigger: str) -> Tags:
        head, marked, rest = caption.partition(rules.separator) if rules.separator else (caption, "", "")
        body, _, tail = rest.partition(rules.separator) if marked else ("", "", "")
        first, middle, last = (_tags(part, rules.comma) for part in (head, body, tail))
        if not marked:
            first, middle = first[: rules.keep], first[rules.keep :]
        free = [place for place, tag in enumerate(middle) if not names_trigger(tag, trigger)]
        return cls(first, middle, last, free, bool(marked))


def versions(caption: str, rules: TagRules, count: int, seed: tuple[int, ...], trigger: str = "") -> list[str]:
    """The versions in which a caption of comma-separated tags is trained, a pure function of `seed`. Captions that do
    not vary have one. A tag that is or holds the trigger word is neither moved nor left out.

    Shuffled ones are all different, the first is as written. Where tags are left out there are `count`, the longest
    first, each as often as it was drawn: over all of them a tag is left out as often as `rules` say.
    """
    tags = Tags.of(caption, rules, trigger)
    as_written = [*tags.first, *tags.middle, *tags.last]
    if not rules.vary:
        return [", ".join(as_written) if tags.marked else caption]

    def drawn(number: int) -> str:
        rng = np.random.default_rng([*seed, number])
        order = rng.permutation(len(tags.free)) if rules.shuffle else np.arange(len(tags.free))
        middle: list[str | None] = list(tags.middle)
        for place, i in zip(tags.free, order, strict=True):
            middle[place] = tags.middle[tags.free[i]] if rng.random() >= rules.dropout else None
        return ", ".join([*tags.first, *(tag for tag in middle if tag is not None), *tags.last])

    if count == 1 or not tags.free:
        return [", ".join(as_written)]
    if rules.dropout:
        return sorted(map(drawn, range(count)), key=len, reverse=True)
    return list(dict.fromkeys([", ".join(as_written), *map(drawn, range(1, count))]))


def shortened(caption: str, trigger: str, fits: Callable[[str], bool]) -> tuple[str, str]:
    """`caption` with its trigger, without the last words that do not fit, and those words (empty if all fit)."""
    complete = triggered(caption, trigger)
    if len(caption) <= LONG and fits(complete):
        return complete, ""

    def is_short_enough(length: int) -> bool:
        return fits(triggered(_beginning(caption, length), trigger))

    low, high = 0, 64  # characters; doubled first, as a small part of the caption may be all that fits
    while high < len(caption) and is_short_enough(high):
        low, high = high, 2 * high
    if len(caption) > LONG and high >= len(caption) and fits(complete):
        return complete, ""
    high = min(high, len(caption)) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if is_short_enough(middle) else (low, middle - 1)
    kept = _beginning(caption, low)
    return triggered(kept, trigger), caption[len(kept) :].lstrip(_LOOSE)


def _beginning(caption: str, length: int) -> str:
    """The first `length` characters, without a word that is cut, unless it is too long for one."""
    before = _SPLIT.split(caption[max(0, length - _LONGEST_WORD) : length])[-1]
    after = _SPLIT.split(caption[length : length + _LONGEST_WORD])[0]
    if after and len(before + after) <= _LONGEST_WORD:
        length -= len(before)
    while 0 < length < len(caption) and unicodedata.category(caption[length])[0] == "M":
        length -= 1  # accents and vowel signs stay with their letter
    return caption[:length].rstrip(_LOOSE)


def _composed(text: str) -> str:
    """`text` with accents encoded in one way."""
    return unicodedata.normalize("NFC", text)


def _tags(text: str, comma: str) -> list[str]:
    return [tag for tag in (part.strip() for part in text.split(comma)) if tag]
