"""An image that has been decoded once and found good, with the captions it is trained with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sd_lora.config import DataConfig
from sd_lora.data.captions import is_sided, shortened, trigger_phrase, triggered, versions
from sd_lora.data.entries import Entry


@dataclass(frozen=True)
class Example:
    """One image of the set. `width` and `height` are in pixels, upright; `written` are its captions as the user wrote
    them, `captions` as they are trained. `background` lies behind it, empty if it is opaque."""

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

    @property
    def caption(self) -> str:
        """The first caption as it is trained."""
        return self.captions[0]


def example_of(entry: Entry, size: tuple[int, int], config: DataConfig, *, transparent: bool = False) -> Example:
    """The example of an entry whose image has `size` (width, height)."""
    trigger = "" if entry.prior else config.trigger
    written = entry.captions or ("",)
    return Example(
        entry.file, entry.name, *size, tuple(triggered(caption, trigger) for caption in written), entry.captions,
        entry.repeats, entry.mask, entry.prior, entry.may_flip and not any(is_sided(c, trigger) for c in written),
        config.background if transparent else "",
    )  # fmt: skip


def with_captions(
    examples: Sequence[Example], entries: Sequence[Entry], config: DataConfig, seed: int,
    overlong: Callable[[Sequence[str]], list[int]],
) -> list[Example]:  # fmt: skip
    """`examples` with every version of their captions, each cut to what the text encoder reads, before its trigger.

    `overlong` gives the positions of the captions that would be cut.
    """
    bodies = [
        [text for c in entry.captions or ("",) for text in versions(c, entry.rules, config.caption_variants, (seed, i))]
        for i, entry in enumerate(entries)
    ]
    triggers = ["" if entry.prior else config.trigger for entry in entries]
    whole = [tuple(triggered(body, t) for body in own) for own, t in zip(bodies, triggers, strict=True)]
    flat = [(i, k) for i, own in enumerate(whole) for k in range(len(own))]
    for position in overlong([whole[i][k] for i, k in flat]):
        i, k = flat[position]
        cut, _ = shortened(bodies[i][k], triggers[i], lambda text: not overlong([text]))
        whole[i] = (*whole[i][:k], cut, *whole[i][k + 1 :])
    return [replace(e, captions=tuple(dict.fromkeys(own))) for e, own in zip(examples, whole, strict=True)]


__all__ = ["Example", "example_of", "trigger_phrase", "triggered", "with_captions"]
