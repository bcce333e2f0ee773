"""The header of a safetensors file, read and checked without touching a tensor."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from sd_lora.errors import AdapterError, printable, some

MAX_HEADER, MAX_TENSORS, MAX_SIZE = 4 * 2**20, 20_000, 4 * 2**30
#: safetensors' names of types and their bytes
SIZES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True)
class TensorInfo:
    """A tensor as the header declares it: safetensors' name of its type (``F16``) and its shape."""

    dtype: str
    shape: tuple[int, ...]


def read_header(path: str | Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """What an adapter file declares: its tensors by key, and its metadata.

    Raises AdapterError for what is no safetensors file, for sizes beyond the caps, and for a header that does not
    describe exactly the bytes that follow it.
    """
    path = Path(path)
    header, body = _header_bytes(path)
    try:
        entries: Any = json.loads(header, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{path} has a damaged safetensors header: {error}") from error
    if not isinstance(entries, dict):
        raise AdapterError(f"{path} has a damaged safetensors header: it is no table of tensors")
    metadata = entries.pop("__metadata__", None) or {}
    if len(entries) > MAX_TENSORS:
        raise AdapterError(f"{path} declares {len(entries)} tensors; an adapter has at most {MAX_TENSORS}")
    if not entries:
        raise AdapterError(f"{path} holds no tensors; an adapter would change nothing")
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise AdapterError(f"{path} has a damaged safetensors header: its metadata is not text")
    tensors, spans = {}, []
    for key, entry in entries.items():
        try:
            tensors[key], span = _entry(entry)
        except (KeyError, TypeError, ValueError) as error:
            shown = printable(key[:80])
            raise AdapterError(f'{path} has a damaged safetensors header at key "{shown}": {error}') from error
        spans.append((*span, key))
    _check_spans(path, sorted(spans), body)
    return tensors, metadata


def _header_bytes(path: Path) -> tuple[bytes, int]:
    """The header, and the number of bytes behind it."""
    try:
        if not path.is_file():
            what = "it is a folder" if path.is_dir() else "it is no file" if path.exists() else "it does not exist"
            raise AdapterError(f"{path} cannot be read: {what}; name an adapter file")
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            header = file.read(min(length, MAX_HEADER)) if 2 <= length <= size - 8 else b""
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror}; name an adapter file") from error
    if not header.startswith(b"{"):
        raise AdapterError(f"{path} is no safetensors file; pickled and other formats are never loaded")
    if length > MAX_HEADER:
        raise AdapterError(
            f"{path} has a header of {length / 2**20:.0f} MB; an adapter has at most {MAX_HEADER // 2**20}"
        )
    if size > MAX_SIZE:
        raise AdapterError(f"{path} is {size / 2**30:.1f} GB; an adapter has at most {MAX_SIZE // 2**30} GB")
    return header, size - 8 - length


def _entry(entry: Mapping[str, Any]) -> tuple[TensorInfo, tuple[int, int]]:
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in SIZES:
        raise ValueError(f"unknown type {dtype!r:.40}")
    numbers = [*shape, begin, end]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("sizes and places must be whole numbers")
    if end - begin != prod(shape) * SIZES[dtype]:
        raise ValueError(f"{end - begin} bytes hold no {dtype} tensor of shape {shape}")
    return TensorInfo(dtype, tuple(shape)), (begin, end)


def _check_spans(path: Path, spans: list[tuple[int, int, str]], body: int) -> None:
    """Tensors lie one behind the other and fill the file; anything else hides or shares bytes."""
    place, wrong = 0, []
    for begin, end, key in spans:
        if begin != place:
            wrong.append(key)
        place = end
    if wrong:
        raise AdapterError(
            f"{path} has a damaged safetensors header: {len(wrong)} tensors overlap or leave gaps ({some(wrong, 2)})"
        )
    if place != body:
        raise AdapterError(f"{path} is not whole: its tensors take {place} bytes, but {body} follow its header")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"a key occurs twice ({printable(twice[:80])})")
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no value")
