"""What verbs print: results as lines, tables or JSON, and a progress bar; and no messages of libraries."""

from __future__ import annotations

import json
import os
import shlex
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from sd_lora.commands.main import processes
from sd_lora.commands.run_plan import plan_of, summary
from sd_lora.models import quiet

if TYPE_CHECKING:
    from sd_lora.check.result import Check
    from sd_lora.config.schema import RunConfig
    from sd_lora.evaluation.tiny_measures import StyleMeasure
    from sd_lora.training.prepared import Run


def quiet_libraries() -> None:
    """Turn off progress bars, advice and deprecations of the libraries; before they are imported."""
    quiet.quiet_libraries()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, with count, rate and time remaining, on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=None, rate="")

        def watch(done: int, total: int) -> None:
            speed = bar.tasks[task].speed
            bar.update(task, completed=done, total=total, rate=f"{speed:.1f}/s" if speed else "")

        yield watch


def print_plan(run: Run) -> None:
    """How the images were read, what the run will be, and why."""
    from sd_lora.check.result import duration

    facts, (_, count) = plan_of(run), processes()
    typer.echo(summary(run))
    for reason in facts["reasons"]:
        typer.echo(f"  {reason}")
    if count > 1:
        each, rest = divmod(facts["batch_size"], count)
        typer.echo(f"{count} processes" + ("" if rest else f", {each} {'image' if each == 1 else 'images'} each"))
    remaining, alone = facts["steps"] - (run.resumed_from or 0), " in one process" if count > 1 else ""
    if remaining > 0 and facts["seconds"] is None:
        typer.echo(f"{remaining} steps{alone}; how long they take is known after the first ones")
    elif remaining > 0:
        seconds = facts["seconds"] / facts["steps"] * remaining
        typer.echo(f"about {duration(seconds)} for {remaining} steps{alone}, samples not counted")


def print_check(result: Check, base: str, report: Path | None) -> None:
    """The layout, the findings, a sentence for each kind, and the plan."""
    from sd_lora.check.result import duration, how_often
    from sd_lora.data.findings import CODES, grouped
    from sd_lora.errors import shown

    typer.echo(f"{shown(result.folder)}: {result.summary}")
    lines = grouped(result.findings)
    for code, sentence in lines:
        typer.echo(f"{CODES[code].severity:<8} {code}: {sentence}")
    if not lines:
        typer.echo("no problems found")
    plan = result.plan
    if plan is not None:
        takes = "" if plan.seconds is None else f", about {duration(plan.seconds)}"
        takes += "" if plan.memory_bytes is None else f" and {plan.memory_bytes / 2**30:.1f} GB ({plan.basis})"
        typer.echo(
            f"\nplan for base model {base}: {plan.exposures} exposures of {plan.images} images, {plan.steps} steps of "
            f"{plan.batch_size} ({plan.epochs:g} epochs){takes}"
        )
        typer.echo(how_often(result.images))
        typer.echo(f"{'bucket':>12}  images  exposures")
        for row in plan.buckets:
            typer.echo(f"{f'{row.width} × {row.height}':>12}  {row.images:>6}  {row.exposures:>9}")
    if report is not None:
        typer.echo(f"\nwrote {shown(str(report))}")


def print_run(folder: Path, config: RunConfig) -> None:
    """The files a run wrote and how to use them."""
    adapter, trigger = folder / "adapter.safetensors", config.data.trigger
    prompt = f"your prompt, in {trigger} style" if trigger else "your prompt"
    drawn_on = config.model.preview_base or config.model.base
    base = "" if drawn_on == "tiny" else f" --base {shlex.quote(drawn_on)}"
    print()
    _print_files(
        {
            "adapter": adapter,
            "averaged": folder / f"adapter-{config.training.average}.safetensors",
            "intermediate": folder / "adapters",
            "loss curve": folder / "loss.png",
            "validation": folder / "validation.png",
            "samples": folder / "samples",
        }
    )
    print(f"\nNext: sd-lora preview {shlex.quote(str(adapter))}{base} --prompt {shlex.quote(prompt)}")
    print(_snippet(drawn_on, adapter, prompt))


def print_demo(folder: Path, measures: Iterable[StyleMeasure]) -> None:
    """What the demo measured, where its files are, and what to do next."""
    from rich.console import Console
    from rich.table import Table

    table = Table("strength", "style distance", "closed", "subject kept", "background kept")
    for row in measures:
        closed = f"{row.closed:.2f}"
        table.add_row(f"{row.strength:g}", f"{row.distance:.4f}", closed, f"{row.subject:.0%}", f"{row.background:.0%}")
    Console().print(table)
    run, prompt = folder / "run", "a big red boat on the sea, in xlora style"
    files = {"strength sheet": folder / "strengths.png", "adapter": (adapter := run / "adapter.safetensors")}
    _print_files(files | {"loss curve": run / "loss.png", "config": run / "config.toml"})
    print(f"\nNext: sd-lora preview {shlex.quote(str(adapter))} --prompt {shlex.quote(prompt)}")
    print("      sd-lora train YOUR_FOLDER --base tiny --trigger WORD")
    print(_snippet("tiny", adapter, prompt))


def _print_files(files: Mapping[str, Path]) -> None:
    """Those of `files` that exist, the adapter with its size."""
    for name, path in files.items():
        if path.exists():
            size = f"  ({path.stat().st_size / 1024:,.0f} kB)" if name == "adapter" else ""
            print(f"{name:<14}  {path}{size}")


def print_written(path: Path) -> None:
    """One line about an adapter that was just written."""
    from sd_lora.tools.inspect import inspect_adapter

    report = inspect_adapter(path)
    typer.echo(
        f"wrote {path}: {report.modules} modules, {rank_range(report.ranks)}, {report.layout} keys, "
        f"{report.bytes / 1024:,.0f} kB"
    )


def rank_range(ranks: Iterable[int]) -> str:
    """``rank 4`` or ``rank 2 to 8``."""
    low, *_, high = sorted([*ranks] * 2)
    return f"rank {low}" + (f" to {high}" if low < high else "")


def _snippet(base: str, adapter: Path, prompt: str) -> str:
    """How to use the adapter of a run; where diffusers does not read it from kohya's keys, with the export."""
    from sd_lora.adapters.summary import read_summary

    if read_summary(adapter).needs_export:
        adapter = adapter.parent / "diffusers" / "pytorch_lora_weights.safetensors"
    if base.endswith(".safetensors"):
        checked = f"sd-lora verify {shlex.quote(str(adapter))} --base {shlex.quote(base)}"
        return f"\nAny program that has {Path(base).name} can use {adapter}; check with: {checked}\n"
    source = "sd_lora.tiny_base_path()" if base == "tiny" else repr(base)
    head = "import sd_lora\n  " if base == "tiny" else ""
    return f"""
In diffusers (with peft installed):

  {head}from diffusers import DiffusionPipeline
  pipe = DiffusionPipeline.from_pretrained({source})
  pipe.load_lora_weights({_quoted(str(adapter.parent))}, weight_name="{adapter.name}")
  pipe({_quoted(prompt)}).images[0].save("picture.png")
"""


def _quoted(text: str) -> str:
    """A Python string in double quotes."""
    return json.dumps(text, ensure_ascii=False)
