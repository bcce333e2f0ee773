"""`resize_adapter`: the same adapter with smaller ranks, and the error of that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sd_lora.adapters.file import read_adapter
from sd_lora.adapters.source import open_source
from sd_lora.adapters.writing import write_adapter
from sd_lora.config.schema import ModelConfig
from sd_lora.errors import AdapterError, ConfigError
from sd_lora.lora.weights import Weights
from sd_lora.tools.changes import Changes
from sd_lora.tools.output import Watch, check_cut, check_output, dtype_for, marks_for, with_facts, with_history


@dataclass(frozen=True)
class Resized:
    """One module: its `rank` before and now, and the `error` ‖ΔW′ − ΔW‖ / ‖ΔW‖ of the cut."""

    name: str
    before: int
    rank: int
    error: float


@dataclass(frozen=True)
class ResizeReport:
    """The path of the result, its size and that of the input in bytes, the modules, and the error of all together."""

    path: str
    bytes_before: int
    bytes: int
    error: float
    modules: tuple[Resized, ...]
    left_out: tuple[str, ...] = ()


def resize_adapter(
    adapter: str | Path,
    out: str | Path,
    *,
    rank: int = 0,
    energy: float = 0.0,
    dtype: str = "",
    model: ModelConfig | None = None,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> ResizeReport:
    """Cut every module of `adapter` by SVD, to `rank` or to the lowest rank that keeps `energy`, a share (0..1) of its
    squared singular values, and write the result to `out` in `dtype`, by default the type it has.

    The result is plain LoRA, whatever the adapter was; `model` is needed where its change depends on the weights of the
    base. Changes of norms and biases, which no LoRA can hold, are left out and named in the report. Raises ConfigError
    for a rank that no module is above, AdapterError without the `model` that is needed.
    """
    check_cut("resizing", rank, energy)
    path = check_output(out, [adapter], overwrite=overwrite)
    weights, metadata = read_adapter(adapter)
    most = max(w.rank for w in weights.values())
    if all(w.row.can_cut for w in weights.values()) and rank >= most:
        raise ConfigError(f"--rank {rank} would cut nothing: no module of {adapter} has a rank above {most}")
    marked = marks_for(weights, metadata, str(adapter))
    changes = Changes(weights, marked, str(adapter), model)
    resized: dict[str, Weights] = {}
    modules, lost, total = [], 0.0, 0.0
    for done, (name, w) in enumerate(weights.items(), 1):
        if (parts := changes.triplets(name)) is not None:
            cuts = w.row.can_cut
            kept = min(rank or parts.rank_for(energy), w.rank if cuts else len(parts.values), len(parts.values))
            is_kept = cuts and kept == w.rank
            resized[name] = w if is_kept else parts.weights(kept, w.alpha if cuts else float(rank or 16))
            error = 0.0 if is_kept else parts.lost(kept)
            modules.append(Resized(name, w.rank, kept, error))
            lost, total = lost + error**2 * parts.energy, total + parts.energy
        if watch is not None:
            watch(done, len(weights))
    if not resized:
        raise AdapterError(f"{adapter} changes only norms and biases, which no LoRA can hold")
    settings = {"rank": rank} if rank else {"energy": energy}
    noted = with_history(with_facts(marked, resized, path), "resize", [adapter], settings)
    write_adapter(path, resized, {**noted, "sdlora.variant": "lora"}, dtype_for([adapter], dtype))
    error = (lost / total) ** 0.5 if total else 0.0
    before = open_source(adapter).bytes
    return ResizeReport(str(path), before, path.stat().st_size, error, tuple(modules), changes.left_out)
