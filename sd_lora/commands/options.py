"""What verbs have in common: the types of their options, and the config that those options and overrides make."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sd_lora.errors import ConfigError

if TYPE_CHECKING:
    from sd_lora.config.schema import ModelConfig, RunConfig

BASE_HELP = '"tiny" (embedded), a pipeline folder, a .safetensors checkpoint, or a hub id.'

AdapterPath = Annotated[Path, typer.Argument(metavar="ADAPTER", help="A .safetensors adapter.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print everything as JSON.")]
Base = Annotated[str, typer.Option(help=BASE_HELP.replace("(embedded)", "(embedded, the default)"))]
Dtype = Annotated[str, typer.Option(help="float16, bfloat16 or float32.")]
Energy = Annotated[
    float,
    typer.Option(help="Share of each module's squared norm to keep, such as 0.95.", show_default=False),
]
ImageFolder = Annotated[
    Optional[Path],  # noqa: UP045 (typer reads the annotation)
    typer.Argument(
        metavar="FOLDER",
        help="Images with captions in any common layout, or kohya's dataset TOML; default: the --preset file's.",
        show_default=False,
    ),
]
Judge = Annotated[
    str, typer.Option(metavar="BASE", help="Another base model that draws samples and measures (model.preview_base).")
]
ModelOverrides = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(metavar="model.key=value", help="Settings of the base model, such as model.config=FOLDER."),
]
Out = Annotated[Path, typer.Option(help="The file to write.")]
Overrides = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(metavar="section.key=value", help="Settings to change, such as lora.rank=8."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the result if it exists.")]
Preset = Annotated[str, typer.Option(help="Name of a preset, or a TOML file; default: the base model's preset.")]
Rank = Annotated[int, typer.Option(help="Rank to keep per module.", show_default=False)]
SameDtype = Annotated[str, typer.Option(help="float16, bfloat16 or float32; default: unchanged.")]
Trigger = Annotated[str, typer.Option(help='Captions become "<caption>, in TRIGGER style".')]


def images_config(
    folder: Path | None, preset: str, given: Mapping[str, str], overrides: Sequence[str] | None
) -> RunConfig:
    """The config of a run on the images in `folder`, or in the preset's own, from `given` options (``section.key`` →
    value, empty if left out) and overrides. ConfigError without images, and for a setting that is given twice."""
    from sd_lora.config.old_spellings import OLD_PRESETS
    from sd_lora.config.presets import load_config, preset_misfit, preset_names, suggested_setting

    settings, place = list(overrides or ()), str(folder or "")
    key, equals, _ = place.partition("=")
    if equals and suggested_setting(key, "") and not os.path.exists(place):  # the folder was left out
        settings, place = [place, *settings], ""
    chosen = {name: value for name, value in {**given, "data.folder": place}.items() if value}
    twice = [text for text in settings if text.partition("=")[0].strip() in chosen]
    if twice:
        raise ConfigError(f"{', '.join(twice)} was given twice, as an option and as an override; leave one out")
    options: dict[str, dict[str, str]] = {}
    for name, value in chosen.items():
        section, _, key = name.partition(".")
        options.setdefault(section, {})[key] = value
    config = load_config(preset, *settings, options=options)
    preset = OLD_PRESETS.get(preset, preset)  # load_config has said so
    if preset in preset_names() and (why := preset_misfit(preset, config.model.base)):
        raise ConfigError(why)
    if not config.data.folder:
        raise ConfigError("no images are given; name their FOLDER, or a --preset FILE.toml that has data.folder")
    return config


def model_config(base: str, overrides: Sequence[str] | None) -> ModelConfig:
    """The model section of a config, from --base and overrides; ConfigError for settings of anything else."""
    from sd_lora.config.reading import parse_config

    named = ("model.base=", "model.preview_base=")
    idle = [text for text in overrides or () if not text.startswith("model.") or text.startswith(named)]
    if idle:
        raise ConfigError(f"{', '.join(idle)} has no effect here; only model.* can be set, and the base with --base")
    if not base:
        raise ConfigError(f"{', '.join(overrides or ())} needs a base; name one with --base")
    return parse_config([("options", {"model": {"base": base}})], overrides or ()).model


def numbers(option: str, text: str, example: str) -> list[float]:
    """The numbers of an option such as ``1,0.5``; ConfigError if it holds anything else."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = [math.nan]
    if not all(math.isfinite(value) for value in values):
        raise ConfigError(f'{option} is "{text}"; write numbers separated by commas, such as {example}')
    return values
