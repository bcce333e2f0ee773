"""Pipeline folders in diffusers' layout: opened as a whole, or with components that get their weights later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers.utils import logging as transformers_logging

from sd_lora.errors import BaseModelError
from sd_lora.models.checkpoint.filling import fill_as_named
from sd_lora.models.sources import variant_of, weight_files


def open_pipeline(folder: Path, dtype: torch.dtype, **given: Any) -> Any:
    """The pipeline in `folder`, with components that are `given`. Raises BaseModelError."""
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    with _reasons(folder):
        return DiffusionPipeline.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, variant=variant_of(folder), **given
        )


def empty_model(folder: Path, kind: str, dtype: torch.dtype) -> Any:
    """The model of class `kind` in `folder` without storage for its weights. Raises BaseModelError."""
    model = getattr(diffusers, kind)
    with torch.device("meta"), _reasons(folder.parent):
        empty: Any = model.from_config(model.load_config(folder))
        return nn.Module.to(empty, dtype)  # diffusers' own warns about weights, of which there are none yet


def fill_component(model: Any, component: str, folder: Path, dtype: torch.dtype) -> None:
    """Give `model`, which has no storage, the weights of a component of the pipeline in `folder`. Raises
    BaseModelError."""
    files = [file for file in weight_files(folder) if file.parent.name == component]
    if fill_as_named(files, f"base model {folder}", model, dtype):
        return
    with _reasons(folder):  # names of older versions, which diffusers knows
        loaded = type(model).from_pretrained(
            folder, subfolder=component, torch_dtype=dtype, use_safetensors=True, local_files_only=True,
            variant=variant_of(folder),
        )  # fmt: skip
    model.load_state_dict(loaded.state_dict(), assign=True)


@contextmanager
def _reasons(folder: Path) -> Iterator[None]:
    """BaseModelError for what diffusers raises, a dozen kinds, for an incomplete folder."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise BaseModelError(f"base model {folder} cannot be loaded: {reason}") from error
