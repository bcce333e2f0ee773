"""What the files of a run say about it, read at a cost that does not grow with the run; needs no torch."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

#: a file of lines is read completely up to this many bytes; of a larger one this many lines are read, evenly spread
_WHOLE, _SPREAD = 2**20, 3_000
#: points of a curve, and bytes at the end of a log that are read
_POINTS, _TAIL_BYTES = 800, 32 * 2**10
_LARGEST_CONFIG, _LONGEST = 2**20, 1_500
#: steps over whose time the rate is taken
_RECENT = 20

Loss = tuple[int, float, float]


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The JSON objects in a file of lines, without those cut short; a large file's are thinned evenly."""
    try:
        if not path.is_file():
            return []
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            raw = file.read().split(b"\n") if size <= _WHOLE else _spread(file, size)
            return [table for line in raw if (table := _object(line)) is not None]
    except OSError:
        return []


def losses_of(reports: Sequence[dict[str, Any]]) -> tuple[Loss, ...]:
    """(step, loss, smoothed) of at most a few hundred `reports`."""
    known = [(r["step"], r["loss"]) for r in reports if _is_number(r.get("step")) and _is_number(r.get("loss"))]
    means = smoothed([loss for _, loss in known], smoothing(len(known)))
    return thinned([(int(step), float(loss), mean) for (step, loss), mean in zip(known, means, strict=True)])


def smoothing(steps: int) -> int:
    """Over how many of `steps` losses the mean is taken: a twentieth of them, at least five."""
    return max(5, steps // 20)


def smoothed(values: Sequence[float], width: int) -> list[float]:
    """The mean of each value and the `width` - 1 before it."""
    sums = [0.0, *accumulate(values)]
    return [(sums[i + 1] - sums[max(0, i + 1 - width)]) / min(width, i + 1) for i in range(len(values))]


def validation_of(path: Path) -> tuple[Loss, ...]:
    """(step, held out, trained) of each time the validation loss was measured."""
    points = [(r.get("step"), r.get("held"), r.get("trained")) for r in lines_of(path)]
    return thinned([(int(s), float(h), float(t)) for s, h, t in points if all(map(_is_number, (s, h, t)))])  # type: ignore[arg-type]


def thinned(points: Sequence[Loss]) -> tuple[Loss, ...]:
    """At most a few hundred of `points`, the last among them."""
    stride = -(-len(points) // _POINTS) or 1
    return tuple(points[(len(points) - 1) % stride :: stride])


def seconds_of(reports: Sequence[dict[str, Any]]) -> float | None:
    """Seconds per step: the median of the last steps, so that one that drew samples does not count."""
    times = sorted(r["seconds"] for r in reports[-_RECENT:] if _is_number(r.get("seconds")))
    return times[len(times) // 2] if times else None


def by_step(folder: Path, ending: str) -> tuple[tuple[int, Path], ...]:
    """The files ``step-000123<ending>`` in `folder` with their steps, ascending."""
    try:
        names = os.listdir(folder)
    except OSError:
        return ()
    matches = (re.fullmatch(rf"step-(\d{{6,18}}){re.escape(ending)}", name) for name in names)
    return tuple(sorted((int(match[1]), folder / match[0]) for match in matches if match))


def words_of(path: Path, mark: str) -> list[str]:
    """The last lines of a process's log since the last that starts with `mark`, without control characters."""
    try:
        if not path.is_file():
            return []
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = ["".join(c for c in line if c.isprintable() or c == "\t") for line in text.splitlines()]
    starts = [i for i, line in enumerate(lines) if line.startswith(mark)]
    return lines[starts[-1] if starts else 0 :]


def error_in(lines: Sequence[str]) -> str:
    """Why a process ended, as a sentence: its last ``error: …``, or the last line of its traceback; "" if neither.

    Lines after an error belong to it, as they do when a folder cannot be trained on.
    """
    starts = [i for i, line in enumerate(lines) if line.startswith("error: ")]
    if starts:
        return " ".join(line.strip() for line in lines[starts[-1] :])[len("error: ") :][:_LONGEST]
    if any(line.startswith("Traceback (most recent call last)") for line in lines):
        return f"the run ended because of a bug in the program, {lines[-1].strip()[:300]}; please report it"
    return ""


def steps_in(config: Path) -> int:
    """``training.steps`` of a run's config; 0 if it is not known."""
    steps = _setting_in(config, "training", "steps")
    return steps if isinstance(steps, int) else 0


def images_in(config: Path) -> str:
    """``data.folder`` of a run's config; empty if it is not known."""
    folder = _setting_in(config, "data", "folder")
    return folder if isinstance(folder, str) else ""


def _setting_in(config: Path, section: str, key: str) -> Any:
    try:
        if not config.is_file() or config.stat().st_size > _LARGEST_CONFIG:
            return None
        return tomllib.loads(config.read_text("utf-8")).get(section, {}).get(key)
    except (OSError, ValueError, AttributeError):
        return None


def last_number(reports: Sequence[dict[str, Any]], key: str) -> float | None:
    """The value of `key` in the last of `reports`, if it is a number."""
    value = reports[-1].get(key) if reports else None
    return value if _is_number(value) else None


def _spread(file: Any, size: int) -> Iterable[bytes]:
    """Lines at evenly spread places of an open file, and its last ones."""
    for number in range(_SPREAD):
        file.seek((size - _TAIL_BYTES) * number // _SPREAD)
        if number:
            file.readline()
        yield file.readline()
    file.seek(size - _TAIL_BYTES)
    yield from file.read().split(b"\n")[1:]


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line) if line.strip() else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30
