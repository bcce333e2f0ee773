"""An image that has been decoded once without errors, with the captions it is trained with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sd_lora.config.schema import DataConfig
from sd_lora.data.captions import LONG, is_sided, shortened, triggered, versions
from sd_lora.data.folders.entries import Entry


@dataclass(frozen=True)
class Example:
    """One image of the set. `width` and `height` are in pixels, upright; `written` are its captions as the user wrote
    them, `captions` as they are trained, each as often as it is drawn. `background` is the colour behind
    it, empty if it is opaque; with `alpha`, transparent places are not learned. `held` marks one that is held out.
    `digest` is that of the image's bytes, empty if it was not read."""

    file: Path
    name: str
    width: int
    height: int
    captions: tuple[str, ...]
    written: tuple[str, ...] = ()
    repeats: int = 1
    mask: Path | None = None
    prior: bool = False
    may_flip: bool = True
    background: str = ""
    digest: str = ""
    alpha: bool = False
    held: bool = False

    @property
    def caption(self) -> str:
        """The first caption as it is trained."""
        return self.captions[0]


def example_of(entry: Entry, size: tuple[int, int], config: DataConfig, *, transparent: bool = False) -> Example:
    """The example of an entry whose image has `size` (width, height)."""
    trigger = "" if entry.prior else config.trigger
    written = entry.captions or ("",)
    return Example(
        entry.file,
        entry.name,
        *size,
        tuple(triggered(caption, trigger) for caption in written),
        entry.captions,
        entry.repeats,
        entry.mask,
        entry.prior,
        entry.may_flip and not any(is_sided(c, trigger) for c in written),
        config.background if transparent else "",
        alpha=entry.alpha and transparent,
        held=entry.held,
    )


def with_captions(
    examples: Sequence[Example],
    entries: Sequence[Entry],
    config: DataConfig,
    seed: int,
    overlong: Callable[[Sequence[str]], list[int]],
) -> list[Example]:
    """`examples` with every version of their captions, each cut to what the text encoder reads, before its trigger.

    An image's versions do not depend on the other images. `overlong` gives the positions of the captions that would be
    cut.
    """
    triggers = ["" if entry.prior else config.trigger for entry in entries]
    bodies = [
        [
            text
            for c in entry.captions or ("",)
            for text in versions(c, entry.rules, config.caption_variants, (seed, *entry.name.encode()), trigger)
        ]
        for entry, trigger in zip(entries, triggers, strict=True)
    ]
    captions = [[triggered(body, t) for body in texts] for texts, t in zip(bodies, triggers, strict=True)]
    places = [(i, k) for i, texts in enumerate(captions) for k in range(len(texts))]
    short = [(i, k) for i, k in places if len(bodies[i][k]) <= LONG]
    doubtful = [short[position] for position in overlong([captions[i][k] for i, k in short])]
    for i, k in [*doubtful, *(set(places) - set(short))]:
        captions[i][k], _ = shortened(bodies[i][k], triggers[i], lambda text: not overlong([text]))
    return [
        replace(example, captions=tuple(texts if entry.rules.dropout else dict.fromkeys(texts)))
        for example, entry, texts in zip(examples, entries, captions, strict=True)
    ]
