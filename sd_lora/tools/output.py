"""What every tool does before and after it writes: check where the result goes, note what was done."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sd_lora.adapter_file import Weights
from sd_lora.errors import ConfigError
from sd_lora.version import __version__

HISTORY_KEY = "sdlora.history"


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
    except ValueError:
        history = []
    files = [Path(item) for item in inputs]
    entry = {
        "tool": tool,
        "version": __version__,
        "inputs": [{"name": f.name, **({"sha256": sha256(f)} if f.is_file() else {})} for f in files],
        "settings": dict(settings),
    }
    return {**metadata, HISTORY_KEY: json.dumps([*history, entry] if isinstance(history, list) else [entry])}


def with_sizes(metadata: Mapping[str, str], weights: Mapping[str, Weights]) -> dict[str, str]:
    """`metadata` with the rank and alpha that most modules of `weights` have, as kohya's tools show them."""
    rank, alpha = (
        Counter(getattr(w, fact) for w in weights.values()).most_common(1)[0][0] for fact in ("rank", "alpha")
    )
    shown = {"ss_network_module": "networks.lora", "ss_network_dim": str(rank), "ss_network_alpha": f"{alpha:g}"}
    return {**metadata, **shown}


def sha256(path: Path) -> str:
    """The hash of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
