"""Read adapter files: safetensors in any of the layouts, all that can be wrong with them named.

See docs/file-format.md for the metadata. Nothing here knows a model; `Adapter` joins files and models.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sd_lora.adapters.arrays import read_arrays
from sd_lora.adapters.keys import not_read, split_key, understood
from sd_lora.errors import AdapterError, some
from sd_lora.lora.variants import variant_of
from sd_lora.lora.weights import Weights
from sd_lora.models.families import FAMILIES
from sd_lora.storage.safetensors_header import TensorInfo, read_header

MAX_SCALING = 10_000.0
#: metadata: the names of all modules in the file, so that one that lost some is recognised
MODULES_KEY = "sdlora.modules"
#: metadata: diffusers' own record of rank and alpha, which the file's alphas replace elsewhere
DIFFUSERS_KEY = "lora_adapter_metadata"

Parts = dict[str, dict[str, str]]


def read_adapter(path: str | Path, framework: str = "torch") -> tuple[dict[str, Weights], dict[str, str]]:
    """Weights by name in memory, float32, and the metadata, from any layout that `split_key` knows.

    With `framework` "numpy" the weights are arrays and torch is not loaded. Raises AdapterError for anything but a
    whole, finite adapter; all that the header tells is checked before a tensor is read.
    """
    path = Path(path)
    header, metadata = read_header(path)
    parts = _modules(path, header, metadata)
    alphas = _diffusers_alphas(path, metadata)
    weights, problems = {}, []
    try:
        for name, tensors in _tensors(path, parts, framework):
            if not all(bool((abs(tensor) < math.inf).all()) for tensor in tensors.values()):
                problems.append(f"{name} holds values that are not finite numbers")
                continue
            weights[name] = w = _weights(name, tensors, alphas)
            if not 0 < w.scaling <= MAX_SCALING:
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


def _tensors(path: Path, parts: Parts, framework: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each module with its tensors by role, float32."""
    if framework == "numpy":
        arrays = read_arrays(path)
        for name, keys in parts.items():
            yield name, {role: arrays[key] for role, key in keys.items()}
        return
    with safe_open(path, "pt") as file:
        for name, keys in parts.items():
            yield name, {role: file.get_tensor(key).float() for role, key in keys.items()}


def _modules(path: Path, header: Mapping[str, TensorInfo], metadata: Mapping[str, str]) -> Parts:
    """Keys by module and role, sorted by name; AdapterError for keys that are not understood, and for parts that make
    no whole."""
    keys, unknown = understood(sorted(header))
    if unknown:
        raise AdapterError(not_read(str(path), unknown, len(header)))
    denoisers = {family.denoiser for family in FAMILIES.values()}  # text encoders are spelled the same in both
    layouts = {key.layout.removesuffix("-old") for key in keys.values() if key.name.split(".")[0] in denoisers}
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
    layout = min(layouts).split("-")[0]
    problems = [problem for name, part in parts.items() for problem in _problems(name, part, header, layout)]
    gone = sorted(set(metadata.get(MODULES_KEY, "").split()) - set(parts))
    if gone:
        problems.append(f"{len(gone)} of the modules it was saved with are gone ({some(gone, 2)})")
    if problems:
        raise AdapterError(f"{path} is damaged: {some(problems, 3)}")
    return parts


def _problems(name: str, part: Mapping[str, str], header: Mapping[str, TensorInfo], layout: str) -> Iterator[str]:
    roles = set(part) - {"alpha"}
    row = variant_of(roles)
    if row is None:
        yield f"{name} has parts that do not go together ({', '.join(sorted(roles))})"
        return
    if missing := row.missing(roles):
        yield f"{name} has no {' and no '.join(missing)}"
        return
    infos = {role: header[key] for role, key in part.items()}
    odd = {info.dtype for info in infos.values() if not info.dtype.startswith(("F", "BF"))}
    if odd:
        yield f"{name} holds values of type {', '.join(sorted(odd))}"
    if problem := row.problem({role: infos[role].shape for role in roles}, layout):
        yield f"{name} {problem}"
    elif "alpha" in infos and infos["alpha"].shape not in ((), (1,)):
        yield f"{name} has an alpha of {prod(infos['alpha'].shape)} values"


def _weights(name: str, tensors: dict[str, Any], alphas: Callable[[str, int], float]) -> Weights:
    """No alpha, and alpha 0, mean alpha = rank; where the file has none, `alphas` may."""
    alpha = tensors.pop("alpha", None)
    row = variant_of(tensors)
    assert row is not None
    tensors = row.in_memory(tensors)
    rank = row.rank({role: tuple(tensor.shape) for role, tensor in tensors.items()})
    recorded = alphas(name, rank)
    return Weights(row.name, tensors, (recorded if alpha is None else float(alpha.item())) or float(rank))


def _diffusers_alphas(path: Path, metadata: Mapping[str, str]) -> Callable[[str, int], float]:
    """Module and rank → the alpha that diffusers' own record in the metadata gives it, 0 if there is none."""
    if DIFFUSERS_KEY not in metadata:
        return lambda _, __: 0.0
    try:
        record = json.loads(metadata[DIFFUSERS_KEY], parse_int=float)  # no integer is too large then
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
