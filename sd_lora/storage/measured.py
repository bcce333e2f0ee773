"""What was measured on this machine, kept between runs: it is measured again if it cannot be read or kept."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from sd_lora.errors import StorageError
from sd_lora.storage.atomic import write_atomically

#: how many facts of a topic are kept, the latest, and the bytes of a file that is read
_MOST, _MOST_BYTES = 256, 4 * 2**20


def measured(topic: str) -> dict[str, Any]:
    """What is known of `topic`; nothing if nothing was kept."""
    with contextlib.suppress(OSError, ValueError):
        path = _path(topic)
        if path.stat().st_size <= _MOST_BYTES:
            known = json.loads(path.read_bytes())
            return known if isinstance(known, dict) else {}
    return {}


def keep_measured(topic: str, facts: Mapping[str, Any]) -> None:
    """Add `facts`, which JSON can hold, to what is known of `topic`, and forget the oldest if it becomes too much;
    without effect where nothing can be written."""
    with contextlib.suppress(OSError, StorageError):
        path = _path(topic)
        path.parent.mkdir(parents=True, exist_ok=True)
        older = [(key, fact) for key, fact in measured(topic).items() if key not in facts]
        latest = dict([*older, *facts.items()][-_MOST:])
        write_atomically(path, json.dumps(latest, indent=1).encode())


def processor() -> str:
    """The name of the processor, for what depends on it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _path(topic: str) -> Path:
    return user_cache_path("sd-lora") / f"{topic}.json"
