"""What a run is doing, by its files and its process, for pages and programs that may come and go. No torch."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from sd_lora.runs.stage import stage_in
from sd_lora.storage.atomic import remove

Status = Literal["starting", "running", "stopped", "finished", "failed"]
Point = files.Loss
#: how the first line of a process's output begins
MARK = "$ sd-lora "
_SHOWN_LINES = 40
#: seconds for which a run that failed before it had a folder is listed
_LISTED = 86_400.0
_SILENT = "its process ended without a message before the run began; look at the log and start it again"
_KILLED = "its process was killed, or the machine went down; what it had saved is complete, and it can be resumed"


@dataclass(frozen=True)
class RunState:
    """A run as its files show it. `losses` are (step, loss, smoothed), `validation` (step, held out, trained), both
    thinned; `seconds` is the time per step, `eta` that of the remaining steps, `memory` in bytes; `log` the last lines
    that its process printed; `samples` and `adapters` (step, file), ascending."""

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
    #: why a run failed, as a sentence
    error: str = ""
    samples: tuple[tuple[int, Path], ...] = ()
    adapters: tuple[tuple[int, Path], ...] = ()
    can_resume: bool = False
    #: whether it was asked to stop, and is finishing its step
    stopping: bool = False
    #: what it does before its first step, such as ``loading the base model``
    doing: str = ""

    @property
    def is_alive(self) -> bool:
        return self.status in ("starting", "running")


def list_runs(folder: str | Path) -> list[Path]:
    """The run folders in `folder`, the newest first, with those that were started and have not been made yet."""
    folder = absolute(folder)
    runs = {config.parent: _changed(config) for config in glob_of(folder, "*/config.toml")}
    for config in glob_of(folder / LOGS, "*.toml"):
        run, started = folder / config.stem, _changed(config)
        if run not in runs and time.time() - started < _LISTED:
            runs[run] = started
    return sorted((run for run in runs if not run.name.startswith(".")), key=lambda run: -runs[run])


def trained_folder(folder: str | Path) -> Path | None:
    """The folder of images of a run; None if its config does not say."""
    folder = absolute(folder)
    for config in (folder / "config.toml", Notes(folder).config):
        if images := files.images_in(config):
            return absolute(images)
    return None


def run_status(folder: str | Path) -> Status:
    """The status that `read_run` gives, at less cost."""
    return _outline(absolute(folder)).status


def read_run(folder: str | Path) -> RunState:
    """The run in `folder` as it is now; one that has vanished has failed."""
    folder = absolute(folder)
    state, reports = _outline(folder), files.lines_of(folder / "log.jsonl")
    step, steps = (int(files.last_number(reports, key) or 0) for key in ("step", "steps"))
    steps, seconds = steps or files.steps_in(folder / "config.toml"), files.seconds_of(reports)
    adapters = files.by_step(folder / "adapters", ".safetensors")
    if (final := folder / "adapter.safetensors").is_file():
        reached = RunFolder(folder).reached  # of a run that was stopped, or finished early
        adapters = (*adapters, (steps if reached is None else reached, final))
    return replace(
        state,
        step=step,
        steps=steps,
        losses=files.losses_of(reports),
        validation=files.validation_of(folder / "validation.jsonl"),
        learning_rate=files.last_number(reports, "learning_rate"),
        seconds=seconds,
        eta=(steps - step) * seconds if state.is_alive and seconds is not None and steps else None,
        memory=int(files.last_number(reports, "memory") or 0),
        samples=files.by_step(folder / "samples", ".png"),
        adapters=adapters,
        doing=stage_in(Notes(folder).stage) if state.is_alive else "",
        can_resume=not state.is_alive and state.status != "finished" and (folder / "config.toml").is_file(),
    )


def _outline(folder: Path) -> RunState:
    """What the process of the run in `folder` is doing: status, error, output, and whether it was asked to stop."""
    notes = Notes(folder)
    with changing:
        owner, record, alive = lock_owner(folder), read_record(notes.record), is_alive(folder)
    lines = files.words_of(notes.log, MARK)  # read only now: all output of a process that had ended by then is in it

    def state(status: Status, error: str = "", *, stopping: bool = False) -> RunState:
        return RunState(folder.name, status, log="\n".join(lines[-_SHOWN_LINES:]), error=error, stopping=stopping)

    if owner is None and alive and record is not None and _changed(folder / LOCK) < record.since:
        return state("starting", stopping=record.stopping)
    if (folder / "config.toml").is_file():
        with contextlib.suppress(OSError):
            remove(notes.config)
    if owner is not None or alive:
        asked = record is not None and record.stopping and (owner is None or owner.pid == record.pid)
        return state("running", stopping=asked)
    return state("finished") if RunFolder(folder).is_finished else state(*_ending(folder, lines, record))


def _ending(folder: Path, lines: Sequence[str], record: Process | None) -> tuple[Status, str]:
    """How a run that is not finished ended: "stopped" or "failed", and why."""
    if _changed(Notes(folder).log) < _changed(folder / LOCK) - LEEWAY:  # another process worked on it since
        lines, record = (), None
    stopped = record is not None and record.stopping
    if any(line.startswith("stopped after step ") for line in lines):
        return "stopped", ""
    if error := files.error_in(lines):
        return "failed", error
    if (folder / "config.toml").is_file():
        # Processes that were started from here print how they end; of others the lock shows whether they could.
        killed = not stopped and (owner_named_in(folder / LOCK) is not None or record is not None)
        return ("failed", _KILLED) if killed else ("stopped", "")
    if record is None:
        return "failed", f"{printable(str(folder))} no longer exists"
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
