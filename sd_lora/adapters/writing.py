"""Write adapter files: safetensors in either layout, checked before they take their name (docs/file-format.md)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save as save_bytes
from torch import Tensor

from sd_lora.adapters.file import read_adapter
from sd_lora.adapters.keys import DIFFUSERS_KEY, LAYOUTS, MODULES_KEY, kohya_stem
from sd_lora.errors import AdapterError, nearest, some
from sd_lora.lora.weights import Weights
from sd_lora.models.kinds import family_of_adapter
from sd_lora.storage.atomic import write_atomically

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def write_adapter(
    path: Path, weights: Mapping[str, Weights], metadata: Mapping[str, str], dtype: str, layout: str = "kohya"
) -> None:
    """Write `weights` (by name in memory) and `metadata` to `path`, completely or not at all, in layout "kohya" or
    "diffusers".

    All modules of a kohya file have one alpha, the commonest; where a module has another, the difference is folded into
    a tensor in float32, because diffusers mis-scales a minority alpha. In a diffusers file alpha is the rank, so that
    none has to be recorded. Before the file takes its name, it is read again and compared with `weights`.

    Raises AdapterError if a value leaves the dtype's range.
    """
    if not weights:
        raise AdapterError(f"{path} was not written: the adapter has no modules")
    if odd := next((w.row for w in weights.values() if not w.row.is_trained), None):
        raise AdapterError(f"{odd.title} can be read but not written; make plain LoRA of it with sd-lora resize")
    if dtype not in DTYPES:
        raise AdapterError(f'adapters are not saved as "{dtype}"; {nearest(dtype, DTYPES)}')
    if layout not in LAYOUTS:
        raise AdapterError(f'there is no layout "{layout}"; {nearest(layout, LAYOUTS)}')
    family = family_of_adapter({name: w.shape for name, w in weights.items()}, metadata).name
    alpha = Counter(w.alpha for w in weights.values()).most_common(1)[0][0]
    tensors: dict[str, Tensor] = {}
    overflowing: list[str] = []
    for name, w in weights.items():
        parts = _parts(w, alpha if layout == "kohya" else float(w.rank), DTYPES[dtype], layout)
        if not all(bool(torch.isfinite(part).all()) for part in parts.values()):
            overflowing.append(name)
        stem = kohya_stem(name, family) if layout == "kohya" else name
        tensors |= {f"{stem}.{w.row.keys[layout][role]}": part for role, part in parts.items()}
        if layout == "kohya":
            tensors[f"{stem}.alpha"] = torch.tensor(alpha, dtype=torch.float32)
    if overflowing:
        raise AdapterError(
            f"{len(overflowing)} of {len(weights)} modules hold values that {dtype} cannot ({some(overflowing, 2)}); "
            "save as float32, or train at a lower learning rate"
        )
    kept = {key: value for key, value in metadata.items() if key != DIFFUSERS_KEY}
    if layout == "diffusers":  # its alpha is the rank now
        kept = {key: value for key, value in kept.items() if not key.startswith("ss_network_")}
    content = _with_hashes(tensors, {**kept, "sdlora.family": family, MODULES_KEY: " ".join(weights)})
    write_atomically(path, content, lambda partial: check_written(partial, weights, dtype))


def check_written(path: Path, weights: Mapping[str, Weights], dtype: str) -> None:
    """AdapterError unless the file at `path` has exactly the modules of `weights`, and changes a base as they do, up to
    the rounding of `dtype`."""
    read, _ = read_adapter(path)
    if lost := sorted(set(weights) ^ set(read)):
        raise AdapterError(f"{len(lost)} of {len(weights)} modules are not in the file ({some(lost, 2)})")
    error = sum(read[name].squared_difference(w) for name, w in weights.items()) ** 0.5
    norm = sum(w.squared_norm for w in weights.values()) ** 0.5
    if error > norm * {"float32": 1e-5, "float16": 0.1, "bfloat16": 0.1}[dtype]:
        vanished = error > norm / 2
        raise AdapterError(
            f"what was written as {dtype} differs from the adapter by {error / (norm or error):.0%} of its change; "
            "its values are too small for that type; save as float32 (in training: output.dtype=float32)"
            + (", but the adapter has learnt almost nothing: raise optimizer.learning_rate" if vanished else "")
        )


def _parts(w: Weights, alpha: float, kind: torch.dtype, layout: str) -> dict[str, Tensor]:
    """`w` as tensors of type `kind` in `layout` that mean the same with `alpha`; another scale is folded into one of
    them in float32."""
    parts = {role: tensor.detach().float().cpu() for role, tensor in w.tensors.items()}
    if w.alpha != alpha and w.row.is_scaled(w.shapes):
        parts = w.row.scaled(parts, w.alpha / alpha)
    # Copies: safetensors refuses modules that share a tensor.
    return {role: part.to(kind, copy=True).contiguous() for role, part in w.row.in_file(parts, layout).items()}


def _with_hashes(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """The file's content, with the hashes by which other programs look adapters up."""
    content = save_bytes(tensors)
    body = hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
    metadata = {**metadata, "sshs_model_hash": body, "modelspec.hash_sha256": f"0x{body}"}
    # kohya's older hash covers 64 kB of the file itself, in which its own eight characters count as blanks.
    draft = save_bytes(tensors, metadata={**metadata, "sshs_legacy_hash": " " * 8})
    legacy = hashlib.sha256(draft[0x100000:0x110000]).hexdigest()[:8]
    return save_bytes(tensors, metadata={**metadata, "sshs_legacy_hash": legacy})
