"""Open base models: find them, recognise their family, load them where and as a config asks."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sd_lora.config.conflicts import place_conflicts
from sd_lora.config.schema import ModelConfig
from sd_lora.errors import BaseModelError
from sd_lora.models import sources
from sd_lora.models.checkpoint.file import fill_component, load_single_file, with_prediction_type
from sd_lora.models.checkpoint.kind import detect
from sd_lora.models.checkpoint.scaled import check_plain
from sd_lora.models.checkpoint.vae import check_vae, load_vae
from sd_lora.models.device import choose_device, choose_dtype
from sd_lora.models.families import FAMILIES, ModelFamily, family_of_checkpoint, family_of_class
from sd_lora.models.quantize import check_quantize, quantize
from sd_lora.models.quiet import quiet_libraries
from sd_lora.models.sources import BaseSource, base_place, weight_files

quiet_libraries()  # diffusers and transformers are imported by what is called here

#: held while a base model is loaded: libraries replace methods of all modules meanwhile, also in other threads
_LOADING = threading.Lock()
#: gives the component of that name its weights
Fill = Callable[[str], None]


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
    asked: Any = {"revision": revision, "config": str(config), "vae": str(vae), "prediction_type": prediction_type}
    return load_named(ModelConfig(base=str(base), **asked), dtype)


def load_named(model: ModelConfig, dtype: torch.dtype = torch.float32) -> tuple[Any, ModelFamily]:
    """As `load_base`, for the base that a config names."""
    with _LOADING:
        pipe, family, _ = _load(model, dtype)
    return pipe, family


def _load(model: ModelConfig, dtype: torch.dtype, *, later: bool = False) -> tuple[Any, ModelFamily, Fill | None]:
    """The pipeline, its family, and what gives a component its weights again; `later`: those of the denoiser too."""
    base, predicts = model.base, model.prediction_type
    place = base_place(base)
    if place != "hub":
        find_base(base)  # that it does not exist matters more than settings that do not suit it
    if problems := place_conflicts(base, model.revision, model.config, place):
        raise BaseModelError("; ".join(problems))
    if model.vae:
        check_vae(model.vae)
    source = find_base(base, model.revision)
    family = family_of_source(source)
    if source.is_file:
        empty = (family.denoiser,) if later else ()
        pipe = load_single_file(source.path, dtype, config=model.config, prediction_type=predicts, later=empty)
        pipe = family.adopt(pipe, str(source.path))
    else:
        for file in weight_files(source.path):
            check_plain(file)
        pipe = (family.load_unfilled if later else family.load)(source.path, dtype)
        if predicts != "auto":
            pipe.scheduler = with_prediction_type(pipe.scheduler, predicts)
    if model.vae:
        pipe.register_modules(vae=load_vae(model.vae, pipe.vae, dtype))

    def fill(component: str) -> None:
        if component == "vae" and model.vae:
            pipe.vae.load_state_dict(load_vae(model.vae, pipe.vae, dtype).state_dict(), assign=True)
        elif source.is_file:
            fill_component(source.path, component, getattr(pipe, component), dtype)
        else:
            family.fill(pipe, component, source.path, dtype)

    return pipe, family, fill if source.is_file or family.refills else None


@dataclass(frozen=True)
class OpenBase:
    """A base model as a config asks for it: its frozen pipeline, still on the CPU, and where and how it computes."""

    pipe: Any
    family: ModelFamily
    device: torch.device
    dtype: torch.dtype
    _fill: Fill | None = None
    _quantize: str = "none"

    def fill(self, component: str) -> None:
        """Give a component its weights, on the CPU, unless it has them. Raises BaseModelError."""
        model = getattr(self.pipe, component)
        if self._fill is None or not is_empty(model):
            return
        self._fill(component)
        if component == self.family.denoiser and self._quantize != "none":
            quantize(model, self._quantize, self.family.unquantized)

    def empty(self, component: str) -> None:
        """Free the memory of a component until it is filled again, where that is possible."""
        if self._fill is not None:
            getattr(self.pipe, component).to_empty(device="meta")


def where_to_compute(model: ModelConfig) -> tuple[torch.device, torch.dtype]:
    """The device and the precision that `model` asks for. ConfigError if they are not available."""
    device = choose_device(model)
    dtype = choose_dtype(model, device)
    if model.quantize != "none":
        check_quantize(model.quantize, device)
    return device, dtype


def open_base(model: ModelConfig, *, later: bool = False) -> OpenBase:
    """The base model that `model` names; with `later` its denoiser, most of its memory, is a form without weights until
    it is filled. Raises ConfigError for a device or precision that is not available before anything is loaded, and
    BaseModelError."""
    device, dtype = where_to_compute(model)
    with _LOADING:
        pipe, family, fill = _load(model, dtype, later=later)
    denoiser = getattr(pipe, family.denoiser)
    if model.quantize != "none" and not is_empty(denoiser):
        quantize(denoiser, model.quantize, family.unquantized)
    return OpenBase(pipe, family, device, dtype, fill, model.quantize)


def is_empty(model: torch.nn.Module) -> bool:
    """Whether `model` is a form without weights."""
    return any(parameter.is_meta for parameter in model.parameters())
