"""Open base models: find them, recognise their family, load them where and as a config asks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sd_lora.config.conflicts import place_conflicts
from sd_lora.config.schema import ModelConfig
from sd_lora.errors import BaseModelError
from sd_lora.models import sources
from sd_lora.models.checkpoint.file import load_single_file, with_prediction_type
from sd_lora.models.checkpoint.kind import detect
from sd_lora.models.checkpoint.scaled import check_plain
from sd_lora.models.checkpoint.vae import check_vae, load_vae
from sd_lora.models.device import choose_device, choose_dtype
from sd_lora.models.families import FAMILIES, ModelFamily, family_of_checkpoint, family_of_class
from sd_lora.models.quantize import check_quantize, quantize
from sd_lora.models.sources import BaseSource, base_place, weight_files


def find_base(base: str | Path, revision: str = "") -> BaseSource:
    """Where `base` is: ``tiny``, a pipeline folder, a ``.safetensors`` checkpoint, or a hub model, which is fetched.

    Raises BaseModelError; for a hub model of no known family before its weights are fetched.
    """
    return sources.find_base(base, revision, family_of)


def family_of(folder: Path) -> ModelFamily:
    """The family of a pipeline folder, by the class its `model_index.json` names."""
    try:
        kind = json.loads((folder / "model_index.json").read_text("utf-8")).get("_class_name", "")
    except (OSError, ValueError, AttributeError) as error:
        raise BaseModelError(f"base model {folder} has an unreadable model_index.json: {error}") from error
    for family in FAMILIES.values():
        if kind in family.pipeline_classes:
            return family
    raise BaseModelError(f"base model {folder} is a {kind or 'nameless pipeline'}; supported are {_supported()}")


def _supported() -> str:
    return ", ".join(name for family in FAMILIES.values() for name in family.pipeline_classes)


def family_of_source(source: BaseSource) -> ModelFamily:
    """The family of a folder or checkpoint file, without loading it. Raises BaseModelError."""
    if not source.is_file:
        return family_of(source.path)
    return family_of_checkpoint(detect(source.path).kind)


def family_of_pipe(pipe: Any) -> ModelFamily:
    """The family of a pipeline that was loaded elsewhere, by its class or the nearest base class;
    BaseModelError if it has none here."""
    names = (made.__name__ for made in type(pipe).__mro__ if made.__name__.endswith("Pipeline"))
    family = next(filter(None, map(family_of_class, names)), None)
    if family is None:
        raise BaseModelError(f"a {type(pipe).__name__} is of no known family; supported are {_supported()}")
    return family


def prediction_of(source: BaseSource, asked: str = "auto") -> str | None:
    """What a base model predicts, as far as `asked` or its header says; None if neither does."""
    if asked != "auto":
        return asked
    if source.is_file:
        return detect(source.path).prediction_type
    try:
        scheduler = json.loads((source.path / "scheduler" / "scheduler_config.json").read_text("utf-8"))
        return scheduler.get("prediction_type")
    except (OSError, ValueError, AttributeError):
        return None  # opening it will say more


def load_base(
    base: str | Path = "tiny",
    dtype: torch.dtype = torch.float32,
    *,
    revision: str = "",
    config: str | Path = "",
    prediction_type: str = "auto",
    vae: str | Path = "",
) -> tuple[Any, ModelFamily]:
    """The frozen pipeline of `base`, on the CPU, and its family.

    `base` is ``tiny``, a diffusers folder, a ``.safetensors`` checkpoint or a hub model; `revision` is for hub models
    only, and `config` (a folder with the tokenizer and, for unusual sizes, configs) for checkpoints only.
    `prediction_type` "epsilon" or "v_prediction" overrides what the base says, `vae` (a diffusers VAE folder or a
    ``.safetensors`` file on this machine) its VAE. Raises BaseModelError.
    """
    if prediction_type not in ("auto", "epsilon", "v_prediction"):
        raise BaseModelError(f'model.prediction_type is "{prediction_type}"; auto, epsilon and v_prediction are known')
    place = base_place(base)
    if place != "hub":
        find_base(base)  # that it does not exist matters more than settings that do not suit it
    if problems := place_conflicts(str(base), revision, str(config), place):
        raise BaseModelError("; ".join(problems))
    if vae:
        check_vae(vae)
    source = find_base(base, revision)
    family = family_of_source(source)
    if source.is_file:
        pipe = load_single_file(source.path, dtype, config=config, prediction_type=prediction_type)
        pipe = family.adopt(pipe, str(source.path))
    else:
        for file in weight_files(source.path):
            check_plain(file)
        pipe = family.load(source.path, dtype)
        if prediction_type != "auto":
            pipe.scheduler = with_prediction_type(pipe.scheduler, prediction_type)
    if vae:
        pipe.register_modules(vae=load_vae(vae, pipe.vae, dtype))
    return pipe, family


def load_named(model: ModelConfig, dtype: torch.dtype = torch.float32) -> tuple[Any, ModelFamily]:
    """As `load_base`, for the base that a config names."""
    return load_base(
        model.base,
        dtype,
        revision=model.revision,
        config=model.config,
        prediction_type=model.prediction_type,
        vae=model.vae,
    )


@dataclass(frozen=True)
class OpenBase:
    """A base model as a config asks for it: its frozen pipeline, still on the CPU, and where and how it computes."""

    pipe: Any
    family: ModelFamily
    device: torch.device
    dtype: torch.dtype


def where_to_compute(model: ModelConfig) -> tuple[torch.device, torch.dtype]:
    """The device and the precision that `model` asks for. ConfigError if they are not available."""
    device = choose_device(model)
    dtype = choose_dtype(model, device)
    if model.quantize != "none":
        check_quantize(model.quantize, device)
    return device, dtype


def open_base(model: ModelConfig) -> OpenBase:
    """The base model that `model` names. Raises ConfigError for a device or precision that is not available before
    anything is loaded, and BaseModelError."""
    device, dtype = where_to_compute(model)
    pipe, family = load_named(model, dtype)
    if model.quantize != "none":
        quantize(getattr(pipe, family.denoiser), model.quantize)
    return OpenBase(pipe, family, device, dtype)
