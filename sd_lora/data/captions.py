"""From captions as written to captions as trained: the trigger word, shuffled tags, what a text encoder can read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

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


def versions(caption: str, rules: TagRules, count: int, seed: tuple[int, ...]) -> list[str]:
    """The versions in which a caption of comma-separated tags is trained, a pure function of `seed`. Captions that do
    not vary have one.

    Shuffled ones are all different, the first is as written. Where tags are left out there are `count`, the longest
    first, each as often as it was drawn: over all of them a tag is left out as often as `rules` say.
    """
    head, separated, tail = caption.partition(rules.separator) if rules.separator else ("", "", caption)
    tags = [tag for part in (head, tail) for tag in _tags(part, rules.comma)]
    if not rules.vary:
        return [", ".join(tags) if separated else caption]
    keep = len(_tags(head, rules.comma)) if separated else rules.keep
    fixed, loose = tags[:keep], tags[keep:]

    def drawn(number: int) -> str:
        rng = np.random.default_rng([*seed, number])
        order = rng.permutation(len(loose)) if rules.shuffle else np.arange(len(loose))
        return ", ".join([*fixed, *(loose[i] for i in order if rng.random() >= rules.dropout)])

    if count == 1 or not loose:
        return [", ".join(tags)]
    if rules.dropout:
        return sorted(map(drawn, range(count)), key=len, reverse=True)
    return list(dict.fromkeys([", ".join(tags), *map(drawn, range(1, count))]))


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
