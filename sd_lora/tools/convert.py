"""`convert_adapter`: an adapter in another layout or type, its change of the base the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sd_lora.adapter_file import Weights, read_adapter, write_adapter
from sd_lora.errors import AdapterError
from sd_lora.kinds import KINDS, MARKS, family_of_kind, kind_of
from sd_lora.tools.output import check_output, with_history, with_sizes


def convert_adapter(
    adapter: str | Path, out: str | Path, *, layout: str = "kohya", dtype: str = "float16", kind: str = "",
    overwrite: bool = False,
) -> Path:  # fmt: skip
    """Write `adapter` to `out` in `layout` ("kohya" or "diffusers") and `dtype`.

    `kind` ("sd1", "sd2", "sd2-v" or "sdxl") is needed only where neither the metadata nor the shapes tell which base
    the adapter is for. Raises AdapterError, and writes nothing, for a file that is no whole adapter.
    """
    path = check_output(out, [adapter], overwrite=overwrite)
    weights, metadata = read_adapter(adapter)
    marked = marks_for(weights, metadata, kind, str(adapter))
    noted = with_history(with_sizes(marked, weights), "convert", [adapter], {"layout": layout, "dtype": dtype})
    write_adapter(path, weights, noted, dtype, layout)
    return path


def marks_for(
    weights: Mapping[str, Weights], metadata: Mapping[str, str], kind: str = "", label: str = "the adapter"
) -> dict[str, str]:
    """`metadata` with the marks by which other programs tell the base, so that none lists the file wrongly."""
    if kind and kind not in KINDS:
        raise AdapterError(f'there is no kind of base "{kind}"; known are {", ".join(KINDS)}')
    told = kind_of({name: tuple(w.down.shape) for name, w in weights.items()}, metadata)
    if kind and told and kind != told and {kind, told} != {"sd2", "sd2-v"}:
        raise AdapterError(f"{label} is for a base of kind {told}, not {kind}; leave --kind out")
    chosen = kind or told
    if not chosen:
        raise AdapterError(f"{label} does not tell which base it is for; say so with --kind {'|'.join(KINDS)}")
    return {**metadata, **MARKS[chosen], "sdlora.family": family_of_kind(chosen)}
