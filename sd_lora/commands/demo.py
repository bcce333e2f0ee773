"""The main job from nothing: a captioned folder in a new style, an adapter, its strength sheet and its measures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sd_lora.adapters.adapter import Adapter
from sd_lora.config.presets import load_config
from sd_lora.config.schema import RunConfig
from sd_lora.errors import ConfigError, SdLoraError, nearest
from sd_lora.evaluation.tiny_measures import StyleMeasure, measure_style, unseen_scenes
from sd_lora.models.opening import load_base
from sd_lora.preview.previewer import Previewer
from sd_lora.runs.folder import RunFolder
from sd_lora.tinybase.styles import Style, render
from sd_lora.tinybase.world import HELD_OUT_STYLES, Scene, sample_scene
from sd_lora.training.run import Watcher, train

IMAGES, STRENGTHS = 12, (0.0, 0.25, 0.5, 0.75, 1.0)
TRIGGER = "xlora"
_SEED = 11_000_000


@dataclass(frozen=True)
class DemoResult:
    """Where everything lies, and what was measured."""

    folder: Path
    adapter: Path
    sheet: Path
    measures: list[StyleMeasure]


def demo_scenes(count: int = IMAGES) -> list[Scene]:
    """The scenes of the demo's training pictures; none shares its content with the prompts that measure it."""
    return [sample_scene(_SEED + i) for i in range(count)]


def write_captioned_folder(folder: Path, style: str | Style, scenes: Sequence[Scene]) -> None:
    """Write `scenes` drawn in `style` as ``01.png`` + ``01.txt`` …"""
    folder.mkdir(parents=True)
    for number, scene in enumerate(scenes, 1):
        render(scene, style).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(scene.caption + "\n", "utf-8")


def check_demo(out: Path, style: str) -> None:
    """ConfigError for an unknown style or an output folder that exists; writes nothing."""
    if style not in HELD_OUT_STYLES:
        raise ConfigError(f'there is no style "{style}"; {nearest(style, HELD_OUT_STYLES)}')
    RunFolder.check_free(out)


def demo_config(out: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The config of the demo's run: the embedded base's own preset."""
    paths = {"data.folder": out / "images", "output.folder": out / "run"}
    given = [f"{key}={json.dumps(str(path), ensure_ascii=False)}" for key, path in paths.items()]
    return load_config("tiny-style", *given, f"data.trigger={TRIGGER}", *overrides)


def check_overrides(overrides: Sequence[str]) -> None:
    """ConfigError for what the demo decides itself."""
    fixed = ("data.folder", "data.trigger", "output.folder", "model.base")
    taken = [text for text in overrides if text.partition("=")[0].strip() in fixed]
    if taken:
        raise ConfigError(f"the demo sets {', '.join(fixed)} itself; leave out {', '.join(taken)}")


def train_demo(out: Path, style: str, overrides: Sequence[str] = (), watch: Watcher | None = None) -> Path:
    """Write the folder of images and train on it; returns the adapter's file."""
    check_demo(out, style)
    check_overrides(overrides)
    config = demo_config(out, overrides)
    write_captioned_folder(out / "images", style, demo_scenes())
    try:
        train(config, watch=watch)
    except SdLoraError:
        if not (out / "run").exists():  # refused before it began: leave nothing behind
            shutil.rmtree(out)
        raise
    return out / "run" / "adapter.safetensors"


def measure_demo(out: Path, style: str) -> DemoResult:
    """Draw the strength sheet of prompts the adapter has never seen, and measure it."""
    file = out / "run" / "adapter.safetensors"
    adapter, suffix = Adapter.load(file), f", in {TRIGGER} style"
    pipe, _ = load_base("tiny")
    prompts = [scene.caption + suffix for scene in unseen_scenes(4, first=8_000_000)]
    sheet = Previewer(pipe, adapter).grid(prompts, STRENGTHS).save(out / "strengths.png")
    measures = measure_style(pipe, adapter, style, suffix, count=24)
    (out / "measures.json").write_text(json.dumps([asdict(m) for m in measures], indent=2) + "\n", "utf-8")
    return DemoResult(out, file, sheet, measures)
