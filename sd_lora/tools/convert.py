"""`convert_adapter`: the same adapter in another layout or type."""

from __future__ import annotations

import warnings
from itertools import chain
from pathlib import Path

from sd_lora.adapters.file import read_adapter
from sd_lora.adapters.source import EmbeddingsIgnored, open_source
from sd_lora.adapters.writing import write_adapter
from sd_lora.models.kinds import family_of_adapter
from sd_lora.tools.output import check_output, dtype_for, marks_for, with_facts, with_history


def convert_adapter(
    adapter: str | Path,
    out: str | Path,
    *,
    layout: str = "",
    dtype: str = "",
    kind: str = "",
    drop_embeddings: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write `adapter` to `out` in `layout` ("kohya" or "diffusers"; by default the usual one of its family) and
    `dtype`, by default the type it has.

    `kind` (a name of `families.kinds`) is needed only where neither the metadata nor the shapes show which base the
    adapter is for. Embeddings in the file are copied, unless `drop_embeddings` is set. Raises AdapterError, and writes
    nothing, for a file that is not a complete adapter, or of a variant that is only read.
    """
    path = check_output(out, [adapter], overwrite=overwrite)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmbeddingsIgnored)
        weights, metadata = read_adapter(adapter)
    marked = marks_for(weights, metadata, str(adapter), kind, "say so with --kind {}")
    chosen = dtype_for([adapter], dtype)
    shapes = {name: w.shape for name, w in weights.items()}
    layout = layout or family_of_adapter(shapes, marked).layouts[0]
    settings = {"layout": layout, "dtype": chosen}
    noted = with_history(with_facts(marked, weights, path), "convert", [adapter], settings)
    source = open_source(adapter)
    with source.tensors() as tensor:
        keys = () if drop_embeddings else chain.from_iterable(source.embeddings.values())
        embeddings = {key: tensor(key) for key in keys}
    write_adapter(path, weights, noted, chosen, layout, embeddings)
    return path
