"""What a preview is asked for: rows of prompts with their adapters, columns of strengths; and what is too much."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sd_lora.errors import ConfigError

#: a strength of its own: one number, or numbers by component and block (docs/preview.md)
OwnStrength = float | Mapping[str, Any]
_RANGE = re.compile(r"(-?[\d.]+)\s*-\s*(-?[\d.]+)\s*(?:\(\s*\+\s*([\d.]+)\s*\)|\[\s*(\d+)\s*\])$")
_TAG = re.compile(r"<lora:([^:<>]+)(?::([^:<>]*))?>")
_MOST_STRENGTHS = 100
STRONGEST = 10.0


@dataclass(frozen=True)
class MixedAdapter:
    """One adapter of a mix: its file, and its own strength, by which the strength of a column is multiplied."""

    path: Path
    strength: OwnStrength = 1.0

    @property
    def name(self) -> str:
        """The file's name; that of its run, if it is called ``adapter`` like every run's."""
        return self.path.parent.name if self.path.stem == "adapter" else self.path.stem


@dataclass(frozen=True)
class PreviewRow:
    """A prompt, and the adapters that act on it; without any, every column is the base model."""

    prompt: str
    mix: tuple[MixedAdapter, ...] = ()
    #: what stands beside the row on a sheet; empty: the prompt
    label: str = ""


@dataclass(frozen=True)
class PreviewJob:
    """Rows × strengths, all from the noise of one seed. A size of 0 is the base model's own, in pixels."""

    rows: tuple[PreviewRow, ...]
    strengths: tuple[float, ...] = (0.0, 0.5, 1.0)
    negative: str = ""
    seed: int = 0
    steps: int = 25
    guidance: float = 5.0
    width: int = 0
    height: int = 0

    @property
    def columns(self) -> tuple[float, ...]:
        """The strengths once each; 0, the base model itself, first."""
        return tuple(dict.fromkeys((0.0, *(float(strength) for strength in self.strengths))))


@dataclass(frozen=True)
class PreviewLimits:
    """The most that one job may ask for, and how many jobs may wait."""

    cells: int = 64
    steps: int = 150
    pixels: int = 2048 * 2048
    prompt: int = 2000
    waiting: int = 32

    def check(self, job: PreviewJob, grain: int, most_steps: int) -> None:
        """ConfigError with everything in `job` that is too much or no number. Sizes are multiples of `grain` pixels;
        the base model has `most_steps` steps."""
        cells, most = len(job.rows) * len(job.columns), min(self.steps, most_steps)
        prompts = [*(row.prompt for row in job.rows), job.negative]
        numbers = (*job.strengths, job.guidance)
        problems = [
            (not job.rows or not all(row.prompt.strip() for row in job.rows),
                "a preview needs at least one prompt that is not empty"),
            (cells > self.cells, f"{len(job.rows)} prompts at {len(job.columns)} strengths are {cells} "
                f"pictures; at most {self.cells} are drawn at once"),
            (any(len(prompt) > self.prompt for prompt in prompts), f"a prompt has at most {self.prompt} characters"),
            (not all(math.isfinite(number) for number in numbers), "strengths and guidance must be finite numbers"),
            (any(abs(s) > STRONGEST for s in job.strengths), f"strengths lie between -{STRONGEST:g} and {STRONGEST:g}"),
            (not 0 <= job.guidance <= 100, "guidance lies between 0 and 100"),
            (not 1 <= job.steps <= most, f"steps lie between 1 and {most}, but {job.steps} were asked for"),
            (not 0 <= job.seed < 2**32, f"the seed lies between 0 and {2**32 - 1}"),
            (job.width * job.height > self.pixels, f"{job.width} × {job.height} are more than {self.pixels:,} pixels"),
            (any(side < 0 or side % grain for side in (job.width, job.height)),
                f"width and height are multiples of {grain}, but {job.width} × {job.height} was asked for"),
        ]  # fmt: skip
        wrong = [sentence for is_wrong, sentence in problems if is_wrong]
        if wrong:
            raise ConfigError("; ".join(wrong))


def parse_strengths(text: str) -> tuple[float, ...]:
    """``0, 0.5, 1`` or a range: ``0-1.2(+0.4)`` in steps, ``0-1[5]`` so many; both may be mixed with commas.

    Raises ConfigError for anything else, and for more than 100 strengths.
    """
    found: list[float] = []
    for part in re.split(r"[,;\s]+", re.sub(r"\s*([(\[+\])])\s*", r"\1", text.strip())):
        if not part:
            continue
        values = _range(part) if _RANGE.match(part) else _number(part)
        if values is None:
            raise ConfigError(
                f'"{part[:40]}" is no strength; write numbers with commas, such as 0, 0.5, 1, or a range, such as '
                "0-1.2(+0.4) or 0-1[5]"
            )
        found += values
        if len(found) > _MOST_STRENGTHS:
            raise ConfigError(f"{len(found)} strengths are too many; at most {_MOST_STRENGTHS} are drawn")
    if not found:
        raise ConfigError("no strength was given; write some, such as 0, 0.5, 1")
    return tuple(dict.fromkeys(found))


def _number(part: str) -> list[float] | None:
    try:
        value = float(part)
    except ValueError:
        return None
    return [value] if math.isfinite(value) else None


def _range(part: str) -> list[float] | None:
    first, last, step, count = _RANGE.match(part).groups()  # type: ignore[union-attr]
    try:
        low, high = float(first), float(last)
        number = int(count) if count else int((high - low) / float(step) + 1e-9) + 1
        if number < 1 or (count and number < 2) or number > _MOST_STRENGTHS:
            return None
        width = (high - low) / (number - 1) if count else float(step)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return [round(low + width * index, 6) for index in range(number)]


def split_tags(prompt: str) -> tuple[str, list[tuple[str, float]]]:
    """A prompt without its ``<lora:NAME:0.8>`` tags, and their names and strengths (1 if none is given).

    Raises ConfigError for a tag whose strength is no number.
    """
    found = []
    for name, strength in _TAG.findall(prompt):
        value = _number(strength or "1")
        if value is None:
            raise ConfigError(f'"<lora:{name}:{strength}>" has no number as its strength; write <lora:{name}:0.8>')
        found.append((name.strip(), value[0]))
    return re.sub(r"\s+", " ", _TAG.sub("", prompt)).strip(), found


def strength_key(strength: OwnStrength) -> str:
    """The same text for the same strength, however it is written."""
    return json.dumps(_plain(strength), sort_keys=True)


def scaled(strength: OwnStrength, factor: Any) -> Any:
    """`strength` times `factor` (a tensor with one number per picture), in its own form."""
    if isinstance(strength, Mapping):
        return {key: scaled(value, factor) for key, value in strength.items()}
    if isinstance(strength, Sequence):
        return [scaled(value, factor) for value in strength]
    return float(strength) * factor


def _plain(strength: Any) -> Any:
    if isinstance(strength, Mapping):
        return {str(key): _plain(value) for key, value in strength.items()}
    if isinstance(strength, Sequence) and not isinstance(strength, str):
        return [_plain(value) for value in strength]
    return float(strength)
