"""What the command line shows while training and when it is done."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from sd_lora.check.model import duration
from sd_lora.config import RunConfig

if TYPE_CHECKING:
    from sd_lora.demo import DemoResult
    from sd_lora.training import StepReport

_LINE_EVERY = 15.0


class TrainingProgress:
    """A bar with rate, time left and loss on a terminal; elsewhere a line every 15 seconds."""

    def __init__(self) -> None:
        self._console = Console()
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(), TextColumn("loss {task.fields[loss]}"), TextColumn("{task.fields[rest]}"),
            console=self._console,
        )  # fmt: skip
        self._task = self._bar.add_task("training", total=None, rate="", loss="…", rest="")
        self._started = self._said = time.monotonic()
        self._mean: float | None = None
        self._first = 0

    def __enter__(self) -> Self:
        self._started = self._said = time.monotonic()
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def encoding(self, done: int, total: int) -> None:
        """Consume how many of how many images and captions have been encoded."""
        now = time.monotonic()
        if self._console.is_terminal:
            rate = f"{done / max(now - self._started, 1e-9):.1f}/s"
            self._bar.update(self._task, description="encoding", completed=done, total=total, rate=rate)
        elif now - self._said >= _LINE_EVERY:
            self._said = now
            print(f"encoded {done} of {total} images and captions", flush=True)

    def note(self, text: str) -> None:
        """Show a warning."""
        self._console.print(f"warning: {text}", markup=False, highlight=False, soft_wrap=True)

    def show(self, report: StepReport) -> None:
        """Consume one report."""
        if self._mean is None:  # what came before was encoding
            self._started = self._said = time.monotonic() - report.seconds
        self._mean = report.loss if self._mean is None else 0.95 * self._mean + 0.05 * report.loss
        now = time.monotonic()
        self._first = self._first or report.step  # a resumed run does not begin with its first step
        rate = (report.step - self._first + 1) / max(now - self._started, 1e-9)
        if self._console.is_terminal:
            self._bar.update(
                self._task,
                description="training",
                completed=report.step,
                total=report.steps,
                rate=_rate(rate),
                loss=f"{self._mean:.4f}",
                rest=f"lr {report.learning_rate:.2g}  {report.memory / 2**30:.1f} GB",
            )
        elif now - self._said >= _LINE_EVERY or report.step == report.steps:
            self._said = now
            left = (report.steps - report.step) / rate
            print(
                f"step {report.step}/{report.steps}  loss {self._mean:.4f}  lr {report.learning_rate:.2g}  "
                f"{_rate(rate)}  {report.memory / 2**30:.1f} GB  {duration(left)} left",
                flush=True,
            )


def _rate(steps: float) -> str:
    """Steps a second, or seconds a step where there are fewer."""
    return f"{steps:.1f} steps/s" if steps >= 1 else f"{1 / steps:.1f} s/step"


def print_run(folder: Path, config: RunConfig) -> None:
    """Where the results of a run lie and how to use them."""
    adapter, trigger = folder / "adapter.safetensors", config.data.trigger
    prompt = f"your prompt, in {trigger} style" if trigger else "your prompt"
    base = "" if config.model.base == "tiny" else f" --base {config.model.base}"
    print(f"\nadapter     {adapter}  ({adapter.stat().st_size / 1024:,.0f} kB)")
    print(f"loss curve  {folder / 'loss.png'}")
    print(f"samples     {folder / 'samples'}")
    print(f'\nNext: sd-lora preview {adapter}{base} --prompt "{prompt}"')
    print(_snippet(config.model.base, adapter, prompt))


def print_demo(result: DemoResult) -> None:
    """The measures of the demo and what to do next."""
    table = Table("strength", "style distance", "closed", "subject kept", "background kept")
    for row in result.measures:
        closed = f"{row.closed:.2f}"
        table.add_row(f"{row.strength:g}", f"{row.distance:.4f}", closed, f"{row.subject:.0%}", f"{row.background:.0%}")
    Console().print(table)
    print(f"strength sheet  {result.sheet}")
    print(f"adapter         {result.adapter}  ({result.adapter.stat().st_size / 1024:,.0f} kB)")
    print(f"loss curve      {result.folder / 'run' / 'loss.png'}")
    print(f"config          {result.folder / 'run' / 'config.toml'}")
    print(f'\nNext: sd-lora preview {result.adapter} --prompt "a big red boat on the sea, in xlora style"')
    print("      sd-lora train YOUR_FOLDER --base tiny --trigger WORD")
    print(_snippet("tiny", result.adapter, "a big red boat on the sea, in xlora style"))


def _snippet(base: str, adapter: Path, prompt: str) -> str:
    if base.endswith(".safetensors"):
        return (
            f"\nAny program that has {Path(base).name} can use {adapter}; "
            f"check with: sd-lora verify {adapter} --base {base}\n"
        )
    source = "sd_lora.tiny_base_path()" if base == "tiny" else repr(base)
    head = "import sd_lora\n  " if base == "tiny" else ""
    return f"""
In diffusers (with peft installed):

  {head}from diffusers import DiffusionPipeline
  pipe = DiffusionPipeline.from_pretrained({source})
  pipe.load_lora_weights("{adapter.parent}", weight_name="{adapter.name}")
  pipe("{prompt}").images[0].save("picture.png")
"""
