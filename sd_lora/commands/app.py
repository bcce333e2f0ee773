"""The command line: one small function a command. Imports happen inside, so that help and errors answer at once."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

try:
    import typer

    from sd_lora.commands import adapters as tool_commands
    from sd_lora.commands import folders as data_commands
    from sd_lora.commands import main as entry
    from sd_lora.commands import preview as preview_commands
    from sd_lora.commands.adapters import progress_bar
    from sd_lora.commands.folders import Base, ImageFolder, Overrides, Preset, Trigger, images_config
    from sd_lora.commands.quiet import quiet_libraries
    from sd_lora.config.schema import RunConfig
    from sd_lora.errors import ConfigError
    from sd_lora.tinybase.world import HELD_OUT_STYLES
    from sd_lora.version import __version__
except KeyboardInterrupt:  # Ctrl-C in the first moment
    sys.exit(130)

if TYPE_CHECKING:
    from sd_lora.runs.folder import RunFolder
app = typer.Typer(
    name="sd-lora",
    help="Style LoRA for Stable Diffusion: from a folder of captioned images to a measured adapter.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
presets_app = typer.Typer(help="List, show and copy the shipped presets.", invoke_without_command=True)
app.add_typer(presets_app, name="presets")


@app.command()
def demo(
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="The folder to make.")] = Path("sd-lora-demo"),
    style: Annotated[str, typer.Option(help=f"One of {', '.join(HELD_OUT_STYLES)}.")] = "woodcut",
) -> None:
    """Train on twelve pictures in a style the embedded base has never seen, and measure the result."""
    from sd_lora.commands.progress import TrainingProgress, print_demo

    quiet_libraries()
    from sd_lora.commands.demo import check_demo, measure_demo, train_demo

    check_demo(out, style)
    typer.echo(f"Writing 12 captioned pictures in {style} style to {out / 'images'} and training on them …")
    with TrainingProgress() as progress:
        train_demo(out, style, overrides or (), progress.show)
    typer.echo("Drawing the strength sheet and measuring on prompts never seen in training …")
    print_demo(measure_demo(out, style))


@app.command()
def train(
    folder: ImageFolder = None,
    overrides: Overrides = None,
    base: Base = "",
    preset: Preset = "",
    trigger: Trigger = "",
    out: Annotated[Optional[Path], typer.Option(help="The run folder to make.", show_default="runs/FOLDER")] = None,  # noqa: UP045
    init: Annotated[str, typer.Option(metavar="ADAPTER", help="An adapter to train further.")] = "",
) -> None:
    """Train a style adapter on a folder of captioned images.

    Every setting, its default and what it means: sd-lora presets show tiny-style --all
    """
    given = {"model.base": base, "data.trigger": trigger, "output.folder": str(out or ""), "lora.init": init}
    _train(images_config(folder, preset, given, overrides))


@app.command(context_settings={"allow_extra_args": True})
def resume(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder of a training that was stopped.")],
) -> None:
    """Go on with a training that was stopped, or killed, to the same end as if it had not been."""
    quiet_libraries()
    from sd_lora.runs.folder import RunFolder

    folder = RunFolder(run)
    config, settings = folder.read_config(), ", ".join(context.args)
    then = _further(folder, config, context.args) if folder.is_finished else "leave that out to go on with it as it is"
    if settings:
        raise ConfigError(f"a run's settings are fixed, but {settings} was given for {run}; {then}")
    if folder.is_finished:
        typer.echo(f"{run} is finished: {folder.adapter}; {then}")
        return
    _train(config, resumed=True)


def _further(folder: RunFolder, config: RunConfig, settings: Sequence[str]) -> str:
    """How to train the adapter of a finished run further, with other `settings`."""
    given = ["--preset", str(folder.config), "--init", str(folder.adapter), "--out", "NEW", *settings]
    if config.lora.variant != "lora":  # the adapter has a variant of its own
        given.append("lora.variant=lora")
    return f"to train its adapter further: {shlex.join(['sd-lora', 'train', *given])}"


def _train(config: RunConfig, *, resumed: bool = False) -> None:
    quiet_libraries()
    from sd_lora.commands.progress import TrainingProgress, print_run
    from sd_lora.training.preparation import prepare
    from sd_lora.training.run import run_training
    from sd_lora.training.stopping import StopSignals

    with progress_bar("looking at the images") as look:
        run = prepare(config, on_look=look, resumed=resumed)
    data_commands.print_plan(run)
    if going_on := run.going_on():
        typer.echo(going_on)
    for note in run.notes:
        typer.echo(f"warning: {note}", err=True)
    try:
        with TrainingProgress(run.path / "log.jsonl") as progress, StopSignals(progress.stopping) as signals:
            run_training(
                run, watch=progress.show, on_encode=progress.encoding, stop=lambda: signals.received,
                on_note=progress.note,
            )  # fmt: skip
    except KeyboardInterrupt:
        if (run.path / "config.toml").is_file():
            again = shlex.join(["sd-lora", "resume", str(run.path)])
            typer.echo(f"stopped without saving the last steps; go on with: {again}", err=True)
        raise
    print_run(run.path, run.config)


data_commands.register(app)
preview_commands.register(app)
tool_commands.register(app)


@presets_app.callback()
def presets(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        from sd_lora.config.presets import preset_names, preset_summary

        names = preset_names()
        for name in names:
            typer.echo(f"{name:<{max(map(len, names))}}  {preset_summary(name)}")


@presets_app.command("show")
def show_preset(
    name: str,
    every: Annotated[bool, typer.Option("--all", help="Every setting there is, with what it means.")] = False,
) -> None:
    """Print a preset's TOML."""
    from sd_lora.config.help import setting_help
    from sd_lora.config.presets import all_settings, preset_text

    typer.echo(all_settings(name, setting_help()) if every else preset_text(name), nl=False)


@presets_app.command("copy")
def copy_preset(name: str, target: Annotated[Path, typer.Argument(help="A file or folder.")] = Path(".")) -> None:
    """Copy a preset to edit; use it with --preset FILE.toml."""
    from sd_lora.config.presets import copy_preset as copy

    typer.echo(f"wrote {copy(name, target)}")


@app.callback(invoke_without_command=True)
def _global(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"sd-lora {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point: a user's error is one sentence and its exit code; anything else is a bug and keeps its traceback."""
    entry.run(app)
