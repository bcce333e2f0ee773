"""The verb that reads a config of another trainer."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Optional

import typer

from sd_lora.commands.console import print_json
from sd_lora.commands.options import AsJson
from sd_lora.errors import ConfigError, reason


def import_config(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A config of kohya, kohya_ss, OneTrainer or ai-toolkit.")
    ],
    out: Annotated[Optional[Path], typer.Option(help="The TOML file to create.", show_default="printed")] = None,  # noqa: UP045
    as_json: AsJson = False,
) -> None:
    """Write the config of another trainer as one of ours, with a line for each thing that does not exist here."""
    from sd_lora.config.other_trainers.importing import import_file
    from sd_lora.training.settings_check import conflicts_on_any_base

    made = import_file(file, conflicts_on_any_base)
    if out is not None:
        try:
            with out.open("x", encoding="utf-8") as target:
                target.write(made.to_toml())
        except FileExistsError as error:
            raise ConfigError(f"{out} exists; name another file") from error
        except OSError as error:
            raise ConfigError(f"{out} cannot be written: {reason(error)}") from error
    if as_json:
        print_json(made.to_json())
    elif out is None:
        typer.echo(made.to_toml(), nl=False)
    else:
        missing, settings = len(made.not_here) + len(made.unknown), len(made.settings)
        lines = f", and {missing} line{'s' * (missing != 1)} on what is not here" if missing else ""
        typer.echo(f"wrote {out}: {settings} setting{'s' * (settings != 1)}{lines}")
        folder = "" if "data.folder" in made.settings else " FOLDER"
        base = "" if "model.base" in made.settings else " --base BASE"
        typer.echo(f"Next: sd-lora train{folder} --preset {shlex.quote(str(out))}{base}")
