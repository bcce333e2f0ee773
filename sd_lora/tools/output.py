"""What every tool does before and after it writes: check the path of the result, record what was done."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sd_lora.adapters.source import open_source
from sd_lora.errors import AdapterError, ConfigError
from sd_lora.lora.variants import VARIANTS, called
from sd_lora.lora.weights import Weights
from sd_lora.models.families import kinds
from sd_lora.models.kinds import family_of_kind, kind_of, kinds_shown
from sd_lora.version import __version__

HISTORY_KEY = "sdlora.history"
#: types of tensors that results keep; all others become float16
_KEPT_TYPES = {"F32": "float32", "F64": "float32", "BF16": "bfloat16"}

#: called with how many of how many modules are done
Watch = Callable[[int, int], None]


def check_cut(verb: str, rank: int, energy: float) -> None:
    """ConfigError unless exactly one of `rank` and `energy` is given, and in its range."""
    if bool(rank) == bool(energy):
        raise ConfigError(f"{verb} takes either --rank or --energy; give one of them")
    if rank < 0 or not 0 <= energy <= 1:
        raise ConfigError(f"--rank is {rank} and --energy is {energy:g}; a rank is above 0, an energy above 0 up to 1")


def check_output(
    out: str | Path, inputs: Sequence[str | Path], *, overwrite: bool = False, folder: bool = False
) -> Path:
    """`out` as a path that a tool may write; ConfigError if it has the wrong ending, is an input, is in a folder that
    does not exist, or exists and `overwrite` is not set. A folder is never overwritten."""
    path = Path(out).expanduser()
    if not folder and path.suffix != ".safetensors":
        raise ConfigError(f"the result cannot be named {path}; let --out end in .safetensors")
    if any(path.absolute() == Path(item).expanduser().absolute() for item in inputs):
        raise ConfigError(f"{path} is an input; name another file with --out")
    try:
        exists, parent_exists = path.exists() or path.is_symlink(), path.absolute().parent.is_dir()
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    if exists and (folder or path.is_dir()):
        raise ConfigError(f"{path} exists; name a new one with --out")
    if exists and not overwrite:
        raise ConfigError(f"{path} exists; name another file with --out, or add --overwrite")
    if not parent_exists:
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
        "inputs": [{"name": f.name, **({"sha256": _sha256(f)} if f.is_file() else {})} for f in files],
        "settings": dict(settings),
    }
    return {**metadata, HISTORY_KEY: json.dumps([*history, entry] if isinstance(history, list) else [entry])}


def with_facts(metadata: Mapping[str, str], weights: Mapping[str, Weights], out: Path) -> dict[str, str]:
    """`metadata` with the rank and alpha that most modules of `weights` have, as kohya's tools show them, and the name
    of `out`, by which AUTOMATIC1111 and Forge list the adapter: under the name of its input one would be hidden."""
    rank, alpha = (
        Counter(getattr(w, fact) for w in weights.values()).most_common(1)[0][0] for fact in ("rank", "alpha")
    )
    module = VARIANTS[called(w.variant for w in weights.values())].network_module
    facts = {"ss_network_module": module, "ss_network_dim": str(rank), "ss_network_alpha": f"{alpha:g}"}
    name = re.sub(r"[:<>,]", "_", out.stem)  # characters that end a name in a prompt
    return {**metadata, **facts, "ss_output_name": name, "modelspec.title": name}


def marks_for(
    weights: Mapping[str, Weights],
    metadata: Mapping[str, str],
    label: str,
    kind: str = "",
    remedy: str = "convert it with --kind {} first",
) -> dict[str, str]:
    """`metadata` with the marks by which other programs recognise the base, so that none lists the file wrongly.

    `kind` is what the user says. Raises AdapterError, with the `remedy`, if nothing shows which base it is for.
    """
    if kind and kind not in kinds():
        raise AdapterError(f'there is no kind of base "{kind}"; known are {", ".join(kinds())}')
    shapes = {name: w.shape for name, w in weights.items()}
    shown = kinds_shown(shapes)
    if kind and shown and kinds()[kind].version not in {each.version for each in shown}:
        raise AdapterError(f"{label} is for a base of kind {shown[0].name}, not {kind}; leave --kind out")
    chosen = kind or kind_of(shapes, metadata)
    if not chosen:
        raise AdapterError(f"{label} does not say which base it is for; {remedy.format('|'.join(kinds()))}")
    return {**metadata, **kinds()[chosen].marks, "sdlora.family": family_of_kind(chosen).name}


def dtype_for(inputs: Sequence[str | Path], asked: str) -> str:
    """The type of the result: `asked`, by default the finest of the inputs' ("float32", then "float16").

    Raises AdapterError if the header of an input cannot be read."""
    if asked:
        return asked
    types = {
        _KEPT_TYPES.get(info.dtype, "float16")
        for item in inputs
        for key, info in open_source(item).header.items()
        if not key.endswith(".alpha")
    }
    return types.pop() if len(types) == 1 else "float32" if "float32" in types else "float16"


def _sha256(path: Path) -> str:
    """The hash of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
