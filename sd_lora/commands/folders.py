"""The commands that work on a folder of images, one small function each. Imports happen inside, as in `cli`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sd_lora.commands.adapters import BASE_HELP, AsJson, print_json, progress_bar
from sd_lora.commands.main import processes
from sd_lora.commands.quiet import quiet_libraries
from sd_lora.config.schema import RunConfig
from sd_lora.errors import ConfigError, DataError, printable, some

if TYPE_CHECKING:
    from sd_lora.check.result import Check
    from sd_lora.tools.caption import CaptionReport
    from sd_lora.training.preparation import Run

Base = Annotated[str, typer.Option(help=BASE_HELP.replace("(embedded)", "(embedded, the default)"))]
ImageFolder = Annotated[
    Optional[Path],  # noqa: UP045 (typer reads the annotation)
    typer.Argument(
        metavar="FOLDER",
        help="Images with captions, in any common layout, or kohya's dataset TOML; if left out, the --preset file's.",
        show_default=False,
    ),
]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045 (typer reads the annotation)
    typer.Argument(metavar="[section.key=value]...", help="Config overrides, such as lora.rank=8."),
]
Preset = Annotated[str, typer.Option(help="A preset's name or a TOML file; default: the base model's.")]
Trigger = Annotated[str, typer.Option(help='Captions become "<caption>, in TRIGGER style".')]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`, in the order in which the help lists them."""
    for command in (check, plan, caption):
        app.command()(command)


def run_config(preset: str, given: Mapping[str, str], overrides: Sequence[str] | None) -> RunConfig:
    """The config of a run from `given` options (``section.key`` → value, empty if left out) and overrides.

    Raises ConfigError if one of them is given twice."""
    from sd_lora.config.presets import load_config

    twice = [text for text in overrides or () if given.get(text.partition("=")[0].strip())]
    if twice:
        raise ConfigError(f"{', '.join(twice)} was given twice, as an option and as an override; leave one out")
    options: dict[str, dict[str, str]] = {}
    for name, value in given.items():
        section, _, key = name.partition(".")
        if value:
            options.setdefault(section, {})[key] = value
    return load_config(preset, *(overrides or ()), options=options)


def images_config(
    folder: Path | None, preset: str, given: Mapping[str, str], overrides: Sequence[str] | None
) -> RunConfig:  # fmt: skip
    """As `run_config`, on the images in `folder`, or in the preset's own. ConfigError if neither is given."""
    from sd_lora.config.presets import settings_named

    settings, place = list(overrides or ()), str(folder or "")
    key, equals, _ = place.partition("=")
    if equals and settings_named(key) and not os.path.exists(place):  # no folder, and the first setting in its place
        settings, place = [place, *settings], ""
    config = run_config(preset, {**given, "data.folder": place}, settings)
    if not config.data.folder:
        raise ConfigError("no images are given; name their FOLDER, or a --preset FILE.toml that has data.folder")
    return config


def print_plan(run: Run) -> None:
    """What was understood of the images, what the run will be, and why."""
    from sd_lora.check.result import duration

    facts, (_, count) = run.plan(), processes()
    typer.echo(run.summary())
    for reason in facts["reasons"]:
        typer.echo(f"  {reason}")
    if count > 1:
        each, rest = divmod(facts["batch_size"], count)
        typer.echo(f"{count} processes" + ("" if rest else f", {each} {'image' if each == 1 else 'images'} each"))
    left, alone = facts["steps"] - (run.resumed_from or 0), " in one process" if count > 1 else ""
    if left > 0:
        seconds = facts["seconds"] / facts["steps"] * left
        typer.echo(f"about {duration(seconds)} for {left} steps{alone}, samples not counted")


def check(
    folder: ImageFolder = None,
    overrides: Overrides = None,
    base: Base = "",
    preset: Preset = "",
    trigger: Trigger = "",
    report: Annotated[Optional[Path], typer.Option(help="Write an HTML page with thumbnails.")] = None,  # noqa: UP045
    as_json: AsJson = False,
) -> None:
    """Look at a folder as training would: layout, images, captions, and what a run on it will be."""
    config = images_config(folder, preset, {"model.base": base, "data.trigger": trigger}, overrides)
    quiet_libraries()
    from sd_lora.check.doctor import check_folder
    from sd_lora.check.report import check_target, write_report

    if report is not None:
        check_target(report)

    with progress_bar("looking at the images") as watch:
        found = check_folder(config, thumbnails=report is not None, watch=watch)
    if report is not None:
        write_report(found, report)
    if as_json:
        print_json(found.to_json())
    else:
        _print_check(found, config.model.base, report)
    if found.has_errors:
        raise typer.Exit(2)


def plan(
    folder: ImageFolder = None,
    overrides: Overrides = None,
    base: Base = "",
    preset: Preset = "",
    trigger: Trigger = "",
    as_json: AsJson = False,
) -> None:
    """Say what a training would be here, and why: exposures, steps, what is computed at once, time and memory."""
    config = images_config(folder, preset, {"model.base": base, "data.trigger": trigger}, overrides)
    quiet_libraries()
    from sd_lora.training.preparation import prepare

    with progress_bar("looking at the images") as watch:
        run = prepare(config, on_look=watch, planned=True)
    if as_json:
        print_json(run.plan())
    else:
        print_plan(run)


def caption(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Images; those with captions are left alone.")],
    model: Annotated[
        str, typer.Option(help="A folder, or the id of a hub model, of BLIP, BLIP-2, Florence-2, GIT or their class.")
    ] = "",
    revision: Annotated[str, typer.Option(help="Commit, tag or branch of a hub model.")] = "",
    prefix: Annotated[str, typer.Option(help="Comes before every caption.")] = "",
    keep_style: Annotated[bool, typer.Option("--keep-style", help="Keep the words that name a style.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the captions and write nothing.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Draft captions for the images that have none, without words that name a style."""
    quiet_libraries()
    from sd_lora.tools.caption import caption_folder

    with progress_bar("captioning") as watch:
        report = caption_folder(
            folder, model, revision=revision, prefix=prefix, keep_style=keep_style, dry_run=dry_run, device=device,
            watch=watch,
        )  # fmt: skip
    if as_json:
        print_json(report.to_json())
    else:
        _show(report)
    if report.refused:
        count = len(report.written) + len(report.kept) + len(report.refused)
        reasons = some([f"{name}: {reason}" for name, reason in report.refused])
        refusal = f"{len(report.refused)} of {count} images in {printable(str(folder))} got no caption ({reasons})"
        if as_json:  # which is one document
            typer.echo(f"error: {refusal}", err=True)
            raise typer.Exit(2)
        raise DataError(refusal)


def _show(report: CaptionReport) -> None:
    for name, text in report.written:
        words = ", ".join(report.removed.get(name, []))
        typer.echo(f"{name}  {text}{f'  (left out: {words})' if words else ''}")
    done = "would write" if report.dry_run else "wrote"
    typer.echo(
        f"{done} {len(report.written)} captions and kept {len(report.kept)}; read and correct them before training"
    )


def _print_check(found: Check, base: str, report: Path | None) -> None:
    """The layout, the findings, a sentence for each kind, and the plan."""
    from sd_lora.check.result import duration, how_often
    from sd_lora.data.findings import CODES, grouped
    from sd_lora.data.folders.tree import shown

    typer.echo(f"{shown(found.folder)}: {found.summary}")
    lines = grouped(found.findings)
    for code, sentence in lines:
        typer.echo(f"{CODES[code].severity:<8} {code}: {sentence}")
    if not lines:
        typer.echo("nothing to remark")
    plan = found.plan
    if plan is not None:
        takes = "" if plan.seconds is None else f", about {duration(plan.seconds)}"
        takes += "" if plan.memory_bytes is None else f" and {plan.memory_bytes / 2**30:.1f} GB ({plan.basis})"
        typer.echo(
            f"\nplan for base model {base}: {plan.exposures} exposures of {plan.images} images, {plan.steps} steps of "
            f"{plan.batch_size}{takes}"
        )
        typer.echo(how_often(found.images))
        typer.echo(f"{'bucket':>12}  images  exposures")
        for row in plan.buckets:
            typer.echo(f"{f'{row.width} × {row.height}':>12}  {row.images:>6}  {row.exposures:>9}")
    if report is not None:
        typer.echo(f"\nwrote {shown(str(report))}")
