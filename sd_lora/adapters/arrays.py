"""Tensors of a safetensors file as numpy's float32 arrays, also of the types that numpy lacks; torch is not loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import deserialize

_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1", "BOOL": "?",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All tensors by key; OSError or SafetensorError if the file cannot be read."""
    arrays = {}
    for key, view in deserialize(path.read_bytes()):
        if view["dtype"] in _TYPES:
            raw = np.frombuffer(view["data"], _TYPES[view["dtype"]]).reshape(view["shape"])
            with np.errstate(over="ignore"):  # what is out of range becomes infinite, which readers refuse
                arrays[key] = _widened(raw, view["dtype"]).astype(np.float32)
    return arrays


def _widened(raw: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "BF16":  # the upper half of a float32
        return (raw.astype(np.uint32) << 16).view(np.float32)
    if dtype == "F8_E5M2":  # the upper half of a float16
        return (raw.astype(np.uint16) << 8).view(np.float16)
    if dtype == "F8_E4M3":
        sign, exponent, fraction = raw >> 7, (raw >> 3) & 15, raw & 7
        small = exponent == 0
        value = np.ldexp(np.where(small, fraction, fraction + 8.0), np.where(small, 1, exponent).astype(int) - 10)
        return np.where((raw & 127) == 127, np.nan, np.where(sign == 1, -value, value))
    return raw
