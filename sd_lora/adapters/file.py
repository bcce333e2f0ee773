"""Read adapter files: safetensors in any of the layouts; an error names all that is wrong with a file.

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
from sd_lora.adapters.keys import DIFFUSERS_KEY, MODULES_KEY, not_read, understood
from sd_lora.errors import AdapterError, some
from sd_lora.lora.variants import variant_of
from sd_lora.lora.weights import Weights
from sd_lora.models.families import FAMILIES
from sd_lora.storage.safetensors_header import TensorInfo, read_header

MAX_SCALING = 10_000.0

Parts = dict[str, dict[str, str]]


def read_adapter(path: str | Path, framework: str = "torch") -> tuple[dict[str, Weights], dict[str, str]]:
    """Weights by name in memory, float32, and the metadata, from any layout that `split_key` knows.

    With `framework` "numpy" the weights are arrays and torch is not loaded. Raises AdapterError for anything but a
    complete adapter of finite values; what the header shows is checked before a tensor is read.
    """
    path = Path(path)
    header, metadata = read_header(path)
    parts = _modules(path, header, metadata)
    layout = layout_of(header).split("-")[0]
    alphas = _diffusers_alphas(path, metadata)
    weights, problems = {}, []
    try:
        for name, tensors in _tensors(path, parts, framework):
            if not all(bool((abs(tensor) < math.inf).all()) for tensor in tensors.values()):
                problems.append(f"{name} holds values that are NaN or infinite")
                continue
            weights[name] = w = _weights(name, tensors, layout, alphas)
            if not 0 < w.scaling <= MAX_SCALING:
                problems.append(f"{name} has alpha {w.alpha:g} for rank {w.rank}")
    except (OSError, SafetensorError, KeyError) as error:
        raise AdapterError(f"{path} is not a complete safetensors file: {error}") from error
    if problems:
        raise AdapterError(f"{path} is damaged: {some(problems, 3)}")
    return weights, metadata


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
    """Keys by module and role, sorted by name; AdapterError for keys that are not read and for incomplete modules."""
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
    for text, key in keys.items():
        if key.role in parts.setdefault(key.name, {}):
            twice.append(key.name)
        parts[key.name][key.role] = text
    if twice:
        raise AdapterError(f"{path} names {len(twice)} modules twice, in two spellings ({some(twice, 2)})")
    layout = min(layouts).split("-")[0]
    problems = [problem for name, part in parts.items() for problem in _problems(name, part, header, layout)]
    missing = sorted(set(metadata.get(MODULES_KEY, "").split()) - set(parts))
    if missing:
        problems.append(f"{len(missing)} of the modules it was saved with are missing ({some(missing, 2)})")
    if problems:
        raise AdapterError(f"{path} is damaged: {some(problems, 3)}")
    return parts


def _problems(name: str, part: Mapping[str, str], header: Mapping[str, TensorInfo], layout: str) -> Iterator[str]:
    roles = set(part) - {"alpha"}
    row = variant_of(roles)
    if row is None:
        yield f"{name} has parts that do not belong together ({', '.join(sorted(roles))})"
        return
    if missing := row.missing(roles):
        yield f"{name} has no {' and no '.join(missing)}"
        return
    infos = {role: header[key] for role, key in part.items()}
    # a number that stands alone may be of any type: diffusers' own converter writes alphas as integers
    odd = {info.dtype for info in infos.values() if not info.dtype.startswith(("F", "BF")) and prod(info.shape) != 1}
    if odd:
        yield f"{name} holds values of type {', '.join(sorted(odd))}"
    if problem := row.problem({role: infos[role].shape for role in roles}, layout):
        yield f"{name} {problem}"
    elif "alpha" in infos and prod(infos["alpha"].shape) != 1:
        yield f"{name} has an alpha of {prod(infos['alpha'].shape)} values"


def _weights(name: str, tensors: dict[str, Any], layout: str, alphas: Callable[[str, int], float]) -> Weights:
    """The module `name`. An alpha that is missing, in the file and in `alphas`, or 0 is the rank."""
    given = tensors.pop("alpha", None)
    alpha = None if given is None else float(given.item())
    row = variant_of(tensors)
    assert row is not None
    tensors = row.in_memory(tensors, layout, alpha)
    shapes = {role: tuple(tensor.shape) for role, tensor in tensors.items()}
    rank = row.rank(shapes)
    if not row.is_scaled(shapes):
        return Weights(row.name, tensors, float(rank))
    return Weights(row.name, tensors, (alphas(name, rank) if alpha is None else alpha) or float(rank))


def _diffusers_alphas(path: Path, metadata: Mapping[str, str]) -> Callable[[str, int], float]:
    """Module and rank → the alpha in diffusers' record in the metadata, 0 if there is none."""
    if DIFFUSERS_KEY not in metadata:
        return lambda _, __: 0.0
    try:
        record = json.loads(metadata[DIFFUSERS_KEY], parse_int=float)  # else an integer may be too large
        patterns = {key: dict(value) for key, value in record.items() if key.endswith(".alpha_pattern") and value}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise AdapterError(f"{path} has a damaged record of its alphas ({DIFFUSERS_KEY}): {error}") from error

    def alpha(name: str, rank: int) -> float:
        component, _, module = name.partition(".")
        recorded = record.get(f"{component}.lora_alpha") or 0.0
        for pattern, value in patterns.get(f"{component}.alpha_pattern", {}).items():
            if re.search(rf"(?:^|\.){re.escape(pattern)}$", module):
                recorded = value
                break
        if not isinstance(recorded, int | float) or isinstance(recorded, bool):
            raise AdapterError(f"{path} has a damaged record of its alphas ({DIFFUSERS_KEY}): {recorded!r:.40}")
        return float(recorded) * (rank**0.5 if record.get(f"{component}.use_rslora") else 1.0)

    return alpha
