"""The verbs that work on a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sd_lora.commands.console import print_check, print_json, progress_bar, quiet_libraries
from sd_lora.commands.options import AsJson, Base, ImageFolder, Overrides, Preset, Trigger, images_config
from sd_lora.errors import DataError, printable, some

if TYPE_CHECKING:
    from sd_lora.tools.caption import CaptionReport


def check(
    folder: ImageFolder = None,
    overrides: Overrides = None,
    base: Base = "",
    preset: Preset = "",
    trigger: Trigger = "",
    report: Annotated[Optional[Path], typer.Option(help="Write an HTML page with thumbnails to this file.")] = None,  # noqa: UP045
    as_json: AsJson = False,
) -> None:
    """Check settings and a folder as training would: layout, images and captions, and the run they would give."""
    config = images_config(folder, preset, {"model.base": base, "data.trigger": trigger}, overrides)
    quiet_libraries()
    from sd_lora.check.doctor import check_folder
    from sd_lora.check.report import check_target, write_report
    from sd_lora.training.settings_check import check_settings

    if report is not None:
        check_target(report)
    check_settings(config)
    with progress_bar("looking at the images") as watch:
        result = check_folder(config, thumbnails=report is not None, watch=watch)
    if report is not None:
        write_report(result, report)
    if as_json:
        print_json(result.to_json())
    else:
        print_check(result, config.model.base, report)
    if result.has_errors:
        raise typer.Exit(2)


def caption(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Images; those with captions are not changed.")],
    model: Annotated[
        str, typer.Option(help="A folder or hub id of a BLIP, BLIP-2, Florence-2, GIT or similar model.")
    ] = "",
    revision: Annotated[str, typer.Option(help="Commit, tag or branch of a hub model.")] = "",
    prefix: Annotated[str, typer.Option(help="Put this before every caption.")] = "",
    keep_style: Annotated[bool, typer.Option("--keep-style", help="Keep words that name a style.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the captions without writing them.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Draft captions for images that have none, leaving out words that name a style."""
    quiet_libraries()
    from sd_lora.tools.caption import caption_folder

    with progress_bar("captioning") as watch:
        report = caption_folder(
            folder,
            model,
            revision=revision,
            prefix=prefix,
            keep_style=keep_style,
            dry_run=dry_run,
            device=device,
            watch=watch,
        )
    if as_json:
        print_json(report.to_json())
    else:
        _print_captions(report)
    if report.refused:
        count = len(report.written) + len(report.kept) + len(report.refused)
        reasons = some([f"{name}: {reason}" for name, reason in report.refused])
        refusal = f"{len(report.refused)} of {count} images in {printable(str(folder))} got no caption ({reasons})"
        if as_json:  # which is one document
            typer.echo(f"error: {refusal}", err=True)
            raise typer.Exit(2)
        raise DataError(refusal)


def _print_captions(report: CaptionReport) -> None:
    for name, text in report.written:
        words = ", ".join(report.removed.get(name, []))
        typer.echo(f"{name}  {text}{f'  (left out: {words})' if words else ''}")
    done = "would write" if report.dry_run else "wrote"
    typer.echo(
        f"{done} {len(report.written)} captions and kept {len(report.kept)}; read and correct them before training"
    )
