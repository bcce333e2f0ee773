"""The verbs that train, or show what a run would be."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sd_lora.commands.console import print_json, print_plan, print_run, progress_bar, quiet_libraries
from sd_lora.commands.options import AsJson, Base, ImageFolder, Judge, Overrides, Preset, Trigger, images_config
from sd_lora.commands.run_plan import plan_of, resuming
from sd_lora.errors import ConfigError

if TYPE_CHECKING:
    from sd_lora.config.schema import RunConfig
    from sd_lora.runs.folder import RunFolder
    from sd_lora.runs.reports import StepReport


def train(
    folder: ImageFolder = None,
    overrides: Overrides = None,
    base: Base = "",
    preset: Preset = "",
    trigger: Trigger = "",
    judge: Judge = "",
    out: Annotated[Optional[Path], typer.Option(help="The run folder to create.", show_default="runs/FOLDER")] = None,  # noqa: UP045
    init: Annotated[str, typer.Option(metavar="ADAPTER", help="An adapter to train further.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print what happens as lines of JSON.")] = False,
) -> None:
    """Train a style adapter on a folder of captioned images.

    To see every setting with its default and what it means: sd-lora presets show tiny-style --all
    """
    given = {
        "model.base": base, "model.preview_base": judge, "data.trigger": trigger, "output.folder": str(out or ""),
        "lora.init": init,
    }  # fmt: skip
    _train(images_config(folder, preset, given, overrides), as_json=as_json)


def resume(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.")],
    finish: Annotated[bool, typer.Option("--finish", help="End it at the step it reached, with all files.")] = False,
) -> None:
    """Resume a stopped or killed run; the result is identical to an uninterrupted one."""
    quiet_libraries()
    from sd_lora.runs.folder import RunFolder

    folder = RunFolder(run)
    config, settings = folder.read_config(), context.args
    steps, reached = config.training.steps, folder.reached if folder.is_finished else None
    ended_early = steps is not None and reached is not None and reached < steps
    if ended_early and settings == [f"training.steps={steps}"] and not finish:
        folder.reopen()  # its checkpoint is that of a run of as many steps, so the result is the same
    elif folder.is_finished:
        then = _further(folder, config, settings)
        if ended_early:
            again = shlex.join(["sd-lora", "resume", str(run), f"training.steps={steps}"])
            remaining = f"it ended at step {reached} of {steps}; to train the remaining steps: {again}"
            then = f"{remaining}; to train its adapter further, in another run: {then}"
        else:
            more = "all its steps are done, so more are another run; " * any(map(_is_length, settings))
            then = f"{more}to train its adapter further: {then}"
        if settings:
            raise ConfigError(f"a run's settings are fixed, but {', '.join(settings)} was given for {run}; {then}")
        typer.echo(f"{run} is finished: {folder.adapter}; {then}")
        return
    elif settings:
        then = "leave that out to resume it as it is"
        if any(map(_is_length, settings)):
            then += f" to step {steps}, or end it with --finish; either adapter can be trained further with --init"
        raise ConfigError(f"a run's settings are fixed, but {', '.join(settings)} was given for {run}; {then}")
    _train(config, resumed=True, finish=finish)


def plan(
    folder: ImageFolder = None,
    overrides: Overrides = None,
    base: Base = "",
    preset: Preset = "",
    trigger: Trigger = "",
    judge: Judge = "",
    as_json: AsJson = False,
) -> None:
    """Show what a run would be on this machine, and why: exposures, steps, batches, time and memory."""
    given = {"model.base": base, "model.preview_base": judge, "data.trigger": trigger}
    config = images_config(folder, preset, given, overrides)
    quiet_libraries()
    from sd_lora.training.preparation import prepare

    with progress_bar("looking at the images") as watch:
        run = prepare(config, on_look=watch, planned=True)
    if as_json:
        print_json(plan_of(run))
    else:
        print_plan(run)


def _further(folder: RunFolder, config: RunConfig, settings: Sequence[str]) -> str:
    """The command that trains the adapter of a finished run further, with other `settings`."""
    reached = folder.reached or 0
    more = [_beyond(setting, reached) for setting in settings]
    given = ["--preset", str(folder.config), "--init", str(folder.adapter), "--out", "NEW", *more]
    if config.lora.variant != "lora":  # the adapter brings its variant
        given.append("lora.variant=lora")
    return shlex.join(["sd-lora", "train", *given])


def _is_length(setting: str) -> bool:
    """Whether it says how long to train."""
    return setting.startswith(("training.steps=", "training.epochs="))


def _beyond(setting: str, reached: int) -> str:
    """A number of steps in all as the number that is left after those `reached`; other settings stay."""
    name, _, value = setting.partition("=")
    if name == "training.steps" and value.isdecimal() and int(value) > reached:
        return f"{name}={int(value) - reached}"
    return setting


def _train(config: RunConfig, *, resumed: bool = False, finish: bool = False, as_json: bool = False) -> None:
    quiet_libraries()
    from sd_lora.commands.progress import JsonProgress, TrainingProgress
    from sd_lora.runs.stage import Stage
    from sd_lora.training.preparation import prepare
    from sd_lora.training.run import run_training
    from sd_lora.training.stopping import StopSignals

    stage = Stage()
    stage.say("loading the base model")
    with progress_bar("looking at the images") as look:

        def looking(done: int, total: int) -> None:
            look(done, total)
            stage.count("looking at picture", done, total)

        run = prepare(config, on_look=looking, resumed=resumed)
    events = JsonProgress() if as_json else None
    if events:
        events.say("plan", folder=str(run.path), **plan_of(run))
    else:
        print_plan(run)
    if where := resuming(run, finish=finish):
        typer.echo(where)
    for note in run.notes:
        if events:
            events.note(note)
        else:
            typer.echo(f"warning: {note}", err=True)
    try:
        with events or TrainingProgress(run.path / "log.jsonl") as progress, StopSignals(progress.stopping) as signals:

            def encoding(done: int, total: int) -> None:
                progress.encoding(done, total)
                stage.count("encoding pictures and captions,", done, total)
                if done == total:
                    stage.say("computing the first step")

            def show(report: StepReport) -> None:
                stage.end()
                progress.show(report)

            run_training(
                run,
                watch=show,
                on_encode=encoding,
                stop=lambda: signals.received,
                on_note=progress.note,
                finish=finish,
            )
    except KeyboardInterrupt:
        if (run.path / "config.toml").is_file():
            again = shlex.join(["sd-lora", "resume", str(run.path)])
            typer.echo(f"stopped without saving the last steps; resume with: {again}", err=True)
        raise
    if events:
        events.say("finished", folder=str(run.path), adapter=str(run.path / "adapter.safetensors"))
    else:
        print_run(run.path, run.config)
