"""The commands that work on adapter files, one small function each. Imports happen inside, as in `cli`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from sd_lora.commands.quiet import quiet_libraries
from sd_lora.errors import ConfigError

AdapterPath = Annotated[Path, typer.Argument(metavar="ADAPTER", help="A .safetensors adapter.")]
Out = Annotated[Path, typer.Option(help="The file to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the result if it exists.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
Dtype = Annotated[str, typer.Option(help="float16, bfloat16 or float32.")]
SameDtype = Annotated[str, typer.Option(help="float16, bfloat16 or float32; if left out, as it was.")]
Rank = Annotated[int, typer.Option(help="Keep so many ranks a module.")]
Energy = Annotated[float, typer.Option(help="Keep this share of each module's squared singular values, such as 0.95.")]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045 (typer reads the annotation)
    typer.Argument(metavar="[model.key=value]...", help="Settings of the base, such as model.config=FOLDER."),
]
BASE_HELP = '"tiny" (embedded), a pipeline folder, one .safetensors checkpoint, or a hub id.'


def register(app: typer.Typer) -> None:
    """Add the tools to `app`, in the order in which the help lists them."""
    for command in (inspect, verify, convert, merge, resize, fuse, extract):
        app.command()(command)


def inspect(adapter: AdapterPath, as_json: AsJson = False) -> None:
    """Show what is in an adapter: base model, layout, ranks, trigger word, norms, metadata."""
    from sd_lora.tools.inspect import inspect_adapter

    report = inspect_adapter(adapter)
    if as_json:
        print_json(report.to_json())
        return
    width = max(len(label) for label, _ in report.lines())
    for label, value in report.lines():
        typer.echo(f"{label:<{width}}  {value}")


def verify(
    adapter: AdapterPath,
    overrides: Overrides = None,
    base: Annotated[str, typer.Option(help=f"Try it on this base: {BASE_HELP}")] = "",
    as_json: AsJson = False,
) -> None:
    """Check that an adapter loads wholly: in a base model, and by the rules of six programs' loaders."""
    model = _model(base, overrides) if base or overrides else None
    quiet_libraries()
    from sd_lora.tools.verify import verify_adapter

    found = verify_adapter(adapter, model)
    if as_json:
        print_json(found.to_json())
    else:
        here = f"sd_lora on {found.base}" if found.base else "sd_lora"
        width = max(len(here), *(len(answer.client) for answer in found.clients))
        typer.echo(f"{adapter}: {found.modules} modules, for {found.kind or 'a base that nothing in it tells'}")
        typer.echo(f"{here:<{width}}  {'loads wholly' if found.is_whole else 'does not load'}")
        for answer in found.clients:
            verdict = "loads wholly" if answer.is_whole else f"{answer.loaded} of {answer.modules}"
            typer.echo(f"{answer.client:<{width}}  {'; '.join([verdict, *answer.reasons, *answer.notes])}")
    if not found.is_whole:
        raise ConfigError("; ".join(found.problems))


def convert(
    adapter: AdapterPath,
    out: Out,
    layout: Annotated[str, typer.Option(help="kohya (for every program) or diffusers.")] = "kohya",
    dtype: SameDtype = "",
    kind: Annotated[str, typer.Option(help="sd1, sd2, sd2-v or sdxl, if the file does not tell.")] = "",
    overwrite: Overwrite = False,
) -> None:
    """Write an adapter in another layout or type."""
    from sd_lora.tools.convert import convert_adapter

    _wrote(convert_adapter(adapter, out, layout=layout, dtype=dtype, kind=kind, overwrite=overwrite))


def merge(
    adapters: Annotated[list[Path], typer.Argument(metavar="ADAPTER...", help="The adapters to add up.")],
    out: Out,
    weights: Annotated[str, typer.Option(help="One number each, with commas; 1 if left out.")] = "",
    method: Annotated[str, typer.Option(help="concat (exact, ranks add up) or svd (cut to --rank).")] = "concat",
    rank: Rank = 0,
    dtype: SameDtype = "",
    overwrite: Overwrite = False,
) -> None:
    """Add several adapters up into one."""
    from sd_lora.tools.merge import merge_adapters

    factors = numbers("--weights", weights, "1,0.5") if weights else ()
    with progress_bar("merging") as watch:
        path = merge_adapters(
            adapters, out, weights=factors, method=method, rank=rank, dtype=dtype, overwrite=overwrite, watch=watch
        )
    _wrote(path)


def resize(
    adapter: AdapterPath,
    out: Out,
    rank: Rank = 0,
    energy: Energy = 0.0,
    dtype: SameDtype = "",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Cut an adapter to smaller ranks, and say what was lost."""
    from dataclasses import asdict

    from sd_lora.tools.resize import resize_adapter

    with progress_bar("resizing") as watch:
        report = resize_adapter(adapter, out, rank=rank, energy=energy, dtype=dtype, overwrite=overwrite, watch=watch)
    if as_json:
        print_json(asdict(report))
        return
    width = max(len(module.name) for module in report.modules)
    typer.echo(f"{'module':<{width}}  rank was  error")
    for module in report.modules:
        typer.echo(f"{module.name:<{width}}  {module.rank:>4} {module.before:>3}  {module.error:.4f}")
    typer.echo(
        f"wrote {report.path}: {report.bytes_before / 1024:,.0f} kB before, {report.bytes / 1024:,.0f} kB now, "
        f"error of the whole change {report.error:.4f}"
    )


def fuse(
    adapter: AdapterPath,
    out: Annotated[Path, typer.Option(help="A folder for a pipeline, or a .safetensors file for one checkpoint.")],
    base: Annotated[str, typer.Option(help=f"The base model: {BASE_HELP}")],
    overrides: Overrides = None,
    strength: Annotated[float, typer.Option(help="How much of the adapter.")] = 1.0,
    dtype: Dtype = "float16",
    overwrite: Overwrite = False,
) -> None:
    """Write a base model with an adapter in its weights."""
    model = _model(base, overrides)
    quiet_libraries()
    from sd_lora.tools.fuse import fuse_adapter

    path = fuse_adapter(adapter, model, out, strength=strength, dtype=dtype, overwrite=overwrite)
    typer.echo(f"wrote {path}")


def extract(
    out: Out,
    base: Annotated[str, typer.Option(help=f"The base model: {BASE_HELP}")],
    tuned: Annotated[str, typer.Option(help="The tuned model: the same choice.")],
    overrides: Overrides = None,
    rank: Rank = 0,
    energy: Energy = 0.0,
    targets: Annotated[str, typer.Option(help="Groups or patterns, as in training.")] = "attn,ff,proj,conv",
    dtype: Dtype = "float16",
    overwrite: Overwrite = False,
) -> None:
    """Write the adapter that leads from one base model to another."""
    models = _model(base, overrides), _model(tuned, overrides)
    quiet_libraries()
    from sd_lora.tools.extract import extract_adapter

    chosen = tuple(part.strip() for part in targets.split(","))
    with progress_bar("extracting") as watch:
        found = extract_adapter(
            *models, out, rank=rank, energy=energy, targets=chosen, dtype=dtype, overwrite=overwrite, watch=watch
        )
    if found.beyond:
        sorts = ", ".join(f"{count} {sort}" for sort, count in found.sorts_beyond.items())
        typer.echo(
            f"warning: {len(found.beyond)} weights outside --targets differ too and are not in the adapter "
            f"({sorts}), such as {found.beyond[0]}",
            err=True,
        )
    ranks = _span(found.ranks.values())
    typer.echo(f"wrote {found.path}: {len(found.ranks)} modules, {ranks}, error {found.error:.4f}")


def _model(base: str, overrides: Sequence[str] | None) -> Any:
    """The model section of a config, from --base and overrides."""
    from sd_lora.config.schema import parse_config

    idle = [text for text in overrides or () if not text.startswith("model.") or text.startswith("model.base=")]
    if idle:
        raise ConfigError(f"{', '.join(idle)} has no effect here; only model.* can be set, and the base with --base")
    if not base:
        raise ConfigError(f"{', '.join(overrides or ())} needs a base; name one with --base")
    return parse_config([("options", {"model": {"base": base}})], overrides or ()).model


def numbers(option: str, text: str, example: str) -> list[float]:
    """The numbers of an option such as ``1,0.5``; ConfigError if it holds anything else."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = [math.nan]
    if not all(math.isfinite(value) for value in values):
        raise ConfigError(f'{option} is "{text}"; write numbers with commas, such as {example}')
    return values


def _wrote(path: Path) -> None:
    from sd_lora.tools.inspect import inspect_adapter

    report = inspect_adapter(path)
    ranks = _span(report.ranks)
    typer.echo(f"wrote {path}: {report.modules} modules, {ranks}, {report.layout} keys, {report.bytes / 1024:,.0f} kB")


def _span(ranks: Iterable[int]) -> str:
    found = sorted(ranks)
    return f"rank {found[0]}" + (f" to {found[-1]}" if found[0] < found[-1] else "")


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, with count, rate and time left, on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(what, total=None, rate="")

        def watch(done: int, total: int) -> None:
            speed = bar.tasks[task].speed
            bar.update(task, completed=done, total=total, rate=f"{speed:.1f}/s" if speed else "")

        yield watch
