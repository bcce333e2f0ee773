"""`merge_adapters`: one adapter that does what several do together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sd_lora.adapters.file import read_adapter
from sd_lora.adapters.writing import write_adapter
from sd_lora.errors import AdapterError, ConfigError, some
from sd_lora.lora.factors import concatenated, triplets_of
from sd_lora.lora.weights import Weights
from sd_lora.models.kinds import kind_of
from sd_lora.tools.output import Watch, check_output, dtype_for, marks_for, with_facts, with_history

METHODS = ("concat", "svd")
#: a sum below this share of its terms is rounding
_NOTHING = 1e-6
Read = tuple[Mapping[str, Weights], Mapping[str, str]]


def merge_adapters(
    adapters: Sequence[str | Path],
    out: str | Path,
    *,
    weights: Sequence[float] = (),
    method: str = "concat",
    rank: int = 0,
    dtype: str = "",
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Path:
    """Write the sum of `adapters`, each times its weight (1 if none are given), to `out`.

    ``concat`` puts ranks side by side and is exact; ``svd`` cuts each module to `rank`. Modules that only some adapters
    have are kept. `dtype` is by default the finest of theirs. `watch` is called with (modules done, modules in
    all). Raises AdapterError if the adapters are for bases of different kinds, have modules of different shapes, are
    DoRAs, whose changes do not add up, or cancel each other.
    """
    factors = _checked(adapters, weights, method, rank)
    path = check_output(out, adapters, overwrite=overwrite)
    read = [read_adapter(adapter) for adapter in adapters]
    _check_alike(adapters, read)
    marked = marks_for(*read[0], str(adapters[0]))
    merged: dict[str, Weights] = {}
    result, terms = 0.0, 0.0
    names = list(dict.fromkeys(name for modules, _ in read for name in modules))
    for done, name in enumerate(names, 1):
        summands = [(each[name], factor) for (each, _), factor in zip(read, factors, strict=True) if name in each]
        shape = max((w.shape for w, _ in summands), key=len)  # a kernel of ones may be left out
        summands = [(replace(w, tensors=w.row.fitted(w.tensors, shape)), factor) for w, factor in summands]
        one = concatenated([w for w, _ in summands], [factor for _, factor in summands])
        result += one.squared_norm
        terms += sum(factor**2 * w.squared_norm for w, factor in summands)
        merged[name] = one if method == "concat" else triplets_of(one).weights(rank, one.alpha)
        if watch is not None:
            watch(done, len(names))
    if result <= _NOTHING**2 * terms and any(w.squared_norm for modules, _ in read for w in modules.values()):
        raise AdapterError(f"nothing is left of {some([str(a) for a in adapters], 2)} at the weights {factors}")
    settings = {"weights": list(factors), "method": method, **({"rank": rank} if method == "svd" else {})}
    metadata = with_facts(_joined([marked, *(metadata for _, metadata in read[1:])]), merged, path)
    noted = with_history(metadata, "merge", adapters, settings)
    write_adapter(path, merged, noted, dtype_for(adapters, dtype))
    return path


def _checked(adapters: Sequence[str | Path], weights: Sequence[float], method: str, rank: int) -> list[float]:
    if not adapters:
        raise ConfigError("nothing to merge; name at least one adapter")
    if method not in METHODS:
        raise ConfigError(f'there is no method "{method}"; known are {", ".join(METHODS)}')
    if (method == "svd") != (rank > 0) or rank < 0:
        raise ConfigError(f"--rank is {rank}; --method svd needs a rank above 0, and concat takes none")
    factors = [float(weight) for weight in weights] or [1.0] * len(adapters)
    if len(factors) != len(adapters):
        raise ConfigError(f"{len(factors)} weights were given for {len(adapters)} adapters; give one each")
    if not all(math.isfinite(factor) for factor in factors):
        raise ConfigError(f"a weight must be a finite number, but {factors} were given")
    return factors


def _check_alike(adapters: Sequence[str | Path], read: Sequence[Read]) -> None:
    first, rest = Path(adapters[0]).name, list(zip(adapters, read, strict=True))[1:]
    for adapter, (modules, _) in zip(adapters, read, strict=True):
        if odd := next((w.row for w in modules.values() if not w.row.can_add), None):
            raise AdapterError(
                f"{adapter} holds {odd.title}, whose changes do not add up; only LoRAs can be merged: make one of it "
                "first with sd-lora resize"
            )
    kinds = [kind_of({name: w.shape for name, w in modules.items()}, metadata) for modules, metadata in read]
    for (adapter, _), kind in zip(rest, kinds[1:], strict=True):
        if kind and kinds[0] and kind != kinds[0]:
            raise AdapterError(
                f"{adapter} is for a base of kind {kind} and {first} for {kinds[0]}; merge adapters of one kind"
            )
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    for adapter, (modules, _) in zip(adapters, read, strict=True):
        for name, w in modules.items():
            shapes.setdefault(name, (Path(adapter).name, w.shape))
        odd = [name for name, w in modules.items() if not w.row.fits(w.shapes, shapes[name][1])]
        if odd:
            other = shapes[odd[0]][0]
            raise AdapterError(f"{adapter} and {other} have {len(odd)} modules of different shapes ({some(odd, 2)})")


def _joined(metadatas: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The first adapter's metadata with the trigger phrases of all and the first trigger word there is; without its
    recommended strength if there are several adapters."""
    joined = dict(metadatas[0])
    if len(metadatas) > 1:
        joined.pop("sdlora.strength", None)
    joined["sdlora.trigger"] = next((word for m in metadatas if (word := m.get("sdlora.trigger", ""))), "")
    phrases = list(dict.fromkeys(p for m in metadatas if (p := m.get("modelspec.trigger_phrase", ""))))
    if phrases:
        joined["modelspec.trigger_phrase"] = ", ".join(phrases)
    return joined
