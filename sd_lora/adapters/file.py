"""Read and write adapter files: safetensors in any of the layouts, checked on the way in, proven on the way out.

See docs/file-format.md for the metadata. Nothing here knows a model; `Adapter` joins files and models.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_bytes
from torch import Tensor

from sd_lora.adapters.keys import LAYOUTS, Key, diffusers_key, foreign, kohya_stem, split_key
from sd_lora.errors import AdapterError, nearest, some
from sd_lora.storage.atomic import write_atomically
from sd_lora.storage.safetensors_header import TensorInfo, read_header

MAX_RANK, MAX_SCALING = 4096, 10_000.0
#: metadata: the names of all modules in the file, so that one that lost some is recognised
MODULES_KEY = "sdlora.modules"
#: metadata: diffusers' own record of rank and alpha, which the file's alphas replace elsewhere
DIFFUSERS_KEY = "lora_adapter_metadata"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}

Parts = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Weights:
    """One module's LoRA: `down` (rank, in, …), `up` (out, rank, …), and the alpha that scales it by alpha / rank.

    `magnitude` (out,) makes it a DoRA: one length per output row of the weight, as in PEFT.
    """

    down: Tensor
    up: Tensor
    alpha: float
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int:
        return self.down.shape[0]


def write_adapter(
    path: Path, weights: Mapping[str, Weights], metadata: Mapping[str, str], dtype: str, layout: str = "kohya"
) -> None:
    """Write `weights` (by name in memory) and `metadata` to `path`, whole or not at all, in layout "kohya" or
    "diffusers".

    One alpha stands in a whole kohya file, the commonest one; modules with another have the difference folded into `up`
    in float32, because diffusers mis-scales a minority alpha. In a diffusers file alpha is the rank, so that nobody
    needs to be told. Before it takes its name, the file is read again and compared with `weights`.

    Raises AdapterError if a value leaves the dtype's range.
    """
    if not weights:
        raise AdapterError(f"{path} was not written: the adapter has no modules")
    if dtype not in DTYPES:
        raise AdapterError(f'adapters are not saved as "{dtype}"; {nearest(dtype, DTYPES)}')
    if layout not in LAYOUTS:
        raise AdapterError(f'there is no layout "{layout}"; {nearest(layout, LAYOUTS)}')
    family = family_of_adapter(weights, metadata)
    alpha = Counter(w.alpha for w in weights.values()).most_common(1)[0][0]
    tensors: dict[str, Tensor] = {}
    overflowing: list[str] = []
    for name, w in weights.items():
        parts = _parts(w, alpha if layout == "kohya" else float(w.rank), DTYPES[dtype])
        if not all(bool(torch.isfinite(part).all()) for part in parts.values()):
            overflowing.append(name)
        if layout == "kohya":
            tensors |= _in_kohya(kohya_stem(name, family), parts, alpha)
        else:
            tensors |= _in_diffusers(name, parts)
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


def read_adapter(path: str | Path) -> tuple[dict[str, Weights], dict[str, str]]:
    """Weights by name in memory, float32, and the metadata, from any layout that `split_key` knows.

    Raises AdapterError for anything but a whole, finite adapter; all that the header tells is checked before a tensor
    is read.
    """
    path = Path(path)
    header, metadata = read_header(path)
    parts = _modules(path, header, metadata)
    alphas = _diffusers_alphas(path, metadata)
    weights, problems = {}, []
    try:
        with safe_open(path, "pt") as file:
            for name, keys in parts.items():
                tensors = {role: file.get_tensor(key).float() for role, key in keys.items()}
                if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
                    problems.append(f"{name} holds values that are not finite numbers")
                    continue
                weights[name] = w = _weights(tensors, alphas(name, tensors["down"].shape[0]))
                if not 0 < w.alpha / w.rank <= MAX_SCALING:
                    problems.append(f"{name} has alpha {w.alpha:g} for rank {w.rank}")
    except (OSError, SafetensorError, KeyError) as error:
        raise AdapterError(f"{path} is not a whole safetensors file: {error}") from error
    if problems:
        raise AdapterError(f"{path} is damaged: {some(problems, 3)}")
    return weights, metadata


def layout_of(header: Mapping[str, TensorInfo]) -> str:
    """The layout a file's keys are in: "kohya", "kohya-sgm" (original block names), "diffusers" or "diffusers-old"."""
    layouts = {split_key(key).layout for key in header}
    return "kohya-sgm" if "kohya-sgm" in layouts else layouts.pop()


def family_of_adapter(weights: Mapping[str, Weights], metadata: Mapping[str, str]) -> str:
    """The family an adapter is for, "sd" or "sdxl": by what its metadata says, else by the width of its attention."""
    if metadata.get("sdlora.family") in ("sd", "sdxl"):
        return metadata["sdlora.family"]
    marks = metadata.get("ss_base_model_version", "") + metadata.get("modelspec.architecture", "")
    if "sdxl" in marks or "stable-diffusion-xl" in marks or any(name.startswith("text_encoder_2.") for name in weights):
        return "sdxl"
    return "sdxl" if any(n.endswith(".attn2.to_k") and w.down.shape[1] == 2048 for n, w in weights.items()) else "sd"


def check_written(path: Path, weights: Mapping[str, Weights], dtype: str) -> None:
    """AdapterError unless the file at `path` has exactly the modules of `weights`, and changes a base as they do, but
    for the rounding of `dtype`."""
    read, _ = read_adapter(path)
    if lost := sorted(set(weights) ^ set(read)):
        raise AdapterError(f"{len(lost)} of {len(weights)} modules did not reach the file ({some(lost, 2)})")
    error = sum(_squared_difference(read[name], w) for name, w in weights.items()) ** 0.5
    whole = sum(_squared_difference(w, None) for w in weights.values()) ** 0.5
    if error > whole * {"float32": 1e-5, "float16": 0.1, "bfloat16": 0.1}[dtype]:
        little = error > whole / 2  # most of it vanished
        raise AdapterError(
            f"what was written as {dtype} differs from the adapter by {error / (whole or error):.0%} of its change; "
            "its values are too small for that type, save as float32 (in training: output.dtype=float32)"
            + (", but the adapter has learnt almost nothing: raise optimizer.learning_rate" if little else "")
        )


# ---- reading


def _modules(path: Path, header: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> Parts:
    """Keys by module and role, sorted by name; AdapterError for keys that are not understood, and for parts that make
    no whole."""
    keys: dict[str, Key] = {}
    unknown = []
    for key in sorted(header):
        try:
            keys[key] = split_key(key)
        except AdapterError:
            unknown.append(key)
    if unknown:
        what = next((f"it holds {kind}" for kind in map(foreign, unknown) if kind), "convert it to kohya keys")
        shown = some([key[:100] for key in unknown], 2)
        raise AdapterError(
            f"{path} has {len(unknown)} of {len(header)} keys in no layout that sd_lora reads ({shown}); {what}"
        )
    layouts = {key.layout.removesuffix("-old") for key in keys.values() if key.name.startswith("unet.")}
    layouts |= {key.layout.split("-")[0] for key in keys.values()} - {layout.split("-")[0] for layout in layouts}
    if len(layouts) > 1:
        raise AdapterError(
            f"{path} mixes keys of the layouts {', '.join(sorted(layouts))}; no program would load all of it"
        )
    parts: Parts = {}
    twice = []
    for key, meant in keys.items():
        if meant.role in parts.setdefault(meant.name, {}):
            twice.append(meant.name)
        parts[meant.name][meant.role] = key
    if twice:
        raise AdapterError(f"{path} names {len(twice)} modules twice, in two spellings ({some(twice, 2)})")
    problems = [problem for name, part in parts.items() for problem in _problems(name, part, header)]
    gone = sorted(set(metadata.get(MODULES_KEY, "").split()) - set(parts))
    if gone:
        problems.append(f"{len(gone)} of the modules it was saved with are gone ({some(gone, 2)})")
    if problems:
        raise AdapterError(f"{path} is damaged: {some(problems, 3)}")
    return parts


def _problems(name: str, part: Mapping[str, str], header: Mapping[str, TensorInfo]) -> Iterator[str]:
    missing = {"down", "up"} - set(part)
    if missing:
        yield f"{name} has no {' and no '.join(sorted(missing))}"
        return
    infos = {role: header[key] for role, key in part.items()}
    odd = {info.dtype for info in infos.values() if not info.dtype.startswith(("F", "BF"))}
    if odd:
        yield f"{name} holds values of type {', '.join(sorted(odd))}"
    down, up = infos["down"].shape, infos["up"].shape
    layered = len(down) in (2, 4) and len(up) == len(down) and 0 not in down + up
    if not layered or up[1] != down[0] or any(side != 1 for side in up[2:]):
        yield f"{name} has shapes {down} and {up}, which make no product"
    elif down[0] > MAX_RANK:
        yield f"{name} has rank {down[0]}, more than {MAX_RANK}"
    elif "alpha" in infos and infos["alpha"].shape not in ((), (1,)):
        yield f"{name} has an alpha of {prod(infos['alpha'].shape)} values"
    elif "magnitude" in infos:
        shape = infos["magnitude"].shape
        if prod(shape) != up[0]:
            yield f"{name} has a magnitude of shape {shape} for {up[0]} outputs"
        elif len(shape) > 1 and up[0] not in shape[:2]:
            yield f"{name} has a magnitude of shape {shape}"
        elif len(shape) > 1 and part["magnitude"].endswith("dora_scale") and shape[0] != up[0]:
            yield f"{name} is a DoRA with a magnitude per input column, another definition than PEFT's per output row"


def _weights(tensors: Mapping[str, Tensor], alpha: float) -> Weights:
    """No alpha, and alpha 0, mean alpha = rank."""
    own = float(tensors["alpha"]) if "alpha" in tensors else alpha
    magnitude = tensors["magnitude"].flatten() if "magnitude" in tensors else None
    return Weights(tensors["down"], tensors["up"], own or float(tensors["down"].shape[0]), magnitude)


def _diffusers_alphas(path: Path, metadata: Mapping[str, str]) -> Callable[[str, int], float]:
    """Module and rank → the alpha that diffusers' own record in the metadata gives it, 0 if there is none."""
    if DIFFUSERS_KEY not in metadata:
        return lambda _, __: 0.0
    try:
        record = json.loads(metadata[DIFFUSERS_KEY])
        patterns = {key: dict(value) for key, value in record.items() if key.endswith(".alpha_pattern") and value}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise AdapterError(f"{path} has a damaged record of its alphas ({DIFFUSERS_KEY}): {error}") from error

    def alpha(name: str, rank: int) -> float:
        component, _, module = name.partition(".")
        found = record.get(f"{component}.lora_alpha") or 0.0
        for pattern, value in patterns.get(f"{component}.alpha_pattern", {}).items():
            if re.search(rf"(?:^|\.){re.escape(pattern)}$", module):
                found = value
                break
        if not isinstance(found, int | float) or isinstance(found, bool):
            raise AdapterError(f"{path} has a damaged record of its alphas ({DIFFUSERS_KEY}): {found!r:.40}")
        return float(found) * (rank**0.5 if record.get(f"{component}.use_rslora") else 1.0)

    return alpha


# ---- writing


def _parts(w: Weights, alpha: float, kind: torch.dtype) -> dict[str, Tensor]:
    """`w` as tensors of type `kind` that mean the same with `alpha`; scales are folded into `up` in float32."""
    down, up = w.down.detach().float().cpu(), w.up.detach().float().cpu()
    if w.alpha != alpha:
        up = up * (w.alpha / alpha)
    parts = {"down": down, "up": up}
    if w.magnitude is not None:
        parts["magnitude"] = w.magnitude.detach().float().cpu().flatten()
    # Copies: safetensors refuses modules that share a tensor.
    return {role: part.to(kind, copy=True).contiguous() for role, part in parts.items()}


def _in_kohya(stem: str, parts: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    keys = {f"{stem}.lora_down.weight": parts["down"], f"{stem}.lora_up.weight": parts["up"]}
    keys[f"{stem}.alpha"] = torch.tensor(alpha, dtype=torch.float32)
    if "magnitude" in parts:
        keys[f"{stem}.dora_scale"] = parts["magnitude"].view(-1, *[1] * (parts["down"].ndim - 1)).contiguous()
    return keys


def _in_diffusers(name: str, parts: dict[str, Tensor]) -> dict[str, Tensor]:
    if "magnitude" in parts and parts["down"].ndim == 4:  # PEFT has it in the shape of a conv's output
        parts["magnitude"] = parts["magnitude"].view(1, -1, 1, 1)
    return {diffusers_key(name, role): part for role, part in parts.items()}


def _with_hashes(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """The file's content with the hashes of its body that other programs look adapters up by."""
    body = _sha256(_body(save_bytes(tensors)))
    own = {**metadata, "sshs_model_hash": body, "modelspec.hash_sha256": f"0x{body}"}
    # kohya's older hash covers 64 kB of the file itself; the eight characters it takes up in the header are blank then.
    draft = save_bytes(tensors, metadata={**own, "sshs_legacy_hash": " " * 8})
    return save_bytes(tensors, metadata={**own, "sshs_legacy_hash": _sha256(draft[0x100000:0x110000])[:8]})


def _squared_difference(first: Weights, second: Weights | None) -> float:
    """‖ΔW₁ − ΔW₂‖² (or ‖ΔW₁‖²) from the small Gram matrices of the factors side by side: no full ΔW is made."""
    scaled = [(first, first.alpha / first.rank)] + ([(second, -second.alpha / second.rank)] if second else [])
    down = torch.cat([w.down.detach().flatten(1).double().cpu() for w, _ in scaled])
    up = torch.cat([w.up.detach().flatten(1).double().cpu() * scale for w, scale in scaled], dim=1)
    return max(0.0, float(((down @ down.T) * (up.T @ up)).sum()))


def _body(content: bytes) -> bytes:
    return content[8 + struct.unpack("<Q", content[:8])[0] :]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
