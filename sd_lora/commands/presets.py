"""The shipped presets: list, show, copy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

presets = typer.Typer(help="List, show and copy the shipped presets.", invoke_without_command=True)


@presets.callback()
def list_presets(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        from sd_lora.config.presets import preset_names, preset_summary

        names = preset_names()
        for name in names:
            typer.echo(f"{name:<{max(map(len, names))}}  {preset_summary(name)}")


@presets.command()
def show(
    name: str,
    every: Annotated[bool, typer.Option("--all", help="Every setting, with its value and what it means.")] = False,
) -> None:
    """Print a preset as TOML."""
    from sd_lora.config.help import setting_help
    from sd_lora.config.presets import all_settings, preset_text

    typer.echo(all_settings(name, setting_help()) if every else preset_text(name), nl=False)


@presets.command()
def copy(name: str, target: Annotated[Path, typer.Argument(help="A file or folder.")] = Path(".")) -> None:
    """Copy a preset to edit and use with --preset FILE.toml."""
    from sd_lora.config.presets import copy_preset

    typer.echo(f"wrote {copy_preset(name, target)}")
