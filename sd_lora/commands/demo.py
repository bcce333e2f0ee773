"""The main job from nothing: a captioned folder in a new style, an adapter, its strength sheet and its measures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sd_lora.commands.console import print_demo, quiet_libraries
from sd_lora.commands.options import Overrides
from sd_lora.errors import ConfigError, SdLoraError, nearest
from sd_lora.tinybase.world import HELD_OUT_STYLES

if TYPE_CHECKING:
    from sd_lora.config.schema import RunConfig
    from sd_lora.evaluation.tiny_measures import StyleMeasure
    from sd_lora.training.run import Watcher

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def demo(
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="The folder to create.")] = Path("sd-lora-demo"),
    style: Annotated[str, typer.Option(help=f"One of {', '.join(HELD_OUT_STYLES)}.")] = "woodcut",
) -> None:
    """Train on twelve pictures in a style that the embedded base model has never seen, and measure the result."""
    check_demo(out, style)
    quiet_libraries()
    from sd_lora.commands.progress import TrainingProgress

    typer.echo(f"Writing 12 captioned pictures in {style} style to {out / 'images'} and training on them …")
    with TrainingProgress() as progress:
        train_demo(out, style, overrides or (), progress.show)
    typer.echo("Drawing the strength sheet and measuring on prompts that were not used in training …")
    print_demo(out, measure_demo(out, style))


def check_demo(out: Path, style: str) -> None:
    """ConfigError for an unknown style or an output folder that exists; writes nothing."""
    from sd_lora.runs.folder import RunFolder

    if style not in HELD_OUT_STYLES:
        raise ConfigError(f'there is no style "{style}"; {nearest(style, HELD_OUT_STYLES)}')
    RunFolder.check_free(out)


def demo_config(out: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The config of the demo's run: the embedded base's own preset. ConfigError for settings that the demo decides."""
    from sd_lora.config.presets import load_config
    from sd_lora.tinybase.folder import TRIGGER

    fixed = ("data.folder", "data.trigger", "output.folder", "model.base")
    taken = [text for text in overrides if text.partition("=")[0].strip() in fixed]
    if taken:
        raise ConfigError(f"the demo sets {', '.join(fixed)} itself; leave out {', '.join(taken)}")
    data = {"folder": str(out / "images"), "trigger": TRIGGER}
    return load_config("tiny-style", *overrides, options={"data": data, "output": {"folder": str(out / "run")}})


def train_demo(out: Path, style: str, overrides: Sequence[str] = (), watch: Watcher | None = None) -> Path:
    """Write the folder of images and train on it; returns the adapter's file."""
    from sd_lora.training.run import train

    check_demo(out, style)
    config = demo_config(out, overrides)
    write_pictures(out / "images", style)
    try:
        train(config, watch=watch)
    except SdLoraError:
        if not (out / "run").exists():  # refused before it began: leave nothing behind
            shutil.rmtree(out)
        raise
    return out / "run" / "adapter.safetensors"


def write_pictures(folder: Path, style: str = "woodcut") -> str:
    """Make `folder` with the demo's twelve captioned pictures; returns their trigger word."""
    from sd_lora.tinybase.folder import TRIGGER, demo_scenes, write_captioned_folder

    write_captioned_folder(folder, style, demo_scenes())
    return TRIGGER


def measure_demo(out: Path, style: str) -> list[StyleMeasure]:
    """Draw the strength sheet of prompts the adapter has never seen, and measure its style at each strength."""
    from sd_lora.adapters.adapter import Adapter
    from sd_lora.evaluation.tiny_measures import measure_style, unseen_scenes
    from sd_lora.models.opening import load_base
    from sd_lora.preview.previewer import Previewer
    from sd_lora.tinybase.folder import TRIGGER

    adapter, suffix = Adapter.load(out / "run" / "adapter.safetensors"), f", in {TRIGGER} style"
    pipe, _ = load_base("tiny")
    prompts = [scene.caption + suffix for scene in unseen_scenes(4, first=8_000_000)]
    Previewer(pipe, adapter).grid(prompts, STRENGTHS).save(out / "strengths.png")
    measures = measure_style(pipe, adapter, style, suffix, count=24)
    (out / "measures.json").write_text(json.dumps([asdict(m) for m in measures], indent=2) + "\n", "utf-8")
    return measures
