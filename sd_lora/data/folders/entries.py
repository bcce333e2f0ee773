"""What a layout says about each image before any image is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sd_lora.data.findings import Finding


@dataclass(frozen=True)
class TagRules:
    """How a caption of comma-separated tags varies: the first `keep` tags stay where they are, the others are shuffled
    and each is left out with probability `dropout`. `separator` ends the fixed part instead of `keep`, in captions
    that have it, and begins another behind the others; `comma` is what separates the tags."""

    shuffle: bool = False
    keep: int = 0
    dropout: float = 0.0
    separator: str = "|||"
    comma: str = ","

    @property
    def vary(self) -> bool:
        return self.shuffle or self.dropout > 0


@dataclass(frozen=True)
class Entry:
    """One image as its layout describes it; `captions` are as written by the user, one is chosen per exposure.

    `name` is the path relative to the folder, with ``/``. `repeats` says how often it is seen relative to others.
    `mask` is a picture whose white parts are learnt; with `alpha`, transparent places are not. `prior` marks a
    regularisation image, which is trained without the trigger word to preserve the base, and `held` one that is held
    out to measure the validation loss.
    """

    file: Path
    name: str
    captions: tuple[str, ...] = ()
    repeats: int = 1
    mask: Path | None = None
    prior: bool = False
    may_flip: bool = True
    rules: TagRules = TagRules()
    alpha: bool = False
    held: bool = False


@dataclass(frozen=True)
class Listing:
    """A folder that was read: the `layout`'s name, `summary` (one line for the user), its entries sorted by name, and
    the findings."""

    layout: str
    summary: str
    entries: tuple[Entry, ...]
    findings: tuple[Finding, ...] = field(default=())
