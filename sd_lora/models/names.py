"""How a base model is called in files and messages: never by a path on this machine."""

from __future__ import annotations

import re
from pathlib import Path

from sd_lora.tinybase import tiny_base_fingerprint, tiny_base_path

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def is_hub_id(text: str) -> bool:
    """Whether `text` has the form ``owner/name`` of a model of the Hugging Face hub."""
    return len(text) <= 96 and _HUB_ID.fullmatch(text) is not None and "--" not in text and ".." not in text


def name_of_base(where: str | Path) -> str:
    """``tiny``, ``owner/name`` of a hub model or of its folder in the hub's cache, a folder's name, a file's stem."""
    path = Path(where)
    if path == tiny_base_path():
        return "tiny"
    if len(path.parts) > 2 and path.parts[-2] == "snapshots" and path.parts[-3].startswith("models--"):
        return path.parts[-3].removeprefix("models--").replace("--", "/", 1)
    if path.suffix == ".safetensors":
        name = path.stem
    elif is_hub_id(str(where)) and not path.exists():
        return str(where)
    else:
        name = path.name
    return "tiny (not the embedded base)" if name == "tiny" else name


def fingerprint_of_base(name: str) -> str:
    """Which edition of the embedded base this is; "" for the `name` of any other base."""
    return tiny_base_fingerprint() if name == "tiny" else ""
