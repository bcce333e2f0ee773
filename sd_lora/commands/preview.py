"""The verbs that draw: one sheet, or the page."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from pathlib import Path
from typing import Annotated, Optional

import typer

from sd_lora.commands.console import progress_bar, quiet_libraries
from sd_lora.commands.options import AdapterPath, Base
from sd_lora.errors import ConfigError

PreviewOverrides = Annotated[
    Optional[list[str]],  # noqa: UP045 (typer reads the annotation)
    typer.Argument(metavar="model.key=value", help="Settings of the base model, or preview.inference_steps."),
]


def preview(
    adapter: AdapterPath,
    prompt: Annotated[list[str], typer.Option(help="What to draw; repeat for several prompts.")],
    overrides: PreviewOverrides = None,
    strengths: Annotated[str, typer.Option(help="0,0.5,1 or 0-1.2(+0.4); 0 (the base model) is added.")] = "0,0.5,1",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise that every picture starts from.")] = 0,
    base: Annotated[str, typer.Option(help="The base model; default: tiny, if the adapter was trained on it.")] = "",
    out: Annotated[Path, typer.Option(help="The .png file to write.")] = Path("sheet.png"),
    guidance: Annotated[float, typer.Option(min=0, help="Scale of classifier-free guidance.")] = 5.0,
    negative: Annotated[str, typer.Option(help="Negative prompt: what not to draw.")] = "",
) -> None:
    """Draw prompts at several strengths from one seed, on a labelled sheet."""
    from sd_lora.preview.prompts import parse_strengths

    values = parse_strengths(strengths)
    if out.suffix.lower() != ".png" or out.is_dir() or not out.absolute().parent.is_dir():
        raise ConfigError(f"{out} cannot be written; --out is a .png file in a folder that exists")
    quiet_libraries()
    from sd_lora.adapters.adapter import Adapter
    from sd_lora.config.reading import parse_config
    from sd_lora.preview.job import MixedAdapter, PreviewJob, PreviewLimits, PreviewRow
    from sd_lora.preview.previewer import base_for
    from sd_lora.preview.service import PreviewService

    idle = [text for text in overrides or () if not text.startswith(("model.", "preview.inference_steps="))]
    if idle or any(text.startswith("model.base=") for text in overrides or ()):
        raise ConfigError(
            f"{', '.join(idle) or 'model.base'} has no effect on a preview; settings of a preview are model.* and "
            "preview.inference_steps, the rest are options, such as --base"
        )
    config = parse_config([("options", {"preview": {"guidance": guidance, "seed": seed}})], overrides or ())
    loaded = Adapter.load(adapter)
    rows = tuple(PreviewRow(text, (MixedAdapter(adapter),)) for text in prompt)
    job = PreviewJob(rows, values, negative, seed, config.preview.inference_steps, guidance)
    silent = [text for text in prompt if loaded.trigger and loaded.trigger.lower() not in text.lower()]
    model = dataclasses.replace(config.model, base=base or base_for(loaded))
    service = PreviewService.open(model, limits=PreviewLimits(cells=10_000, steps=10_000, prompt=100_000))
    with progress_bar("drawing") as watch:
        grid = service.grid(job, watch)
    if silent:
        trigger = loaded.trigger
        typer.echo(
            f'note: the trigger word "{trigger}" is not in the prompt; end it with ", in {trigger} style"', err=True
        )
    typer.echo(f"wrote {grid.save(out)}")


def webui(
    base: Base = "tiny",
    runs: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs"),
    data: Annotated[Optional[Path], typer.Option(help="Folder of image folders; default: RUNS/datasets.")] = None,  # noqa: UP045
    adapters: Annotated[list[Path] | None, typer.Option(help="Another folder of adapters; can be repeated.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free port.")] = 7860,
    auth: Annotated[
        str, typer.Option(metavar="USER:PASSWORD", help="Login; required if other machines can reach the page.")
    ] = "",
    keep_mb: Annotated[int, typer.Option(min=1, help="Megabytes of memory for drawn pictures.")] = 256,
) -> None:
    """Serve the page: preview and mix adapters, train, and edit folders of images in a browser."""
    quiet_libraries()
    # the page is a room above this one, so it is imported by name
    try:
        page = import_module("sd_lora.webui.app")
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("sd_lora."):
            raise
        raise ConfigError(
            "the page is not part of the source folder that `python -m` runs from; run `sd-lora webui`"
        ) from error
    page.check_address(host, auth)  # before a large base model is opened
    site = page.open_site(base, runs, data=data or "", libraries=adapters or (), kept_mb=keep_mb)
    page.end_at_signals(site)
    page.launch(site, host=host, port=port, auth=auth)
