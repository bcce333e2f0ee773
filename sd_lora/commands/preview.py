"""The verbs that draw: one sheet, or the page."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sd_lora.commands.console import print_json, progress_bar, quiet_libraries
from sd_lora.commands.options import AdapterPath, Base
from sd_lora.errors import ConfigError, some

if TYPE_CHECKING:
    from sd_lora.config.schema import RunConfig
    from sd_lora.data.dialects.prompts import Prompt

PreviewOverrides = Annotated[
    Optional[list[str]],  # noqa: UP045 (typer reads the annotation)
    typer.Argument(
        metavar="model.key=value", help="Settings of the base model, preview.inference_steps or data.syntax."
    ),
]


def preview(
    adapter: AdapterPath,
    overrides: PreviewOverrides = None,
    prompt: Annotated[
        Optional[list[str]],  # noqa: UP045 (typer reads the annotation)
        typer.Option(help="What to draw, as in: a cat --n blurry --w 512 --h 512 --d 1 --s 25 --l 5; can be repeated."),
    ] = None,
    prompts: Annotated[str, typer.Option(help="A file of prompts: one per line, or kohya's TOML or JSON.")] = "",
    strengths: Annotated[str, typer.Option(help="0,0.5,1 or 0-1.2(+0.4); 0 (the base model) is added.")] = "0,0.5,1",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise that every picture starts from.")] = 0,
    base: Annotated[str, typer.Option(help="The base model; default: tiny, if the adapter was trained on it.")] = "",
    out: Annotated[Path, typer.Option(help="The .png file to write.")] = Path("sheet.png"),
    guidance: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0, help="Scale of guidance; default: the one the adapter was trained with, or 5."),
    ] = None,
    negative: Annotated[str, typer.Option(help="Negative prompt: what not to draw.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the sheet's file and recipe as JSON.")] = False,
) -> None:
    """Draw prompts at several strengths from one seed, on a labelled sheet."""
    from sd_lora.preview.prompts import parse_strengths

    values = parse_strengths(strengths)
    if out.suffix.lower() != ".png" or out.is_dir() or not out.absolute().parent.is_dir():
        raise ConfigError(f"{out} cannot be written; --out is a .png file in a folder that exists")
    quiet_libraries()
    from sd_lora.adapters.adapter import Adapter
    from sd_lora.config.reading import parse_config
    from sd_lora.config.schema import PreviewConfig
    from sd_lora.preview.job import MixedAdapter, PreviewJob, PreviewLimits, PreviewRow
    from sd_lora.preview.previewer import base_for
    from sd_lora.preview.service import PreviewService
    from sd_lora.runs.threads import free_threads

    idle = [o for o in overrides or () if not o.startswith(("model.", "preview.inference_steps=", "data.syntax="))]
    idle += [o for o in overrides or () if o.startswith(("model.base=", "model.preview_base="))]
    if idle:
        raise ConfigError(
            f"{', '.join(idle)} has no effect on a preview; settings of a preview are model.*, "
            "preview.inference_steps and data.syntax, the rest are options, such as --base"
        )
    loaded = Adapter.load(adapter)
    given = {"seed": seed, "guidance": (loaded.guidance or PreviewConfig().guidance) if guidance is None else guidance}
    config = parse_config([("options", {"preview": given})], overrides or ())
    asked = _asked(prompt or (), prompts, config)
    rows = tuple(PreviewRow.of(each, (MixedAdapter(adapter),)) for each in asked)
    job = PreviewJob(rows, values, negative, seed, config.preview.inference_steps, config.preview.guidance)
    silent = [p for p in asked if loaded.trigger and loaded.trigger.lower() not in p.text.lower()]
    model = dataclasses.replace(config.model, base=base or base_for(loaded))
    service = PreviewService.open(
        model, limits=PreviewLimits(cells=10_000, steps=10_000, prompt=100_000, work=math.inf), threads=free_threads
    )
    with progress_bar("drawing") as watch:
        grid = service.grid(job, watch)
    notes = [*job.notes]
    if silent:
        trigger = loaded.trigger
        notes.insert(0, f'the trigger word "{trigger}" is not in the prompt; end it with ", in {trigger} style"')
    if loaded.guidance and config.preview.guidance != loaded.guidance:
        notes.append(f"the adapter was trained with guidance {loaded.guidance:g}")
    if pieces := [piece for each in asked for piece in each.pieces]:
        notes.append(f"{some(pieces)} is drawn as written; set data.syntax=read to read it")
    file = grid.save(out)
    if as_json:
        print_json({"file": str(file), "notes": notes, "recipe": dict(grid.recipe)})
        return
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"wrote {file}")


def _asked(given: Sequence[str], file: str, config: RunConfig) -> list[Prompt]:
    """The prompts of the options and of the file. ConfigError if there are none."""
    from sd_lora.data.dialects.prompts import prompts_in, read_prompt
    from sd_lora.data.dialects.syntax import pieces_of

    syntax = config.data.syntax == "read"
    asked = [read_prompt(text, syntax=syntax) for text in given]
    asked += prompts_in(file, syntax=syntax) if file else []
    if not asked:
        raise ConfigError("no prompt was given; say what to draw with --prompt, or name a file of prompts: --prompts")
    if config.data.syntax != "keep" and not any(pieces_of(text) for text in given) and not file:
        raise ConfigError("data.syntax has no effect because no prompt has syntax to read; leave it out")
    return asked


def webui(
    base: Base = "tiny",
    runs: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs"),
    data: Annotated[Optional[Path], typer.Option(help="Folder of image folders; default: RUNS/datasets.")] = None,  # noqa: UP045
    adapters: Annotated[list[Path] | None, typer.Option(help="Another folder of adapters; can be repeated.")] = None,
    models: Annotated[Optional[Path], typer.Option(help="Folder of base models that the page can change to.")] = None,  # noqa: UP045
    captioner: Annotated[str, typer.Option(help="Captioning model for drafts, as `sd-lora caption` takes it.")] = "",
    install_to: Annotated[
        list[Path] | None, typer.Option(help="Folder of A1111, Forge or ComfyUI to copy adapters to; can be repeated.")
    ] = None,
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
        access = import_module("sd_lora.webui.access")
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("sd_lora."):
            raise
        raise ConfigError(
            "the page is not part of the source folder that `python -m` runs from; run `sd-lora webui`"
        ) from error
    access.check_address(host, auth)
    access.check_port(host, port)
    typer.echo(f"starting the page and loading the base model {base} …")  # gradio alone takes seconds
    page = import_module("sd_lora.webui.app")
    site = page.open_site(
        base,
        runs,
        data=data or "",
        libraries=adapters or (),
        programs=install_to or (),
        kept_mb=keep_mb,
        models=models,
        captioner=captioner,
    )
    page.end_at_signals(site)
    page.launch(site, host=host, port=port, auth=auth)
