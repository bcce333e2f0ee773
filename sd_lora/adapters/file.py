"""Read adapters: safetensors in any spelling of the keys; an error names all that is wrong with a file.

See docs/file-format.md for the metadata. Nothing here knows a model; `Adapter` joins files and models.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from sd_lora.adapters.alphas import Resolver, alphas_of
from sd_lora.adapters.foreign import not_read
from sd_lora.adapters.keys import MODULES_KEY, Key, magnitudes_are_rows, understood
from sd_lora.adapters.source import EmbeddingsIgnored, Source, open_source
from sd_lora.errors import AdapterError, some
from sd_lora.lora.variants import variant_of
from sd_lora.lora.weights import Weights
from sd_lora.models.families import FAMILIES
from sd_lora.models.kinds import family_of_adapter
from sd_lora.storage.safetensors_header import TensorInfo

MAX_SCALING = 10_000.0
#: metadata: kohya's hash of all that follows the header
HASH_KEY = "sshs_model_hash"

Parts = dict[str, dict[str, str]]


def read_adapter(path: str | Path, framework: str = "torch") -> tuple[dict[str, Weights], dict[str, str]]:
    """Weights by name in memory, float32, and the metadata, of a file or of a folder that diffusers or PEFT wrote.

    With `framework` "numpy" the weights are arrays and torch is not loaded. Raises AdapterError for anything but a
    complete adapter of finite values; what the header shows is checked before a tensor is read.
    """
    source = open_source(path)
    if source.embeddings:
        words = some(sorted(source.embeddings), 3)
        warnings.warn(
            f"{path} holds {len(source.embeddings)} embeddings ({words}), which are not loaded with the adapter",
            EmbeddingsIgnored,
            stacklevel=3,
        )
    parts, alpha_of = _modules(source), alphas_of(source)
    weights, problems, dead = dict[str, Weights](), list[str](), list[str]()
    try:
        for name, tensors in _tensors(source, parts, framework):
            if not all(bool((abs(tensor) < math.inf).all()) for tensor in tensors.values()):
                problems.append(f"{name} holds values that are NaN or infinite")
                continue
            weights[name] = w = _weights(name, tensors, parts[name], alpha_of)
            if not 0 < w.scaling <= MAX_SCALING:
                problems.append(f"{name} has alpha {w.alpha:g} for rank {w.rank}")
            dead += [name] * any(
                not bool((w.tensors[role] != 0).any()) for role in w.row.never_zero if role in w.tensors
            )
    except (OSError, SafetensorError, KeyError) as error:
        raise AdapterError(f"{path} is not a complete safetensors file: {error}") from error
    if dead:
        problems.append(f"{len(dead)} of {len(parts)} modules hold only zeros ({some(dead, 2)})")
    if has_changed(source) and "sdlora.version" in source.metadata:
        problems.append(f"its values are not those it was saved with, by its own hash ({HASH_KEY})")
    if problems:
        raise AdapterError(f"{path} is damaged: {some(problems, 3)}")
    return weights, dict(source.metadata)


def has_changed(source: Source) -> bool:
    """Whether the values of a file are others than those whose hash its metadata has. OSError."""
    recorded = source.metadata.get(HASH_KEY, "")
    if len(source.files) != 1 or len(recorded) != 64:
        return False
    with source.files[0][0].open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        return hashlib.file_digest(file, "sha256").hexdigest() != recorded.lower()


def _tensors(source: Source, parts: Parts, framework: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each module with its tensors by role, float32."""
    if framework == "numpy":
        arrays = source.arrays()
        for name, keys in parts.items():
            yield name, {role: arrays[key] for role, key in keys.items()}
        return
    with source.tensors() as tensor:
        for name, keys in parts.items():
            yield name, {role: tensor(key).float() for role, key in keys.items()}


def _modules(source: Source) -> Parts:
    """Keys by module and role, sorted by name; AdapterError for keys that are not read and for incomplete modules."""
    path, header = source.path, source.header
    keys, unknown = understood(sorted(header))
    if unknown:
        raise AdapterError(not_read(str(path), unknown, len(header), source.metadata))
    denoisers = {family.denoiser for family in FAMILIES.values()}  # text encoders are spelled the same in both
    layouts = {key.layout.removesuffix("-old") for key in keys.values() if key.name.split(".")[0] in denoisers}
    layouts |= {key.layout.split("-")[0] for key in keys.values()} - {layout.split("-")[0] for layout in layouts}
    if len(layouts - {"other"}) > 1:
        raise AdapterError(
            f"{path} mixes keys of the layouts {', '.join(sorted(layouts))}; no program would load all of it"
        )
    parts: Parts = {}
    twice = []
    for text, key in keys.items():
        if key.role in parts.setdefault(key.name, {}):
            twice.append(f"{parts[key.name][key.role]} and {text}")
        parts[key.name][key.role] = text
    if twice:
        raise AdapterError(f"{path} names {len(twice)} modules twice, in two spellings ({some(twice, 2)})")
    problems = [problem for name, part in parts.items() for problem in _problems(name, part, header)]
    missing = sorted(set(source.metadata.get(MODULES_KEY, "").split()) - set(parts))
    if missing:
        problems.append(f"{len(missing)} of the modules it was saved with are missing ({some(missing, 2)})")
    if problems:
        raise AdapterError(f"{path} is damaged: {some(problems, 3)}")
    _check_named(source, keys)
    return parts


def _check_named(source: Source, keys: Mapping[str, Key]) -> None:
    """AdapterError for modules of a text encoder of which nothing says which one it is, where the base has two."""
    unnamed = {key.name for key in keys.values() if not key.is_named}
    shapes = shapes_of(source.header, keys)
    encoders = family_of_adapter(shapes, source.metadata).text_encoders if unnamed else ()
    lost = sorted(name for name in unnamed if name.partition(".")[0] in encoders)
    if lost and len(encoders) > 1:
        raise AdapterError(
            f"{source.path} has {len(lost)} modules of a text encoder and does not say of which ({some(lost, 2)}); put "
            f"{' or '.join(f'{name}.' for name in encoders)} before their keys"
        )


def shapes_of(header: Mapping[str, TensorInfo], keys: Mapping[str, Key]) -> dict[str, tuple[int, ...]]:
    """The shape of the weight that each complete module of a file changes, by its header alone."""
    parts: dict[str, dict[str, tuple[int, ...]]] = {}
    for text, key in keys.items():
        if key.role != "alpha":
            parts.setdefault(key.name, {})[key.role] = header[text].shape
    shapes = {}
    for name, of_roles in parts.items():
        row = variant_of(of_roles)
        if row is not None and not row.missing(of_roles) and not row.problem(of_roles, "kohya"):
            shapes[name] = row.shape(of_roles)
    return shapes


def _problems(name: str, part: Mapping[str, str], header: Mapping[str, TensorInfo]) -> Iterator[str]:
    roles = set(part) - {"alpha"}
    row = variant_of(roles or {"down", "up"})
    if row is None:
        yield f"{name} has parts that do not belong together ({', '.join(sorted(roles))})"
        return
    if missing := row.missing(roles):
        yield f"{name} has no {' and no '.join(missing)}"
        return
    infos = {role: header[key] for role, key in part.items()}
    # a number that stands alone may be of any type: diffusers' own converter writes alphas as integers
    odd = {
        info.dtype
        for info in infos.values()
        if not info.dtype.startswith(("F", "BF")) and (prod(info.shape) != 1 or info.dtype == "BOOL")
    }
    if odd:
        yield f"{name} holds values of type {', '.join(sorted(odd))}"
    if problem := row.problem({role: infos[role].shape for role in roles}, _layout_of_magnitudes(part)):
        yield f"{name} {problem}"
    elif "alpha" in infos and prod(infos["alpha"].shape) != 1:
        yield f"{name} has an alpha of {prod(infos['alpha'].shape)} values"


def _layout_of_magnitudes(part: Mapping[str, str]) -> str:
    return "diffusers" if magnitudes_are_rows(part.values()) else "kohya"


def _weights(name: str, tensors: dict[str, Any], part: Mapping[str, str], alpha_of: Resolver) -> Weights:
    given = tensors.pop("alpha", None)
    alpha = None if given is None else float(given.item())
    row = variant_of(tensors)
    assert row is not None
    tensors = row.in_memory(tensors, _layout_of_magnitudes(part), alpha)
    shapes = {role: tuple(tensor.shape) for role, tensor in tensors.items()}
    rank = row.rank(shapes)
    return Weights(row.name, tensors, alpha_of(name, rank, alpha, row.is_scaled(shapes)))
