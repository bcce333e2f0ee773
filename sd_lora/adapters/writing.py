"""Write adapter files: safetensors in either layout, checked before they take their name (docs/file-format.md)."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save as save_bytes
from torch import Tensor

from sd_lora.adapters.file import read_adapter
from sd_lora.adapters.keys import DIFFUSERS_KEY, LAYOUTS, MODULES_KEY, kohya_stem
from sd_lora.adapters.source import EmbeddingsIgnored
from sd_lora.errors import AdapterError, SdLoraWarning, nearest, some
from sd_lora.lora.weights import Weights
from sd_lora.models.kinds import family_of_adapter
from sd_lora.storage.atomic import write_atomically

#: the share of its change that a module may lose by rounding, and from which a user is told
_LIMITS = {"float32": 1e-5, "float16": 0.1, "bfloat16": 0.1}
_WORTH_SAYING = 0.01
#: float16 keeps 3e-4 of values in its normal range; what loses more has values below that
_BALANCED_FROM = 1e-3
#: the mean size of changes of single weights, below which an adapter has learnt next to nothing
_UNTRAINED = 1e-9
#: a change below this share of the whole adapter's is nothing
_NOTHING = 1e-4
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


class PrecisionLost(SdLoraWarning):
    """Part of an adapter's change was lost in a narrow type."""


def write_adapter(
    path: Path,
    weights: Mapping[str, Weights],
    metadata: Mapping[str, str],
    dtype: str,
    layout: str = "",
    embeddings: Mapping[str, Tensor] | None = None,
) -> None:
    """Write `weights` (by name in memory) and `metadata` to `path`, completely or not at all, in a `layout` of
    their family, by default its usual one; and `embeddings` (by key), as they are.

    All modules of a kohya file have one alpha, the commonest; where a module has another, the difference is folded into
    a tensor in float32, because diffusers mis-scales a minority alpha. In a diffusers file alpha is the rank, so that
    none has to be recorded. Before the file takes its name, it is read again and compared with `weights`.

    Raises AdapterError if a value leaves the dtype's range.
    """
    if not weights:
        raise AdapterError(f"{path} was not written: the adapter has no modules")
    if odd := next((w.row for w in weights.values() if not w.row.is_trained), None):
        remedy = "no LoRA can hold them" if odd.name == "norm" else "make plain LoRA of it with sd-lora resize"
        raise AdapterError(f"{odd.title} can be read but not written; {remedy}")
    if dtype not in DTYPES:
        raise AdapterError(f'adapters are not saved as "{dtype}"; {nearest(dtype, DTYPES)}')
    family = family_of_adapter({name: w.shape for name, w in weights.items()}, metadata)
    layout = layout or family.layouts[0]
    if layout not in LAYOUTS:
        raise AdapterError(f'there is no layout "{layout}"; {nearest(layout, LAYOUTS)}')
    if layout not in family.layouts:
        raise AdapterError(
            f'adapters for {family.title} are not written in layout "{layout}", only in {", ".join(family.layouts)}'
        )
    alphas = Counter(w.alpha for w in weights.values() if w.row.is_scaled(w.shapes))
    alpha = alphas.most_common(1)[0][0] if alphas else 1.0
    tensors: dict[str, Tensor] = {}
    overflowing: list[str] = []
    for name, w in weights.items():
        parts = _parts(w, alpha if layout == "kohya" else float(w.rank), DTYPES[dtype], layout)
        if not all(bool(torch.isfinite(part).all()) for part in parts.values()):
            overflowing.append(name)
        stem = kohya_stem(name, family.name) if layout == "kohya" else name
        tensors |= {f"{stem}.{w.row.keys[layout][role]}": part for role, part in parts.items()}
        if layout == "kohya":
            tensors[f"{stem}.alpha"] = torch.tensor(alpha, dtype=torch.float32)
    if overflowing:
        raise AdapterError(
            f"{len(overflowing)} of {len(weights)} modules hold values that {dtype} cannot ({some(overflowing, 2)}); "
            "save as float32, or train at a lower learning rate"
        )
    tensors |= {key: tensor.contiguous() for key, tensor in (embeddings or {}).items()}
    kept = {key: value for key, value in metadata.items() if key != DIFFUSERS_KEY}
    if layout == "diffusers":  # its alpha is the rank now
        kept = {key: value for key, value in kept.items() if not key.startswith("ss_network_")}
    content = _with_hashes(tensors, {**kept, "sdlora.family": family.name, MODULES_KEY: " ".join(weights)})
    write_atomically(path, content, lambda partial: check_written(partial, weights, dtype))


def check_written(path: Path, weights: Mapping[str, Weights], dtype: str) -> None:
    """AdapterError unless the file at `path` has exactly the modules of `weights`, and changes a base as they do, up to
    the rounding of `dtype`, module by module. Warns of what is lost from 1 % on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmbeddingsIgnored)
        read, _ = read_adapter(path)
    if lost := sorted(set(weights) ^ set(read)):
        raise AdapterError(f"{len(lost)} of {len(weights)} modules are not in the file ({some(lost, 2)})")
    if torn := [name for name, w in weights.items() if w.row.needs_base and read[name].shapes != w.shapes]:
        raise AdapterError(f"{len(torn)} of {len(weights)} modules are read differently ({some(torn, 2)})")
    errors = {name: read[name].squared_difference(w) ** 0.5 for name, w in weights.items()}
    norms = {name: w.squared_norm**0.5 for name, w in weights.items()}
    error, norm = (sum(value**2 for value in values.values()) ** 0.5 for values in (errors, norms))
    if error > norm * _LIMITS[dtype]:
        vanished = norm < _UNTRAINED * math.sqrt(sum(math.prod(w.shape) for w in weights.values()))
        raise AdapterError(
            f"what was written as {dtype} differs from the adapter by {error / (norm or error):.0%} of its change; "
            "its values are too small for that type; save as float32 (in training: output.dtype=float32)"
            + (", but the adapter has learnt almost nothing: raise optimizer.learning_rate" if vanished else "")
        )
    # a module that adds next to nothing to the whole may be rounded away
    shares = {name: errors[name] / norms[name] for name in weights if errors[name] > _NOTHING * norm}
    worst = max(shares, key=shares.__getitem__, default="")
    if worst and shares[worst] > _LIMITS[dtype]:
        count = sum(share > _LIMITS[dtype] for share in shares.values())
        raise AdapterError(
            f"{count} of {len(weights)} modules lose more than {_LIMITS[dtype]:.0%} of their change as {dtype} ("
            f"{worst} loses {shares[worst]:.0%}); save as float32 (in training: output.dtype=float32)"
        )
    if worst and shares[worst] > _WORTH_SAYING:
        count = sum(share > _WORTH_SAYING for share in shares.values())
        sentence = f"{count} of {len(weights)} modules lose more than {_WORTH_SAYING:.0%} of their change as {dtype}"
        warnings.warn(f"{sentence} ({worst} loses {shares[worst]:.1%}); save as float32", PrecisionLost, stacklevel=4)


def _parts(w: Weights, alpha: float, kind: torch.dtype, layout: str) -> dict[str, Tensor]:
    """`w` as tensors of type `kind` in `layout` that mean the same with `alpha`; another scale is folded into one of
    them in float32. Values too small for the type are balanced first."""
    exact = {role: tensor.detach().float().cpu() for role, tensor in w.tensors.items()}
    if w.alpha != alpha and w.row.is_scaled(w.shapes):
        exact = w.row.scaled(exact, w.alpha / alpha)
    rounded = _rounded(exact, kind)
    if kind is torch.float16 and _lost(w, exact, rounded) > _BALANCED_FROM:
        balanced = w.row.balanced(exact)
        again = _rounded(balanced, kind)
        if _lost(w, balanced, again) < _lost(w, exact, rounded):
            rounded = again
    return {role: part.contiguous() for role, part in w.row.in_file(rounded, layout).items()}


def _rounded(tensors: Mapping[str, Tensor], kind: torch.dtype) -> dict[str, Tensor]:
    """Copies of type `kind`: safetensors refuses modules that share a tensor."""
    return {role: tensor.to(kind, copy=True) for role, tensor in tensors.items()}


def _lost(w: Weights, exact: Mapping[str, Tensor], rounded: Mapping[str, Tensor]) -> float:
    """The share of the change that is lost by rounding."""
    before = Weights(w.variant, dict(exact), w.alpha)
    after = Weights(w.variant, {role: tensor.float() for role, tensor in rounded.items()}, w.alpha)
    norm = before.squared_norm
    return (before.squared_difference(after) / norm) ** 0.5 if norm else 0.0


def _with_hashes(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """The file's content, with the hashes by which other programs look adapters up."""
    content = save_bytes(tensors)
    body = hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
    metadata = {**metadata, "sshs_model_hash": body, "modelspec.hash_sha256": f"0x{body}"}
    # kohya's older hash covers 64 kB of the file itself, in which its own eight characters count as blanks.
    draft = save_bytes(tensors, metadata={**metadata, "sshs_legacy_hash": " " * 8})
    legacy = hashlib.sha256(draft[0x100000:0x110000]).hexdigest()[:8]
    return save_bytes(tensors, metadata={**metadata, "sshs_legacy_hash": legacy})
