"""A preview job: rows of prompts with their adapters, columns of strengths; and how much one may ask for."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from sd_lora.data.dialects.prompts import Prompt, read_prompt
from sd_lora.errors import ConfigError
from sd_lora.models.schedulers import SCHEDULERS

#: the strength of one adapter: one number, or numbers by component and block (`strengths_by_module`)
OwnStrength = float | Mapping[str, Any]
STRONGEST = 10.0


@dataclass(frozen=True)
class MixedAdapter:
    """One adapter of a mix: its file, and its own strength, which multiplies the strength of a column."""

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
    #: shown beside the row on a sheet; empty: the prompt
    label: str = ""
    #: what the prompt itself says about how to draw it, which replaces the settings of the job
    own: Prompt | None = None

    @classmethod
    def of(cls, prompt: str | Prompt, mix: tuple[MixedAdapter, ...] = (), label: str = "") -> Self:
        """The row of a prompt that may have kohya's options, such as ``a cat --n blurry --w 512``. ConfigError."""
        own = read_prompt(prompt) if isinstance(prompt, str) else prompt
        return cls(own.text, mix, label, own)

    @property
    def line(self) -> str:
        """The prompt with its options."""
        return replace(self.own, text=self.prompt).written if self.own else self.prompt

    @property
    def acting(self) -> tuple[MixedAdapter, ...]:
        """Those of the mix whose own strength is not 0."""
        return tuple(mixed for mixed in self.mix if mixed.strength != 0)


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
    #: a name of `SCHEDULERS`; empty: the base model's own
    scheduler: str = ""

    @property
    def columns(self) -> tuple[float, ...]:
        """The strengths once each; 0, the base model itself, first."""
        return tuple(dict.fromkeys((0.0, *(float(strength) for strength in self.strengths))))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the prompts say and is not drawn so, once each."""
        return tuple(dict.fromkeys(note for row in self.rows if row.own for note in row.own.notes))

    def of(self, row: PreviewRow) -> Self:
        """The job of one row, by the row's own settings."""
        return replace(self, rows=(row,), **(row.own.options if row.own else {}))

    def keys(self, hashes: Mapping[Path, str]) -> list[list[Hashable]]:
        """Per row and column, everything that makes the picture; without adapters or at 0 it is the base model's."""
        keys: list[list[Hashable]] = []
        for row in self.rows:
            own = self.of(row)
            guided = own.negative if own.guidance > 1 else ""
            strokes = (guided, own.seed, own.steps, own.guidance, own.width, own.height, own.scheduler)
            mix = tuple((hashes[mixed.path], strength_key(mixed.strength)) for mixed in row.acting)
            keys.append([(row.prompt, strokes, (mix, column) if column and mix else ()) for column in self.columns])
        return keys

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of all adapters, once each."""
        return tuple(dict.fromkeys(mixed.path for row in self.rows for mixed in row.mix))


@dataclass(frozen=True)
class PreviewLimits:
    """The most that one job may ask for, how many jobs may wait, and how many bytes of pictures are kept. `work`: steps
    times pixels, of all pictures together."""

    cells: int = 64
    steps: int = 150
    pixels: int = 2048 * 2048
    prompt: int = 2000
    waiting: int = 32
    kept: int = 256 * 2**20
    work: float = 64 * 50 * 1024 * 1024

    def check(self, job: PreviewJob, grain: int, most_steps: int) -> None:
        """ConfigError with everything in `job` that is too much or not a number. Sizes are multiples of `grain` pixels;
        the base model has `most_steps` steps."""
        each = [self._problems(job.of(row), grain, most_steps) for row in job.rows]
        wrong = dict.fromkeys(self._all(job) + [sentence for sentences in each for sentence in sentences])
        if not wrong and (work := sum(map(_work_of, map(job.of, job.rows)))) > self.work:
            more = f"that is {work / self.work:.1f} times what one job may take"
            wrong[f"{more}; draw fewer or smaller pictures, or take fewer steps"] = None
        if wrong:
            raise ConfigError("; ".join(wrong))

    def _all(self, job: PreviewJob) -> list[str]:
        """What is wrong with the prompts and strengths together."""
        cells = len(job.rows) * len(job.columns)
        problems = [
            (not job.rows or not all(row.prompt.strip() for row in job.rows),
                "a preview needs at least one prompt that is not empty"),
            (cells > self.cells, f"prompts × strengths are {len(job.rows)} × {len(job.columns)}, {cells} "
                f"pictures; at most {self.cells} are drawn at once"),
            (any(abs(s) > STRONGEST for s in job.strengths), f"strengths are between -{STRONGEST:g} and {STRONGEST:g}"),
        ]  # fmt: skip
        return [sentence for is_wrong, sentence in problems if is_wrong]

    def _problems(self, job: PreviewJob, grain: int, most_steps: int) -> list[str]:
        """What is wrong with the settings of a row."""
        most = min(self.steps, most_steps)
        prompts, numbers = (job.rows[0].prompt, job.negative), (*job.strengths, job.guidance)
        problems = [
            (any(len(prompt) > self.prompt for prompt in prompts), f"a prompt has at most {self.prompt} characters"),
            (not all(math.isfinite(number) for number in numbers), "strengths and guidance cannot be NaN or infinite"),
            (not 0 <= job.guidance <= 100, "guidance is between 0 and 100"),
            (not 1 <= job.steps <= most, f"steps are between 1 and {most}, but {job.steps} were asked for"),
            (job.scheduler not in ("", *SCHEDULERS), f"there is no scheduler {job.scheduler[:20]!r}; there are "
                f"{', '.join(SCHEDULERS)}"),
            (not 0 <= job.seed < 2**32, f"the seed is between 0 and {2**32 - 1}"),
            (job.width * job.height > self.pixels, f"{job.width} × {job.height} are more than {self.pixels:,} pixels"),
            (any(side < 0 or side % grain for side in (job.width, job.height)),
                f"width and height are multiples of {grain}, but {job.width} × {job.height} was asked for"),
        ]  # fmt: skip
        return [sentence for is_wrong, sentence in problems if is_wrong]


def _work_of(job: PreviewJob) -> int:
    """The steps times pixels of a job of one row."""
    return len(job.columns) * job.steps * job.width * job.height


def strength_key(strength: OwnStrength) -> str:
    """The same text for the same strength, however it is written."""
    return json.dumps(_plain(strength), sort_keys=True)


def _plain(strength: Any) -> Any:
    if isinstance(strength, Mapping):
        return {str(key): _plain(value) for key, value in strength.items()}
    if isinstance(strength, Sequence) and not isinstance(strength, str):
        return [_plain(value) for value in strength]
    return float(strength)
