"""What the command line shows while training."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections import deque
from dataclasses import asdict
from math import fsum
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

from sd_lora.check.result import duration
from sd_lora.errors import StorageError
from sd_lora.runs.reports import StepReport

_LINE_EVERY = 15.0
#: steps over whose time the rate is taken
_RECENT = 100


class JsonProgress:
    """A line of JSON for each thing that happens, for programs: objects whose ``event`` says what it is."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to take down."""

    def say(self, event: str, **facts: Any) -> None:
        """Print an event."""
        print(json.dumps({"event": event, **facts}, ensure_ascii=False), flush=True)

    def encoding(self, done: int, total: int) -> None:
        """How many of how many images and captions have been encoded."""
        self.say("encoding", done=done, total=total)

    def show(self, report: StepReport) -> None:
        """The report of a step."""
        self.say("step", **asdict(report))

    def note(self, text: str) -> None:
        """A warning."""
        self.say("warning", message=text)

    def stopping(self, number: int) -> None:
        """The answer to the first signal, from its handler; another thread prints, as this one may be printing."""
        threading.Thread(target=self.say, args=("stopping",), kwargs={"signal": number}).start()


class TrainingProgress:
    """A bar with rate, time left and mean loss on a terminal; elsewhere a line every 15 seconds.

    Rate and time left count the steps alone, without the drawing and saving between them. The mean loss is over a
    twentieth of the run, as at the end of loss.png; `log` has the steps before those that are shown.
    """

    def __init__(self, log: Path | None = None) -> None:
        self._console, self._log = Console(), log
        figures = TextColumn("{task.fields[figures]}", table_column=Column())  # only this one wraps if space is short
        columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), figures)
        self._bar = Progress(*columns, console=self._console)
        self._task = self._bar.add_task("training", total=None, figures="")
        self._started = self._printed_at = time.monotonic()
        self._losses, self._seconds = deque[float](), deque[float](maxlen=_RECENT)
        self._stage = "stopping after the next step"

    def __enter__(self) -> Self:
        self._started = self._printed_at = time.monotonic()
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def encoding(self, done: int, total: int) -> None:
        """Show how many of how many images and captions have been encoded."""
        now = time.monotonic()
        if self._console.is_terminal:
            rate = max(done, 1) / max(now - self._started, 1e-9)
            figures = f"{rate:.1f}/s  {duration((total - done) / rate)} left"
            self._bar.update(self._task, description="encoding", completed=done, total=total, figures=figures)
        elif now - self._printed_at >= _LINE_EVERY:
            self._printed_at = now
            print(f"encoded {done} of {total} images and captions", flush=True)

    def note(self, text: str) -> None:
        """Show a warning."""
        self._print(f"warning: {text}")

    def stopping(self, number: int) -> None:
        """Answer the first signal, from its handler; another thread prints, as this one may be printing already."""
        again = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
        threading.Thread(target=self._print, args=(self._stage + again,)).start()

    def show(self, report: StepReport) -> None:
        """Show the report of a step."""
        if not self._seconds:
            self._losses.extend(_losses_before(report.step, self._log))
            self._printed_at = time.monotonic()
        self._losses.append(report.loss)
        while len(self._losses) > max(1, report.steps // 20):
            self._losses.popleft()
        self._seconds.append(report.seconds)
        ended, now = report.step == report.steps, time.monotonic()
        self._stage = "ending after the last samples" if ended else "stopping after this step"
        if self._console.is_terminal:
            what = "drawing samples" if ended else "training"
            self._bar.update(
                self._task, description=what, completed=report.step, total=report.steps, figures=self._figures(report)
            )
        elif now - self._printed_at >= _LINE_EVERY or ended:
            self._printed_at = now
            print(f"step {report.step}/{report.steps}  {self._figures(report)}", flush=True)
            if ended:
                print("drawing samples", flush=True)

    def _figures(self, report: StepReport) -> str:
        step, mean = fsum(self._seconds) / len(self._seconds), fsum(self._losses) / len(self._losses)
        return (
            f"{_rate(step)}  {duration((report.steps - report.step) * step)} left  mean loss {mean:.4f}  "
            f"lr {report.learning_rate:.2g}  {report.memory / 2**30:.1f} GB"
        )

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _losses_before(step: int, log: Path | None) -> list[float]:
    """The losses of the steps before `step` in a run's log."""
    from sd_lora.runs.folder import read_reports

    if log is None or step == 1:
        return []
    with contextlib.suppress(StorageError):
        return [report.loss for report in read_reports(log, StepReport) if report.step < step]
    return []


def _rate(seconds: float) -> str:
    """Steps per second, or seconds per step if it is slower."""
    return f"{1 / max(seconds, 1e-9):.1f} steps/s" if seconds <= 1 else f"{seconds:.1f} s/step"
