"""`extract_adapter`: the adapter that leads from one base model to another, tuned one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sd_lora.adapter import base_name
from sd_lora.adapter_file import DTYPES, Weights, write_adapter
from sd_lora.config import ModelConfig
from sd_lora.errors import AdapterError, ConfigError, nearest, some
from sd_lora.families import ModelFamily, load_base
from sd_lora.kinds import MARKS
from sd_lora.layouts import COMPONENTS, name_of_module
from sd_lora.lora import plan_targets
from sd_lora.tools.factors import triplets_of_matrix
from sd_lora.tools.output import check_output, with_history, with_sizes
from sd_lora.version import __version__

#: a change below this share of the weight is rounding
_NOISE = 1e-6
Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class Extraction:
    """Where the adapter lies, its modules by rank, the error ‖ΔW′ − ΔW‖ / ‖ΔW‖ of all together, and the names of the
    weights that differ but are outside what was extracted."""

    path: str
    ranks: Mapping[str, int]
    error: float
    beyond: tuple[str, ...]


def extract_adapter(  # noqa: PLR0913
    base: ModelConfig, tuned: ModelConfig, out: str | Path, *, rank: int = 0, energy: float = 0.0,
    targets: Sequence[str] = ("attn", "ff", "proj", "conv"), dtype: str = "float16", overwrite: bool = False,
    watch: Watch | None = None,
) -> Extraction:  # fmt: skip
    """Write to `out` the adapter whose ΔW is the difference of `tuned` and `base`, each module
    cut by SVD to `rank`, or to the least rank that keeps `energy`, a share (0..1) of the squared singular values.

    `targets` are groups or patterns as in training; modules that do not differ are left out. Both models are held in
    the precision that `model.dtype` asks for, float32 if it is "auto". Raises AdapterError if nothing differs.
    """
    if bool(rank) == bool(energy):
        raise ConfigError("extracting takes either --rank or --energy; give one of them")
    if rank < 0 or not 0 <= energy <= 1:
        raise ConfigError(f"--rank is {rank} and --energy is {energy:g}; a rank is above 0, an energy above 0 up to 1")
    path = check_output(out, [base.base, tuned.base], overwrite=overwrite)
    (first, family), (second, other) = _load(base), _load(tuned)
    if family is not other:
        raise AdapterError(f"{tuned.base} is of the family {other.name} and {base.base} of {family.name}")
    chosen = _planned(first, family, targets)
    before, after = _state(first, family), _state(second, family)
    odd = [k for k in before | after if k not in before or k not in after or before[k].shape != after[k].shape]
    if odd:
        raise AdapterError(f"{tuned.base} and {base.base} differ in {len(odd)} weights' shapes ({some(odd, 2)})")
    weights: dict[str, Weights] = {}
    lost, whole = 0.0, 0.0
    for done, (name, key) in enumerate(chosen.items(), 1):
        change = after[key].float() - before[key].float()
        if change.norm() > _NOISE * before[key].float().norm():
            parts = triplets_of_matrix(change)
            kept = min(rank or parts.rank_for(energy), len(parts.values))
            weights[name] = parts.weights(kept, float(rank or 16))
            lost, whole = lost + parts.lost(kept) ** 2 * parts.energy, whole + parts.energy
        if watch is not None:
            watch(done, len(chosen))
    beyond = tuple(k for k in before if k not in chosen.values() and not torch.equal(before[k], after[k]))
    if not weights:
        elsewhere = f", but {len(beyond)} weights elsewhere do ({some(beyond, 2)})" if beyond else ""
        raise AdapterError(f"no module that was asked for differs between {base.base} and {tuned.base}{elsewhere}")
    settings = {"tuned": base_name(second), "targets": list(targets), "rank": rank, "energy": energy}
    metadata = _metadata(first, second, family, path.stem, targets)
    write_adapter(path, weights, with_history(with_sizes(metadata, weights), "extract", [], settings), dtype)
    ranks = {name: w.rank for name, w in weights.items()}
    return Extraction(str(path), ranks, (lost / whole) ** 0.5, beyond)


def _load(model: ModelConfig) -> tuple[Any, ModelFamily]:
    dtype = "float32" if model.dtype == "auto" else model.dtype
    if dtype not in DTYPES:
        raise ConfigError(f'model.dtype is "{dtype}"; {nearest(dtype, DTYPES)}')
    return load_base(
        model.base, DTYPES[dtype], revision=model.revision, config=model.config, prediction_type=model.prediction_type
    )


def _components(pipe: Any, family: ModelFamily) -> dict[str, nn.Module]:
    return {name: getattr(pipe, name) for name in COMPONENTS if name == family.denoiser or name in family.text_encoders}


def _planned(pipe: Any, family: ModelFamily, targets: Sequence[str]) -> dict[str, str]:
    """Name in memory → key in the state, of the modules that `targets` choose."""
    plan = plan_targets(_components(pipe, family), family.target_groups, targets)
    return {name_of_module(*target.name.split(".", 1)): f"{target.name}.weight" for target in plan}


def _state(pipe: Any, family: ModelFamily) -> dict[str, Tensor]:
    parts = _components(pipe, family)
    return {f"{part}.{key}": tensor for part, module in parts.items() for key, tensor in module.state_dict().items()}


def _metadata(first: Any, second: Any, family: ModelFamily, title: str, targets: Sequence[str]) -> dict[str, str]:
    v = family.objective(first).prediction_type == "v_prediction"
    return {
        **MARKS[family.kind(first)],
        "ss_output_name": title,
        "ss_sd_model_name": base_name(first),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.implementation": "https://github.com/huggingface/diffusers",
        "modelspec.title": title,
        "modelspec.description": f"The difference of {base_name(second)} and {base_name(first)}.",
        "modelspec.resolution": "x".join([str(family.native_size(first))] * 2),
        "modelspec.prediction_type": "v" if v else "epsilon",
        "sdlora.version": __version__,
        "sdlora.family": family.name,
        "sdlora.base": base_name(first),
        "sdlora.targets": " ".join(targets),
        "sdlora.variant": "lora",
    }
