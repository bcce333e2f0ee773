"""What is kept with a dataset, in a hidden file in its folder: the trigger word."""

from __future__ import annotations

import json
import re
from pathlib import Path

from sd_lora.errors import StorageError
from sd_lora.storage.atomic import write_atomically

_FILE = ".sd-lora.json"
_LONGEST = 100


def trigger_of(folder: Path) -> str:
    """The trigger word that was kept with the dataset in `folder`; empty if none was."""
    try:
        notes = json.loads((folder / _FILE).read_text("utf-8"))
        word = notes.get("trigger", "") if isinstance(notes, dict) else ""
    except (OSError, ValueError):
        return ""
    return word[:_LONGEST] if isinstance(word, str) and "," not in word and word.isprintable() else ""


def keep_trigger(folder: Path, word: str) -> bool:
    """Keep the trigger word with the dataset in `folder`; whether that was possible."""
    try:
        write_atomically(folder / _FILE, json.dumps({"trigger": word.strip()}).encode())
    except (OSError, StorageError):
        return False
    return True


def suggested_trigger(folder: Path) -> str:
    """A trigger word made from the dataset's name: ``My Ink`` → ``my-ink``."""
    word = "-".join(re.findall(r"\w+", folder.name.lower()))[:40].strip("-")
    return word if re.search(r"[^\W\d]", word) else "my-style"
