"""The command line, assembled from its verbs. Verbs import what they need when they run, so help answers at once."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated

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
    "inspect": ("adapters", "Adapters"),
    "verify": ("adapters", "Adapters"),
    "convert": ("adapters", "Adapters"),
    "merge": ("adapters", "Adapters"),
    "resize": ("adapters", "Adapters"),
    "fuse": ("adapters", "Adapters"),
    "extract": ("adapters", "Adapters"),
}


def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"sd-lora {__version__}")
        raise typer.Exit


def _assembled() -> typer.Typer:
    app = typer.Typer(
        name="sd-lora",
        help="Style LoRA for Stable Diffusion: from a folder of captioned images to a measured adapter.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_version)
    for name, (module, group) in VERBS.items():
        verb = getattr(import_module(f"sd_lora.commands.{module}"), name.replace("-", "_"))
        if isinstance(verb, typer.Typer):
            app.add_typer(verb, name=name, rich_help_panel=group)
        else:
            loose = {"allow_extra_args": True} if name == "resume" else None  # to say why it takes no settings
            app.command(name, rich_help_panel=group, context_settings=loose)(verb)
    return app


try:
    app = _assembled()
except KeyboardInterrupt:
    sys.exit(130)


def main() -> None:
    """Entry point: a user's error is one sentence and its exit code; anything else is a bug and keeps its traceback."""
    entry.run(app)
