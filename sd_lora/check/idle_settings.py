"""Settings that cannot act on the images at hand, and repeats that ask too much of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from sd_lora.config.schema import DataConfig
from sd_lora.data.findings import Finding
from sd_lora.data.folders.entries import Entry, TagRules

_PLAIN = DataConfig()
#: exposures in an epoch, all of which are put in order at once
_MOST_EXPOSURES = 300_000


def idle_settings(data: DataConfig, layout: str, entries: Sequence[Entry], side: int) -> list[Finding]:
    """What was set in `data` and changes nothing for `entries`, which are trained at `side` pixels first."""
    if all(entry.prior for entry in entries):  # which is an error of its own
        return []
    loose = [(_loose(caption, e.rules), e.rules) for e in entries for caption in e.captions if "," in caption]
    why_tags = "no tag of any caption is free for it" if loose else "no caption has commas"
    idle = {
        "data.prior_weight": (
            data.prior_weight != 1 and not any(entry.prior for entry in entries), "there are no regularisation images"
        ),
        "data.shuffle_tags": (
            data.shuffle_tags and not any(rules.shuffle and count > 1 for count, rules in loose),
            why_tags,
        ),
        "data.tag_dropout": (
            data.tag_dropout > 0 and not any(rules.dropout and count for count, rules in loose),
            why_tags,
        ),
        "data.caption_variants": (
            data.caption_variants != _PLAIN.caption_variants and not any(entry.rules.vary for entry in entries),
            "neither data.shuffle_tags nor data.tag_dropout is set",
        ),
        "data.more_resolutions": (
            side in data.more_resolutions, f"images are trained at {side} pixels anyway"
        ),
    }  # fmt: skip
    if layout == "metadata" and not data.regularisation:
        for key in ("caption_suffixes", "caption_lines"):
            differs = getattr(data, key) != getattr(_PLAIN, key)
            idle[f"data.{key}"] = differs, "captions are read from the metadata"
    sentences = [f"{key} has no effect because {why}" for key, (found, why) in idle.items() if found]
    return [Finding("setting-idle", None, sentence) for sentence in sentences]


def excessive_repeats(entries: Sequence[Entry]) -> list[Finding]:
    """That an epoch of `entries`, with each as often as its repeats say, would be too long."""
    found = []
    for prior in (False, True):
        repeats = [entry.repeats for entry in entries if entry.prior is prior]
        exposures = sum(repeats) // (gcd(*repeats) or 1)
        if exposures > max(_MOST_EXPOSURES, len(repeats)):
            detail = f"{len(repeats)} images with their repeats make {exposures:,} exposures an epoch"
            found.append(Finding("repeats-large", None, f"{detail}, and {_MOST_EXPOSURES:,} are the most"))
    return found


def _loose(caption: str, rules: TagRules) -> int:
    """How many of the comma-separated tags of `caption` are not fixed."""
    _, separated, tail = caption.partition(rules.separator) if rules.separator else ("", "", "")
    tags = sum(bool(tag.strip()) for tag in (tail if separated else caption).split(","))
    return tags if separated else tags - rules.keep
