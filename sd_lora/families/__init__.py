"""Model families: every import of diffusers and transformers lives here (and in the embedded base's own scripts)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from sd_lora.errors import BaseModelError
from sd_lora.families.base import Conditioning, ModelFamily
from sd_lora.families.sd import SdFamily
from sd_lora.families.sdxl import SdxlFamily
from sd_lora.tinybase import tiny_base_path

FAMILIES: tuple[ModelFamily, ...] = (SdFamily(), SdxlFamily())

__all__ = ["FAMILIES", "Conditioning", "ModelFamily", "base_folder", "family_of", "load_base"]


def base_folder(base: str | Path) -> Path:
    """The pipeline folder that `base` means: ``tiny`` is the embedded one. Raises BaseModelError if it is none."""
    folder = tiny_base_path() if str(base) == "tiny" else Path(base).expanduser().resolve()
    if not (folder / "model_index.json").is_file():
        found = "has no model_index.json" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
        raise BaseModelError(
            f'base model "{base}" {found}; name a diffusers pipeline folder, or "tiny" for the embedded base'
        )
    return folder


def family_of(folder: Path) -> ModelFamily:
    """The family of a pipeline folder, by the class its `model_index.json` names."""
    try:
        kind = json.loads((folder / "model_index.json").read_text("utf-8")).get("_class_name", "")
    except (OSError, ValueError, AttributeError) as error:
        raise BaseModelError(f"base model {folder} has an unreadable model_index.json: {error}") from error
    for family in FAMILIES:
        if kind in family.pipeline_classes:
            return family
    known = ", ".join(name for family in FAMILIES for name in family.pipeline_classes)
    raise BaseModelError(f"base model {folder} is a {kind or 'nameless pipeline'}; supported are {known}")


def find_base(base, revision=""):
    return base_folder(base)


family_of_source = family_of


def load_base(base: str | Path = "tiny", dtype: torch.dtype = torch.float32, **_) -> tuple[Any, ModelFamily]:
    """The frozen pipeline of `base` (``tiny`` or a diffusers folder), on the CPU, and its family."""
    folder = base_folder(base)
    family = family_of(folder)
    return family.load(folder, dtype), family
