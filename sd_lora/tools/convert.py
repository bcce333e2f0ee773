"""`convert_adapter`: the same adapter in another layout or type."""

from __future__ import annotations

from pathlib import Path

from sd_lora.adapters.file import read_adapter
from sd_lora.adapters.writing import write_adapter
from sd_lora.tools.output import check_output, dtype_for, marks_for, with_facts, with_history


def convert_adapter(
    adapter: str | Path,
    out: str | Path,
    *,
    layout: str = "kohya",
    dtype: str = "",
    kind: str = "",
    overwrite: bool = False,
) -> Path:
    """Write `adapter` to `out` in `layout` ("kohya" or "diffusers") and `dtype`, by default the type it has.

    `kind` (a name of `families.kinds`) is needed only where neither the metadata nor the shapes show which base the
    adapter is for. Raises AdapterError, and writes nothing, for a file that is not a complete adapter.
    """
    path = check_output(out, [adapter], overwrite=overwrite)
    weights, metadata = read_adapter(adapter)
    marked = marks_for(weights, metadata, str(adapter), kind, "say so with --kind {}")
    chosen = dtype_for([adapter], dtype)
    facts = with_facts(marked, weights, path)
    write_adapter(
        path, weights, with_history(facts, "convert", [adapter], {"layout": layout, "dtype": chosen}), chosen, layout
    )
    return path
