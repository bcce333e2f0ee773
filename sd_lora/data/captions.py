"""From captions as written to captions as trained: the trigger word, shuffled tags, what a text encoder can read."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from sd_lora.data.entries import TagRules

PLACEHOLDER = "[trigger]"
_SIDED = re.compile(r"\b(left|right|text|letters?|words?|writing|sign)\b", re.IGNORECASE)


def trigger_phrase(trigger: str) -> str:
    """What calls the style at the end of a caption or prompt: ``in xyz style``; empty without a trigger word."""
    return f"in {trigger} style" if trigger else ""


def triggered(caption: str, trigger: str) -> str:
    """The caption with its trigger word: ``a red house`` → ``a red house, in xyz style``.

    ``[trigger]`` in it stands for the word alone; a caption that names the word itself is left as it is.
    """
    if not trigger or names_trigger(caption, trigger):
        return caption.replace(PLACEHOLDER, trigger) if trigger else caption
    return f"{caption}, {trigger_phrase(trigger)}" if caption else trigger_phrase(trigger)


def names_trigger(caption: str, trigger: str) -> bool:
    """Whether `caption` holds the trigger word, or ``[trigger]`` in its place."""
    if PLACEHOLDER in caption:
        return True
    return bool(trigger) and re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", caption, re.IGNORECASE) is not None


def is_sided(caption: str, trigger: str = "") -> bool:
    """Whether the caption names a side or writing, which a mirrored picture would belie; the trigger word may."""
    return _SIDED.search(caption.removesuffix(trigger_phrase(trigger))) is not None


def versions(caption: str, rules: TagRules, count: int, seed: tuple[int, ...]) -> list[str]:
    """The versions in which a caption of comma-separated tags is trained: first as written, then up to `count` - 1
    others by `rules`, a pure function of `seed`. Captions that do not vary have one."""
    head, separated, tail = caption.partition(rules.separator) if rules.separator else ("", "", caption)
    tags = [tag for part in (head, tail) for tag in _tags(part)]
    if not rules.vary:
        return [", ".join(tags) if separated else caption]
    keep = len(_tags(head)) if separated else rules.keep
    fixed, loose = tags[:keep], tags[keep:]
    found = {", ".join(tags): None}
    for number in range(1, count if len(loose) > 1 or (loose and rules.dropout) else 1):
        rng = np.random.default_rng([*seed, number])
        order = rng.permutation(len(loose)) if rules.shuffle else np.arange(len(loose))
        left = [loose[i] for i in order if rng.random() >= rules.dropout]
        found[", ".join([*fixed, *left])] = None
    return list(found)


def shortened(caption: str, trigger: str, fits: Callable[[str], bool]) -> tuple[str, str]:
    """`caption` with its trigger, without the last words that do not fit, and those words (empty if all fit)."""
    whole = triggered(caption, trigger)
    if fits(whole):
        return whole, ""
    words = caption.split()
    low, high = 0, len(words) - 1  # the most words that fit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(triggered(" ".join(words[:middle]), trigger)) else (low, middle - 1)
    return triggered(" ".join(words[:low]), trigger), " ".join(words[low:])


def _tags(text: str) -> list[str]:
    return [tag for tag in (part.strip() for part in text.split(",")) if tag]
