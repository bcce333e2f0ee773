"""The command line, assembled from its verbs. Verbs import what they need when they run, so help answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

try:
    import typer

    from sd_lora.commands import main as entry
    from sd_lora.version import __version__
except KeyboardInterrupt:  # Ctrl-C in the first moment
    sys.exit(130)

#: verb → module in this package and group in the help
VERBS = {
    "demo": ("demo", "Train"),
    "train": ("train", "Train"),
    "resume": ("train", "Train"),
    "plan": ("train", "Train"),
    "presets": ("presets", "Train"),
    "import-config": ("import_config", "Train"),
    "check": ("folders", "Folders of images"),
    "caption": ("folders", "Folders of images"),
    "preview": ("preview", "Pictures"),
    "webui": ("preview", "Pictures"),
    "evaluate": ("evaluate", "Quality"),
    "select": ("evaluate", "Quality"),
    "calibrate": ("evaluate", "Quality"),
    "inspect": ("adapters", "Adapters"),
    "verify": ("adapters", "Adapters"),
    "convert": ("adapters", "Adapters"),
    "merge": ("adapters", "Adapters"),
    "resize": ("adapters", "Adapters"),
    "fuse": ("adapters", "Adapters"),
    "extract": ("adapters", "Adapters"),
    "completion": ("completion", "Command line"),
}


def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"sd-lora {__version__}")
        raise typer.Exit


def _assembled(words: Sequence[str] = ()) -> typer.Typer:
    """The command line that understands `words`: where the first is a verb, that verb alone, which takes half the time
    of all of them; else all."""
    named = [word for word in words[:1] if word in VERBS]
    app = typer.Typer(
        name="sd-lora",
        help="Style LoRA for Stable Diffusion: from a folder of captioned images to a measured adapter.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        # typer loads all of pydantic to read an option, even one that is not given
        add_help_option=not named,
    )
    app.callback(invoke_without_command=True)(_nothing if named else _version)
    for name in named or VERBS:
        module, group = VERBS[name]
        verb = getattr(import_module(f"sd_lora.commands.{module}"), name.replace("-", "_"))
        if isinstance(verb, typer.Typer):
            app.add_typer(verb, name=name, rich_help_panel=group)
        else:
            loose = {"allow_extra_args": True} if name == "resume" else None  # to say why it takes no settings
            app.command(name, rich_help_panel=group, context_settings=loose)(verb)
    return app


def _nothing() -> None:
    """A command line of one verb, whose name is still to be given."""


def __getattr__(name: str) -> Any:
    """``app``: the command line with all verbs."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _assembled()


def main() -> None:
    """Entry point: a user's error is one sentence and its exit code; anything else is a bug and keeps its traceback."""
    # Threads of torch that wait then sleep, also in runs that the page starts: beside another process, those that spin
    # take the cores from those that compute. torch's OpenMP reads it when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app = _assembled(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
    entry.run(app)
