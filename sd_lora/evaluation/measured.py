"""What was measured of an adapter: as a record, as JSON and in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sd_lora.evaluation.estimates import Estimate

_SCALE = "0 is the base model, 1 the references themselves"


@dataclass(frozen=True)
class Measured:
    """One adapter at one strength. What could not be measured is None, and `notes` say why."""

    adapter: str
    strength: float
    style: Estimate | None
    nearest_other: tuple[str, float] | None
    content: Estimate | None
    drift: dict[str, float] | None
    leak: Estimate
    copies: int
    diversity: float | None
    burn: dict[str, float]
    notes: tuple[str, ...]
    #: how many pictures each kind of figure rests on
    n: dict[str, int]

    @property
    def label(self) -> str:
        return f"{self.adapter} at {self.strength:g}"

    def to_json(self) -> dict[str, Any]:
        """As documented in docs/quality.md."""
        style, content = self.style, self.content
        return {
            "adapter": self.adapter,
            "strength": self.strength,
            "style": {
                "score": style and style.value,
                "interval": style and style.interval,
                "closed": style and closed(style.value),
                "nearest_other": self.nearest_other and {"name": self.nearest_other[0], "score": self.nearest_other[1]},
            },
            "content": {"relative": content and content.value, "interval": content and content.interval},
            "drift": self.drift,
            "leak": {"share": self.leak.value, "interval": self.leak.interval, "copies": self.copies},
            "diversity": {"relative": self.diversity},
            "burn": self.burn,
            "n": self.n,
            "notes": self.notes,
        }

    def lines(self) -> list[tuple[str, str]]:
        """What each figure is called, and the figure with what it means, for a terminal."""
        rows = [("style", f"{self.style}; {_SCALE}" if self.style else "not measured")]
        if self.nearest_other:
            name, score = self.nearest_other
            rows.append(("", f"the nearest other style, {name}, would score {score:.2f}"))
        rows.append(("content", f"{self.content} of the base model's" if self.content else "not measured"))
        rows.append(("leak", f"{self.copies} of {self.leak.n} pictures are copies of training pictures"))
        if self.diversity is not None:
            rows.append(("diversity", f"{self.diversity:.2f} of the base model's, over seeds"))
        if self.drift:
            rows.append(("drift", f"without the trigger word: layout {self.drift['layout']:.2f} kept, style "
                                  f"{self.drift['style']:.2f} comes through"))  # fmt: skip
        rows.append(("burn", ", ".join(f"{name} {value:.2f}" for name, value in self.burn.items())))
        return [*rows, *(("note", note) for note in self.notes)]


def closed(score: float) -> float:
    """The share of the way to the style: a set with half of its pictures in the style scores .75 and closes .5."""
    return 1 - math.sqrt(1 - score) if score < 1 else 1.0
