"""The header of a safetensors file, checked without touching a tensor: the only place that reads one."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from sd_lora.errors import AdapterError, BaseModelError, SdLoraError, printable
from sd_lora.storage.other_formats import cut_header, other_format

#: the types of tensors that are read, by safetensors' names
_TYPES = {
    "F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """The most that a kind of file may hold, how messages name such a file, and the error they are raised as."""

    kind: str
    error: type[SdLoraError]
    prefix: str
    advice: str
    #: safetensors itself reads no more; tags of many captions make headers of several megabytes
    header: int = 100_000_000
    tensors: int = 20_000
    size: int = 2**63


ADAPTER = Limits("an adapter", AdapterError, "", "name an adapter file", size=4 * 2**30)
BASE_MODEL = Limits("a checkpoint", BaseModelError, "base model ", "download it again")
VAE = Limits("a VAE", BaseModelError, "model.vae ", "download it again")


class TensorInfo(NamedTuple):
    """A tensor as the header declares it: safetensors' name of its type (``F16``), its shape, and the byte of the file
    at which its values start."""

    dtype: str
    shape: tuple[int, ...]
    start: int = 0


def read_header(path: str | Path, limits: Limits = ADAPTER) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """What a safetensors file declares: its tensors by key, and its metadata.

    Raises the error of `limits` for other files, for sizes beyond the limits, for a header that does not describe
    exactly the bytes that follow it, and for a key that occurs twice, which safetensors accepts.
    """
    path = Path(path)
    name = f"{limits.prefix}{path}"
    header = _header_bytes(path, name, limits)
    try:
        with safe_open(path, framework="np"):
            entries: Any = json.loads(header, object_pairs_hook=_unique)
        if lists := [key for key, entry in entries.items() if isinstance(entry, list)]:  # safetensors takes them
            raise ValueError(f"the entry of a key is a list, not a table ({printable(lists[0][:80])})")
    except (OSError, SafetensorError, ValueError) as error:
        reason = printable(str(error).removeprefix("Error while deserializing header: ")[:200])
        if "fully covered" in reason or "IncompleteBuffer" in reason:
            raise limits.error(f"{name} {_wrong_end(path, header)}; download it again") from error
        raise limits.error(f"{name} has a damaged safetensors header: {reason}; {limits.advice}") from error
    metadata = entries.pop("__metadata__", None) or {}
    values = 8 + len(header)
    tensors = {
        key: TensorInfo(entry["dtype"], tuple(entry["shape"]), values + entry["data_offsets"][0])
        for key, entry in entries.items()
    }
    if len(tensors) > limits.tensors:
        raise limits.error(f"{name} declares {len(tensors):,} tensors; {limits.kind} has at most {limits.tensors:,}")
    if not tensors:
        raise limits.error(f"{name} holds no tensors; {limits.advice}")
    if unread := {info.dtype for info in tensors.values()} - _TYPES:
        raise limits.error(f"{name} holds tensors of type {', '.join(sorted(unread))}, which are not read")
    return tensors, metadata


def _header_bytes(path: Path, name: str, limits: Limits) -> bytes:
    """The text of the header; the error of `limits` if there is none, or more than they allow."""
    try:
        if not path.is_file():
            what = "it is a folder" if path.is_dir() else "it is not a file" if path.exists() else "it does not exist"
            raise limits.error(f"{name} cannot be read: {what}; {limits.advice}")
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            first = file.read(1)
            is_header = 2 <= length <= size - 8 and first == b"{"
            header = first + file.read(length - 1) if is_header and length <= limits.header else b""
        other = None if is_header else other_format(path)
    except OSError as error:
        raise limits.error(f"{name} cannot be read: {error.strerror}; {limits.advice}") from error
    if not is_header:
        if announced := cut_header(start + first, size):
            raise limits.error(
                f"{name} is cut short: its header alone announces {announced:,} bytes, and the file has {size:,}; "
                "download it again"
            )
        if other is not None:
            raise limits.error(f"{name} is not a safetensors file: it is {other.what}; {other.advice}")
        raise limits.error(f"{name} is not a safetensors file, nor in any other known format; {limits.advice}")
    most = f"{limits.kind} has at most"
    if length > limits.header:
        raise limits.error(f"{name} has a header of {length / 1e6:.0f} MB; {most} {limits.header / 1e6:.0f}")
    if (count := header.count(b'"data_offsets"')) > limits.tensors:  # before each of them takes memory
        raise limits.error(f"{name} declares {count:,} tensors; {most} {limits.tensors:,}")
    if size > limits.size:
        raise limits.error(f"{name} is {size / 2**30:.1f} GB; {most} {limits.size // 2**30} GB")
    return header


def _wrong_end(path: Path, header: bytes) -> str:
    """What is wrong with a file that does not end where its last tensor does: what it announces, and what it has."""
    size = path.stat().st_size
    try:
        entries = json.loads(header)
        ends = [entry["data_offsets"][1] for key, entry in entries.items() if key != "__metadata__"]
        announced = 8 + len(header) + max(ends, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return "does not end where its last tensor does"
    what = "is cut short" if size < announced else "has bytes after its last tensor"
    return f"{what}: it announces {announced:,} bytes and has {size:,}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"a key occurs twice ({printable(key[:80])})")
        table[key] = value
    return table
