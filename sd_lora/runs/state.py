"""What a run is doing, told from its files and its process: for pages and programs that may come and go. No torch."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sd_lora.errors import printable
from sd_lora.runs import logs as files
from sd_lora.runs.folder import RunFolder
from sd_lora.runs.process import (
    LEEWAY,
    LOCK,
    LOGS,
    Notes,
    Process,
    changing,
    is_alive,
    lock_owner,
    owner_named_in,
    read_record,
)
from sd_lora.storage.atomic import remove

Status = Literal["starting", "running", "stopped", "finished", "failed"]
Point = files.Loss
#: how the first line of what a process says begins
MARK = "$ sd-lora "
_SHOWN_LINES = 40
#: seconds for which a run that failed before it had a folder is listed
_LISTED = 86_400.0
_SILENT = "its process ended without a word before the run began; look at the log and start it again"
_KILLED = "its process was killed, or the machine went down; what it had saved is whole, and it can be resumed"


@dataclass(frozen=True)
class RunState:
    """A run as its files tell it. `losses` are (step, loss, smoothed), `validation` (step, held out, trained), both
    thinned; `seconds` is the time of a step, `eta` that of what is left, `memory` in bytes; `log` the last lines of its
    process; `samples` and `adapters` (step, file), ascending."""

    name: str
    status: Status
    step: int = 0
    steps: int = 0
    losses: tuple[Point, ...] = ()
    validation: tuple[Point, ...] = ()
    learning_rate: float | None = None
    seconds: float | None = None
    eta: float | None = None
    memory: int = 0
    log: str = ""
    #: the sentence with which a run that failed ended
    error: str = ""
    samples: tuple[tuple[int, Path], ...] = ()
    adapters: tuple[tuple[int, Path], ...] = ()
    can_resume: bool = False
    #: whether it was asked to stop, and goes on to the end of its step
    stopping: bool = False

    @property
    def is_alive(self) -> bool:
        return self.status in ("starting", "running")


def list_runs(folder: str | Path) -> list[Path]:
    """The run folders in `folder`, the newest first, with those that were started and have not been made yet."""
    folder = absolute(folder)
    found = {config.parent: _changed(config) for config in glob_of(folder, "*/config.toml")}
    for config in glob_of(folder / LOGS, "*.toml"):
        run, started = folder / config.stem, _changed(config)
        if run not in found and time.time() - started < _LISTED:
            found[run] = started
    return sorted((run for run in found if not run.name.startswith(".")), key=lambda run: -found[run])


def run_status(folder: str | Path) -> Status:
    """The status that `read_run` tells, at less cost."""
    return _looked_at(absolute(folder)).status


def read_run(folder: str | Path) -> RunState:
    """The run in `folder` as it is now; one that has vanished has failed."""
    folder = absolute(folder)
    seen = _looked_at(folder)
    reports = files.lines_of(folder / "log.jsonl")
    step, steps = (int(files.last_number(reports, key) or 0) for key in ("step", "steps"))
    steps = steps or files.steps_in(folder / "config.toml")
    seconds, alive = files.seconds_of(reports), seen.status in ("starting", "running")
    adapters = files.by_step(folder / "adapters", ".safetensors")
    if (final := folder / "adapter.safetensors").is_file():
        adapters = (*adapters, (steps, final))
    return RunState(
        folder.name,
        seen.status,
        step,
        steps,
        files.losses_of(reports),
        files.validation_of(folder / "validation.jsonl"),
        files.last_number(reports, "learning_rate"),
        seconds,
        eta=(steps - step) * seconds if alive and seconds is not None and steps else None,
        memory=int(files.last_number(reports, "memory") or 0),
        log="\n".join(seen.words[-_SHOWN_LINES:]),
        error=seen.error,
        samples=files.by_step(folder / "samples", ".png"),
        adapters=adapters,
        can_resume=not alive and seen.status != "finished" and (folder / "config.toml").is_file(),
        stopping=seen.stopping,
    )


@dataclass(frozen=True)
class _Seen:
    """A run's status, why it failed, the words of its process, and whether that was asked to stop."""

    status: Status
    error: str
    words: list[str]
    stopping: bool = False


def _looked_at(folder: Path) -> _Seen:
    notes = Notes(folder)
    with changing:
        owner, record, alive = lock_owner(folder), read_record(notes.record), is_alive(folder)
    words = files.words_of(notes.log, MARK)  # read only now: what a process that had ended by then said is all there
    if owner is None and alive and record is not None and _changed(folder / LOCK) < record.since:
        return _Seen("starting", "", words, record.stopping)
    if (folder / "config.toml").is_file():
        with contextlib.suppress(OSError):
            remove(notes.config)
    if owner is not None or alive:
        stopping = record is not None and record.stopping and (owner is None or owner.pid == record.pid)
        return _Seen("running", "", words, stopping)
    if RunFolder(folder).is_finished:
        return _Seen("finished", "", words)
    return _Seen(*_ending(folder, words, record), words)


def _ending(folder: Path, words: Sequence[str], record: Process | None) -> tuple[Status, str]:
    """How a run that is not at its end ended: "stopped" or "failed", and by what."""
    if _changed(Notes(folder).log) < _changed(folder / LOCK) - LEEWAY:  # another process worked on it since
        words, record = (), None
    stopped = record is not None and record.stopping
    if any(line.startswith("stopped after step ") for line in words):
        return "stopped", ""
    if said := files.error_in(words):
        return "failed", said
    if (folder / "config.toml").is_file():
        # Processes that were started here say how they end; of others the lock tells whether they could.
        killed = not stopped and (owner_named_in(folder / LOCK) is not None or record is not None)
        return ("failed", _KILLED) if killed else ("stopped", "")
    if record is None:
        return "failed", f"{printable(str(folder))} is not there any more"
    return ("stopped", "") if stopped else ("failed", _SILENT)


def absolute(path: str | Path) -> Path:
    return Path(os.path.expanduser(path)).absolute()


def glob_of(folder: Path, pattern: str) -> list[Path]:
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except (OSError, ValueError):
        return 0.0
