"""`extract_adapter`: the difference of two base models as an adapter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sd_lora.adapters.fit import base_facts, base_name
from sd_lora.adapters.keys import name_of_module
from sd_lora.adapters.writing import DTYPES, write_adapter
from sd_lora.config.schema import ModelConfig
from sd_lora.errors import AdapterError, ConfigError, nearest, some
from sd_lora.lora.factors import triplets_of_matrix
from sd_lora.lora.targets import plan_targets
from sd_lora.lora.weights import Weights
from sd_lora.models.opening import ModelFamily, load_named
from sd_lora.tools.output import Watch, check_cut, check_output, with_facts, with_history
from sd_lora.version import __version__

#: a change below this share of the weight is rounding
_NOISE = 1e-6


@dataclass(frozen=True)
class Extraction:
    """The `path` of the adapter, its modules' `ranks`, the `error` ‖ΔW′ − ΔW‖ / ‖ΔW‖ of all together, and the names of
    weights that differ but were not extracted."""

    path: str
    ranks: Mapping[str, int]
    error: float
    beyond: tuple[str, ...]

    @property
    def sorts_beyond(self) -> dict[str, int]:
        """How many weights of each sort `beyond` names."""
        return dict(Counter(map(_sort, self.beyond)))


def extract_adapter(  # noqa: PLR0913
    base: ModelConfig,
    tuned: ModelConfig,
    out: str | Path,
    *,
    rank: int = 0,
    energy: float = 0.0,
    targets: Sequence[str] = ("attn", "ff", "proj", "conv"),
    dtype: str = "float16",
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Extraction:
    """Write to `out` the adapter whose ΔW is the difference of `tuned` and `base`, each module
    cut by SVD to `rank`, or to the lowest rank that keeps `energy`, a share (0..1) of the squared singular values.

    `targets` are groups or patterns as in training; modules that do not differ, or only because one model is stored in
    a coarser type, are left out. Both models are held in the precision of `model.dtype`, float32 if it is "auto".
    Raises AdapterError if nothing differs, or the models are of different kinds.
    """
    check_cut("extracting", rank, energy)
    path = check_output(out, [base.base, tuned.base], overwrite=overwrite)
    (first, family), (second, other) = _load(base), _load(tuned)
    _check_alike((base.base, first, family), (tuned.base, second, other))
    chosen = _planned(first, family, targets)
    before, after = _state(first, family), _state(second, family)
    odd = [k for k in before | after if k not in before or k not in after or before[k].shape != after[k].shape]
    if odd:
        raise AdapterError(f"{tuned.base} and {base.base} differ in {len(odd)} weights' shapes ({some(odd, 2)})")
    weights: dict[str, Weights] = {}
    lost, total = 0.0, 0.0
    for done, (name, key) in enumerate(chosen.items(), 1):
        if not _is_same(before[key], after[key]):
            parts = triplets_of_matrix(after[key].float() - before[key].float())
            kept = min(rank or parts.rank_for(energy), len(parts.values))
            weights[name] = parts.weights(kept, float(rank or 16))
            lost, total = lost + parts.lost(kept) ** 2 * parts.energy, total + parts.energy
        if watch is not None:
            watch(done, len(chosen))
    beyond = _beyond(before | _vae(first), after | _vae(second), chosen.values())
    if not weights:
        elsewhere = f", but {len(beyond)} weights elsewhere do ({some(beyond, 2)})" if beyond else ""
        raise AdapterError(f"no module that was asked for differs between {base.base} and {tuned.base}{elsewhere}")
    settings = {"tuned": base_name(second), "targets": list(targets), "rank": rank, "energy": energy}
    metadata = _metadata(first, second, family, targets)
    write_adapter(path, weights, with_history(with_facts(metadata, weights, path), "extract", [], settings), dtype)
    ranks = {name: w.rank for name, w in weights.items()}
    return Extraction(str(path), ranks, (lost / total) ** 0.5, beyond)


def _load(model: ModelConfig) -> tuple[Any, ModelFamily]:
    dtype = "float32" if model.dtype == "auto" else model.dtype
    if dtype not in DTYPES:
        raise ConfigError(f'model.dtype is "{dtype}"; {nearest(dtype, DTYPES)}')
    return load_named(model, DTYPES[dtype])


def _check_alike(one: tuple[str, Any, ModelFamily], other: tuple[str, Any, ModelFamily]) -> None:
    (base, first, family), (tuned, second, family_of_tuned) = one, other
    if family is not family_of_tuned:
        raise AdapterError(f"{tuned} is of the family {family_of_tuned.name} and {base} of {family.name}")
    predicts, predicted = family.objective(second).prediction_type, family.objective(first).prediction_type
    if predicts != predicted:
        raise AdapterError(f'{tuned} predicts "{predicts}" and {base} "{predicted}", so no adapter is their difference')


def _is_same(before: Tensor, after: Tensor) -> bool:
    """Whether two weights differ by no more than rounding: of sums in float32, or of one model's storage."""
    if before.shape != after.shape or before.dtype != after.dtype:
        return False
    if torch.equal(before, after):
        return True
    if not before.is_floating_point():
        return False
    for kind in (torch.float16, torch.bfloat16):
        coarse, rounded = before.to(kind), after.to(kind)
        if torch.equal(coarse, rounded) and any(torch.equal(coarse.to(t.dtype), t) for t in (before, after)):
            return True
    return bool((after.float() - before.float()).norm() <= _NOISE * before.float().norm())


def _beyond(before: Mapping[str, Tensor], after: Mapping[str, Tensor], chosen: Collection[str]) -> tuple[str, ...]:
    """The names of all weights outside of `chosen` that differ, or that only one of the models has."""
    others = [key for key in {**before, **after} if key not in set(chosen)]
    return tuple(k for k in others if k not in before or k not in after or not _is_same(before[k], after[k]))


def _sort(key: str) -> str:
    """What a weight outside of the adapter is, for people."""
    if key.startswith("vae."):
        return "VAE weights"
    if "norm" in key:
        return "norms"
    if key.endswith(".bias"):
        return "biases"
    return "embeddings" if "embedding" in key else "other weights"


def _components(pipe: Any, family: ModelFamily) -> dict[str, nn.Module]:
    return {each.name: getattr(pipe, each.name) for each in family.components}


def _planned(pipe: Any, family: ModelFamily, targets: Sequence[str]) -> dict[str, str]:
    """Name in memory → key in the state, of the modules that `targets` choose."""
    plan = plan_targets(_components(pipe, family), family.target_groups, targets)
    return {name_of_module(*target.name.split(".", 1)): f"{target.name}.weight" for target in plan}


def _state(pipe: Any, family: ModelFamily) -> dict[str, Tensor]:
    parts = _components(pipe, family)
    return {f"{part}.{key}": tensor for part, module in parts.items() for key, tensor in module.state_dict().items()}


def _vae(pipe: Any) -> dict[str, Tensor]:
    return {f"vae.{key}": tensor for key, tensor in pipe.vae.state_dict().items()}


def _metadata(first: Any, second: Any, family: ModelFamily, targets: Sequence[str]) -> dict[str, str]:
    v = family.objective(first).prediction_type == "v_prediction"
    return {
        **family.kind(first).marks,
        "ss_sd_model_name": base_name(first),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.implementation": "https://github.com/huggingface/diffusers",
        "modelspec.description": f"The difference of {base_name(second)} and {base_name(first)}.",
        "modelspec.resolution": "x".join([str(family.native_size(first))] * 2),
        "modelspec.prediction_type": "v" if v else "epsilon",
        "sdlora.version": __version__,
        "sdlora.family": family.name,
        **base_facts(first),
        "sdlora.targets": " ".join(targets),
        "sdlora.variant": "lora",
    }
