"""Weights that are stored as float8 with a scale beside each, as ComfyUI and others write them: weight × scale.

``X.weight`` has its scale in ``X.scale_weight`` (older) or ``X.weight_scale``. What else such files have beside it is
for computing in float8, and says nothing of the weights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from sd_lora.errors import BaseModelError
from sd_lora.storage.safetensors_header import BASE_MODEL, TensorInfo, read_header

if TYPE_CHECKING:
    from torch import Tensor

_FLOAT8 = {"F8_E4M3", "F8_E5M2"}
_SCALES = {"F64", "F32", "F16", "BF16"}
#: that a file is of this kind, and scales of what goes into a layer
_MARKS = re.compile(r"(?:.*\.)?scaled_fp8|(.*)\.(?:scale_input|input_scale)")
#: how a layer is stored, as JSON in bytes
_RECORD = ".comfy_quant"
_FORMATS = {"float8_e4m3fn", "float8_e5m2"}


def scales_of(tensors: Mapping[str, TensorInfo]) -> dict[str, list[str]]:
    """The keys of the scales of each weight, by its key; more than one is an error of the file."""
    found: dict[str, list[str]] = {}
    for key in tensors:
        layer, _, last = key.rpartition(".")
        weight = f"{layer}.weight" if last == "scale_weight" else key.removesuffix("_scale")
        if weight != key and weight in tensors and weight.endswith("weight"):
            found.setdefault(weight, []).append(key)
    return found


def is_mark(key: str, tensors: Mapping[str, TensorInfo]) -> bool:
    """Whether `key` is one that scaled files have besides weights and scales."""
    mark = _MARKS.fullmatch(key)
    layer = mark[1] if mark else key.removesuffix(_RECORD) if key.endswith(_RECORD) else ""
    return (mark is not None and layer is None) or f"{layer}.weight" in tensors


def problems_of(tensors: Mapping[str, TensorInfo], read: Callable[[str], Tensor]) -> list[str]:
    """Why weights cannot be multiplied by their scales, a clause each; `read` gives a tensor by its key."""
    problems = []
    for weight, keys in scales_of(tensors).items():
        info, scale = tensors[weight], tensors[keys[0]]
        rows = (info.shape[:1], (*info.shape[:1], *(1,) * (len(info.shape) - 1)))
        if len(keys) > 1:
            problems.append(f"{weight} has two scales ({', '.join(keys)})")
        elif info.dtype not in _FLOAT8:
            problems.append(f"{weight} has a scale but is of type {info.dtype}")
        elif scale.dtype not in _SCALES:
            problems.append(f"{keys[0]} is of type {scale.dtype}")
        elif prod(scale.shape) != 1 and scale.shape not in rows:
            problems.append(f"{keys[0]} is {list(scale.shape)}, neither one number nor one a row of {weight}")
        elif not bool(((value := read(keys[0]).float()).abs() < float("inf")).all() and (value != 0).all()):
            problems.append(f"{keys[0]} is 0, NaN or infinite")
    for key in (key for key in tensors if key.endswith(_RECORD)):
        record = bytes(read(key).flatten().tolist()) if tensors[key].dtype == "U8" else b""
        if not _is_plain(record):
            problems.append(f"{key} is of a format that is not read ({record[:60].decode('utf-8', 'replace')})")
    return problems


def check_plain(file: Path) -> None:
    """BaseModelError for weights of a pipeline folder that are not safetensors, such as a git-LFS pointer, or that have
    scales beside them, which diffusers leaves out without an error."""
    tensors, _ = read_header(file, BASE_MODEL)
    if found := scales_of(tensors):
        raise BaseModelError(
            f"base model {file} has scaled float8 weights ({next(iter(found))}), which are read from checkpoint files "
            "only; name one, or a folder in float16"
        )


def scaled(weight: Tensor, scale: Tensor) -> Tensor:
    """`weight` times `scale`, which is one number or one a row, in float32."""
    value = scale.float()
    return weight.float() * (value if value.numel() == 1 else value.reshape(-1, *(1,) * (weight.ndim - 1)))


def _is_plain(record: bytes) -> bool:
    """Whether a layer's record says float8 with nothing done to the values but scaling."""
    try:
        table = json.loads(record)
    except ValueError:
        return False
    known = isinstance(table, dict) and set(table) <= {"format", "full_precision_matrix_mult"}
    return known and table.get("format") in _FORMATS
