"""`fuse_adapter`: a base model with an adapter in its weights, as a diffusers folder or one checkpoint file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.fit import modules_of
from sd_lora.adapters.strengths import Strengths
from sd_lora.adapters.writing import DTYPES
from sd_lora.config.schema import ModelConfig
from sd_lora.errors import AdapterError, ConfigError, SdLoraError, nearest, some
from sd_lora.models.checkpoint.file import save_single_file
from sd_lora.models.opening import load_named
from sd_lora.storage.atomic import open_to_others
from sd_lora.tools.output import HISTORY_KEY, check_output, with_history


def fuse_adapter(
    adapter: str | Path,
    model: ModelConfig,
    out: str | Path,
    *,
    strength: Strengths = 1.0,
    dtype: str = "float16",
    overwrite: bool = False,
) -> Path:
    """Add `adapter` times `strength` to the weights of the base that `model` names, and write the result to `out`: one
    checkpoint in the original layout if that ends in ``.safetensors``, else a diffusers folder.

    The sum is computed in float32 and saved in `dtype`. Raises AdapterError, with nothing written, if the adapter does
    not fit the base.
    """
    if dtype not in DTYPES:
        raise ConfigError(f'weights are not saved as "{dtype}"; {nearest(dtype, DTYPES)}')
    is_file = Path(out).suffix == ".safetensors"
    inputs = [adapter, model.base, *([model.vae] if model.vae else [])]
    path = check_output(out, inputs, overwrite=overwrite, folder=not is_file)
    loaded = Adapter.load(adapter)
    pipe, _ = load_named(model, DTYPES[dtype])
    loaded.fuse(pipe, strength)
    _check_finite(loaded, pipe, dtype)
    vae = {"vae": Path(model.vae).name} if model.vae else {}
    history = with_history({}, "fuse", [adapter], {"strength": strength, "base": loaded.base, **vae})
    if is_file:
        save_single_file(pipe, path, DTYPES[dtype], history)
    else:
        _save_folder(pipe, path, history)
    return path


def _check_finite(adapter: Adapter, pipe: Any, dtype: str) -> None:
    modules = modules_of(pipe)
    bad = [name for name in adapter.weights if not bool(modules[name].weight.isfinite().all())]  # type: ignore[operator]
    if bad:
        raise AdapterError(
            f"{len(bad)} modules hold values that {dtype} cannot once {adapter.label} is added ({some(bad, 2)}); "
            "lower --strength, or save as float32"
        )


def _save_folder(pipe: Any, path: Path, history: Mapping[str, str]) -> None:
    """Write a diffusers folder beside `path`, then rename it: completely or not at all."""
    partial = path.with_name(f".{path.name[:200]}.{os.getpid()}.partial")
    try:
        pipe.save_pretrained(partial, safe_serialization=True)
        for config in partial.glob("text_encoder*/config.json"):
            # By default diffusers' parts load as float32 and a text encoder as its config says: make them the same.
            config.write_text(json.dumps({**json.loads(config.read_text("utf-8")), "dtype": "float32"}, indent=2))
        (partial / "sd_lora.json").write_text(history[HISTORY_KEY] + "\n", "utf-8")
        for weights in partial.rglob("*.safetensors"):
            open_to_others(weights)
        os.rename(partial, path)
    except (OSError, SafetensorError) as error:
        raise SdLoraError(f"{path} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
