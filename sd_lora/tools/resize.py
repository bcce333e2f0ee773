"""`resize_adapter`: the same adapter with smaller ranks, and the error of that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sd_lora.adapters.file import read_adapter
from sd_lora.adapters.writing import write_adapter
from sd_lora.errors import AdapterError, ConfigError
from sd_lora.lora.weights import Weights
from sd_lora.tools.factors import triplets_of
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


def resize_adapter(
    adapter: str | Path,
    out: str | Path,
    *,
    rank: int = 0,
    energy: float = 0.0,
    dtype: str = "",
    overwrite: bool = False,
    watch: Watch | None = None,
) -> ResizeReport:
    """Cut every module of `adapter` by SVD, to `rank` or to the lowest rank that keeps `energy`, a share (0..1) of its
    squared singular values, and write the result to `out` in `dtype`, by default the type it has.

    Raises ConfigError for a rank that no module is above, AdapterError for a DoRA, whose magnitudes belong to the
    change that would be cut.
    """
    check_cut("resizing", rank, energy)
    path = check_output(out, [adapter], overwrite=overwrite)
    weights, metadata = read_adapter(adapter)
    if odd := next((w.row for w in weights.values() if not w.row.can_cut), None):
        raise AdapterError(f"{adapter} is a {odd.title}, which cannot be cut by itself; only LoRAs can be resized")
    if rank >= (most := max(w.rank for w in weights.values())):
        raise ConfigError(f"--rank {rank} would cut nothing: no module of {adapter} has a rank above {most}")
    marked = marks_for(weights, metadata, str(adapter))
    resized: dict[str, Weights] = {}
    modules, lost, total = [], 0.0, 0.0
    for done, (name, w) in enumerate(weights.items(), 1):
        parts = triplets_of(w)
        kept = min(rank or parts.rank_for(energy), w.rank, len(parts.values))
        resized[name] = parts.weights(kept, w.alpha) if kept < w.rank else w
        error = parts.lost(kept) if kept < w.rank else 0.0
        modules.append(Resized(name, w.rank, kept, error))
        lost, total = lost + error**2 * parts.energy, total + parts.energy
        if watch is not None:
            watch(done, len(weights))
    settings = {"rank": rank} if rank else {"energy": energy}
    noted = with_history(with_facts(marked, resized, path), "resize", [adapter], settings)
    write_adapter(path, resized, noted, dtype_for([adapter], dtype))
    error = (lost / total) ** 0.5 if total else 0.0
    return ResizeReport(str(path), Path(adapter).stat().st_size, path.stat().st_size, error, tuple(modules))
