"""Read and write adapter files: safetensors in kohya's keys, checked on the way in, written atomically.

See docs/file-format.md for the metadata. Nothing here knows a model; `Adapter` joins files and models.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor

from sd_lora.errors import AdapterError, SdLoraError, nearest, some
from sd_lora.layouts import kohya_stem, split_key

MAX_HEADER, MAX_TENSORS, MAX_SIZE = 4 * 2**20, 20_000, 4 * 2**30
#: metadata: the names of all modules in the file, so that one that lost some is recognised
MODULES_KEY = "sdlora.modules"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Weights:
    """One module's LoRA: `down` (rank, in, …), `up` (out, rank, …), and the alpha that scales it by alpha / rank."""

    down: Tensor
    up: Tensor
    alpha: float
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int:
        return self.down.shape[0]


def write_adapter(path: Path, weights: Mapping[str, Weights], metadata: Mapping[str, str], dtype: str) -> None:
    """Write `weights` (by name in memory) and `metadata` to `path`, whole or not at all.

    One alpha stands in the whole file, the commonest one; modules with another have the difference folded into `up` in
    float32, because diffusers mis-scales a minority alpha. Raises AdapterError if a value leaves the dtype's range.
    """
    if not weights:
        raise AdapterError(f"{path} was not written: the adapter has no modules")
    if dtype not in DTYPES:
        raise AdapterError(f'adapters are not saved as "{dtype}"; {nearest(dtype, DTYPES)}')
    alpha = Counter(w.alpha for w in weights.values()).most_common(1)[0][0]
    tensors: dict[str, Tensor] = {}
    overflowing: list[str] = []
    for name, w in weights.items():
        stem, kind = kohya_stem(name), DTYPES[dtype]
        down = w.down.detach().float().cpu().to(kind)
        up = (w.up.detach().float().cpu() * (w.alpha / alpha)).to(kind)
        if not (torch.isfinite(down).all() and torch.isfinite(up).all()):
            overflowing.append(name)
        tensors[f"{stem}.lora_down.weight"], tensors[f"{stem}.lora_up.weight"] = down.contiguous(), up.contiguous()
        tensors[f"{stem}.alpha"] = torch.tensor(alpha, dtype=torch.float32)
    if overflowing:
        raise AdapterError(
            f"{len(overflowing)} of {len(weights)} modules hold values that {dtype} cannot ({some(overflowing, 2)}); "
            "save as float32, or train at a lower learning rate"
        )
    body = _sha256(_body(save_bytes(tensors)))
    own = {MODULES_KEY: " ".join(weights), "sshs_model_hash": body, "modelspec.hash_sha256": f"0x{body}"}
    # kohya's older hash covers 64 kB of the file itself; the eight characters it takes up in the header are blank then.
    draft = save_bytes(tensors, metadata={**metadata, **own, "sshs_legacy_hash": " " * 8})
    own["sshs_legacy_hash"] = _sha256(draft[0x100000:0x110000])[:8]
    write_atomically(path, save_bytes(tensors, metadata={**metadata, **own}))


def read_adapter(path: str | Path) -> tuple[dict[str, Weights], dict[str, str]]:
    """Weights by name in memory, and the metadata. Raises AdapterError for anything but a whole, finite adapter."""
    path = Path(path)
    _check_header(path)
    try:
        content = path.read_bytes()
        tensors = load_bytes(content)
    except (OSError, SafetensorError, KeyError) as error:
        raise AdapterError(f"{path} is not a whole safetensors file: {error}") from error
    metadata = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]]).get("__metadata__") or {}
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in sorted(tensors.items()):
        try:
            name, role = split_key(key)
        except AdapterError as error:
            raise AdapterError(f"{path}: {error}") from None
        parts.setdefault(name, {})[role] = tensor
    problems = list(_problems(parts))
    gone = sorted(set(metadata.get(MODULES_KEY, "").split()) - set(parts))
    if gone:
        problems.append(f"{len(gone)} of the modules it was saved with are gone ({some(gone, 2)})")
    if problems:
        raise AdapterError(f"{path} is damaged: {some(problems, 3)}")
    weights = {}
    for name, part in parts.items():
        down, up = part["down"].float(), part["up"].float()
        # No alpha, and alpha 0, mean alpha = rank.
        alpha = float(part["alpha"]) if "alpha" in part else 0.0
        alpha = alpha or float(down.shape[0])
        weights[name] = Weights(down, up, alpha)
    return weights, metadata


def _check_header(path: Path) -> None:
    """Refuse what is no safetensors file, and headers or sizes beyond the caps, before anything is parsed."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            header = file.read(min(length, MAX_HEADER)) if 2 <= length <= size else b""
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror}; name an adapter file") from error
    if not header.lstrip().startswith(b"{"):
        raise AdapterError(f"{path} is no safetensors file; pickled and other formats are never loaded")
    if length > MAX_HEADER:
        raise AdapterError(
            f"{path} has a header of {length / 2**20:.0f} MB; an adapter has at most {MAX_HEADER // 2**20}"
        )
    if size > MAX_SIZE:
        raise AdapterError(f"{path} is {size / 2**30:.1f} GB; an adapter has at most {MAX_SIZE // 2**30} GB")
    try:
        entries: Any = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{path} has a damaged safetensors header: {error}") from error
    if not isinstance(entries, dict) or len(entries) > MAX_TENSORS:
        raise AdapterError(f"{path} declares more than {MAX_TENSORS} tensors; it is no adapter")
    if not set(entries) - {"__metadata__"}:
        raise AdapterError(f"{path} holds no tensors; an adapter would change nothing")


def _problems(parts: Mapping[str, Mapping[str, Tensor]]) -> Iterator[str]:
    for name, part in parts.items():
        missing = {"down", "up"} - set(part)
        if missing:
            yield f"{name} has no {' and no '.join(sorted(missing))}"
            continue
        down, up = part["down"], part["up"]
        if not all(tensor.is_floating_point() for tensor in part.values()):
            yield f"{name} holds values of type {down.dtype}"
            continue
        layered = down.ndim in (2, 4) and up.ndim == down.ndim and 0 not in down.shape
        if not layered or up.shape[1] != down.shape[0] or any(side != 1 for side in up.shape[2:]):
            yield f"{name} has shapes {tuple(down.shape)} and {tuple(up.shape)}, which make no product"
        elif not all(bool(torch.isfinite(t.float()).all()) for t in part.values()):
            yield f"{name} holds values that are not finite numbers"
        elif "alpha" in part and part["alpha"].numel() != 1:
            yield f"{name} has an alpha of {part['alpha'].numel()} values"


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, fsync, then rename: `path` is whole or as it was. SdLoraError if it cannot be."""
    partial = path.with_name(f".{path.name[:200]}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise SdLoraError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _body(content: bytes) -> bytes:
    return content[8 + struct.unpack("<Q", content[:8])[0] :]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
