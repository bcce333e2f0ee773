"""Settings that have no effect on these images, and repeats that make an epoch too long."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import gcd
from pathlib import Path

from sd_lora.config.conflicts import ImageFacts, image_conflicts, validation_conflicts
from sd_lora.config.schema import RunConfig
from sd_lora.data.captions import Tags
from sd_lora.data.findings import Finding
from sd_lora.data.folders.entries import Entry

#: the most exposures in an epoch, which are put in order together
_MOST_EXPOSURES = 300_000


def idle_settings(
    config: RunConfig, layout: str, entries: Sequence[Entry], side: int, seen: tuple[bool, bool] = (True, True)
) -> list[Finding]:
    """Settings that change nothing for `entries`, which are trained at `side` pixels first; `seen`: whether an image is
    transparent in places, and whether a caption or prompt has the syntax of web UIs."""
    data, masks = config.data, os.path.realpath(os.path.expanduser(config.data.mask_folder))
    if all(entry.prior for entry in entries):  # which is an error already
        return []
    loose = [
        (len(Tags.of(caption, e.rules, "" if e.prior else data.trigger).free), e.rules)
        for e in entries
        for caption in e.captions
        if e.rules.comma in caption
    ]
    facts = ImageFacts(
        side=side,
        prior=any(entry.prior for entry in entries),
        from_table=layout == "metadata",
        tags=bool(loose),
        shuffled=any(rules.shuffle and count > 1 for count, rules in loose),
        dropped=any(rules.dropout and count for count, rules in loose),
        varied=any(entry.rules.vary for entry in entries),
        transparent=seen[0],
        masked=any(Path(os.path.realpath(entry.mask)).is_relative_to(masks) for entry in entries if entry.mask),
        validation=any(entry.held for entry in entries),
        syntax=seen[1],
    )
    sentences = [*image_conflicts(data, facts), *validation_conflicts(config.training, facts)]
    return [Finding("setting-idle", None, sentence) for sentence in sentences]


def excessive_repeats(entries: Sequence[Entry]) -> list[Finding]:
    """A finding if an epoch of `entries`, each as often as its repeats say, would be too long."""
    findings = []
    for prior in (False, True):
        repeats = [entry.repeats for entry in entries if entry.prior is prior]
        exposures = sum(repeats) // (gcd(*repeats) or 1)
        if exposures > max(_MOST_EXPOSURES, len(repeats)):
            detail = f"{len(repeats)} images with their repeats make {exposures:,} exposures an epoch"
            findings.append(Finding("repeats-large", None, f"{detail}; at most {_MOST_EXPOSURES:,} are allowed"))
    return findings
