"""What every tool does before and after it writes: check where the result goes, note what was done."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sd_lora.errors import AdapterError, ConfigError
from sd_lora.lora.variants import VARIANTS, called
from sd_lora.lora.weights import Weights
from sd_lora.models.families import kinds
from sd_lora.models.kinds import family_of_kind, kind_of
from sd_lora.storage.safetensors_header import read_header
from sd_lora.version import __version__

HISTORY_KEY = "sdlora.history"
#: types of tensors that results keep; everything else becomes float16
_KEPT_TYPES = {"F32": "float32", "F64": "float32", "BF16": "bfloat16"}


def check_output(
    out: str | Path, inputs: Sequence[str | Path], *, overwrite: bool = False, folder: bool = False
) -> Path:
    """`out` as a path that a tool may write; ConfigError if it has the wrong ending, is an input, has no folder to lie
    in, or exists and `overwrite` is not set. A folder is never overwritten."""
    path = Path(out).expanduser()
    if not folder and path.suffix != ".safetensors":
        raise ConfigError(f"{path} is no name for the result; let --out end in .safetensors")
    if any(path.absolute() == Path(item).expanduser().absolute() for item in inputs):
        raise ConfigError(f"{path} is an input; name another file with --out")
    try:
        exists = path.exists() or path.is_symlink()
        is_place = path.absolute().parent.is_dir()
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    if exists and (folder or path.is_dir()):
        raise ConfigError(f"{path} exists; name a new one with --out")
    if exists and not overwrite:
        raise ConfigError(f"{path} exists; name another file with --out, or add --overwrite")
    if not is_place:
        raise ConfigError(f"{path} cannot be written: the folder {path.absolute().parent.name} does not exist")
    return path


def with_history(
    metadata: Mapping[str, str], tool: str, inputs: Sequence[str | Path], settings: Mapping[str, Any]
) -> dict[str, str]:
    """`metadata` with one more entry in ``sdlora.history``: names and sha256 of the inputs, never their paths."""
    try:
        history = json.loads(metadata.get(HISTORY_KEY, "[]"))
    except (ValueError, RecursionError):
        history = []
    files = [Path(item) for item in inputs]
    entry = {
        "tool": tool,
        "version": __version__,
        "inputs": [{"name": f.name, **({"sha256": sha256(f)} if f.is_file() else {})} for f in files],
        "settings": dict(settings),
    }
    return {**metadata, HISTORY_KEY: json.dumps([*history, entry] if isinstance(history, list) else [entry])}


def with_facts(metadata: Mapping[str, str], weights: Mapping[str, Weights], out: Path) -> dict[str, str]:
    """`metadata` with the rank and alpha that most modules of `weights` have, as kohya's tools show them, and the name
    of `out`, under which AUTOMATIC1111 and Forge call the adapter: with its input's, one of the two would be hidden."""
    rank, alpha = (
        Counter(getattr(w, fact) for w in weights.values()).most_common(1)[0][0] for fact in ("rank", "alpha")
    )
    module = VARIANTS[called(w.variant for w in weights.values())].network_module
    facts = {"ss_network_module": module, "ss_network_dim": str(rank), "ss_network_alpha": f"{alpha:g}"}
    name = re.sub(r"[:<>,]", "_", out.stem)  # signs that end a name in a prompt
    return {**metadata, **facts, "ss_output_name": name, "modelspec.title": name}


def marks_for(
    weights: Mapping[str, Weights],
    metadata: Mapping[str, str],
    label: str,
    kind: str = "",
    remedy: str = "convert it with --kind {} first",
) -> dict[str, str]:
    """`metadata` with the marks by which other programs tell the base, so that none lists the file wrongly.

    `kind` is what the user says of it. Raises AdapterError, with the `remedy`, if nothing tells which base it is for.
    """
    if kind and kind not in kinds():
        raise AdapterError(f'there is no kind of base "{kind}"; known are {", ".join(kinds())}')
    told = kind_of({name: w.shape for name, w in weights.items()}, metadata)
    if kind and told and kind != told and {kind, told} != {"sd2", "sd2-v"}:
        raise AdapterError(f"{label} is for a base of kind {told}, not {kind}; leave --kind out")
    chosen = kind or told
    if not chosen:
        raise AdapterError(f"{label} does not tell which base it is for; {remedy.format('|'.join(kinds()))}")
    return {**metadata, **kinds()[chosen].marks, "sdlora.family": family_of_kind(chosen).name}


def dtype_for(inputs: Sequence[str | Path], asked: str) -> str:
    """The type of the result: `asked`, or without it the finest of the inputs' own ("float32", then "float16").

    Raises AdapterError if the header of an input cannot be read."""
    if asked:
        return asked
    found = {
        _KEPT_TYPES.get(info.dtype, "float16")
        for item in inputs
        for key, info in read_header(Path(item))[0].items()
        if not key.endswith(".alpha")
    }
    return next(iter(found)) if len(found) == 1 else "float32" if "float32" in found else "float16"


def sha256(path: Path) -> str:
    """The hash of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
