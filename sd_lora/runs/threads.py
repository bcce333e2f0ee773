"""How what runs of sd_lora on this machine shares its cores: each process claims threads, and takes what others leave.

More threads than cores wait for each other at every operation, which costs far more than having fewer. No torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from platformdirs import user_state_path

from sd_lora.errors import StorageError, some
from sd_lora.runs.process import Process
from sd_lora.storage.atomic import write_atomically


@dataclass(frozen=True)
class Claim:
    """`threads` that a process uses, or keeps for when it draws; `what` it is, in words."""

    process: Process
    what: str
    threads: int


def cores() -> int:
    """The physical cores that this process may use."""
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else physical
    return max(1, min(physical, allowed))


def free_threads() -> int:
    """The cores that no other process of sd_lora claims; at least one."""
    return max(1, cores() - sum(claim.threads for claim in claims()))


def kept_for_a_page() -> int:
    """What a page claims as long as it is served, so that it can draw beside trainings."""
    return max(1, cores() // 4)


def claims() -> list[Claim]:
    """Those of the other processes on this machine that are alive."""
    found = []
    for path in sorted(_folder().glob("*.json")):
        claim = _read(path)
        if claim is None or (claim.process.is_here and claim.process.running() is None):
            with contextlib.suppress(OSError):
                path.unlink()
        elif claim.process.is_here and claim.process.pid != os.getpid():
            found.append(claim)
    return found


@contextlib.contextmanager
def claimed(threads: int, what: str) -> Iterator[None]:
    """Claim `threads` for the length of a ``with`` block; without effect where nothing can be written."""
    process = Process(os.getpid(), socket.gethostname(), time.time())
    path = _folder() / f"{process.pid}-{time.monotonic_ns()}.json"
    with contextlib.suppress(OSError, StorageError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(asdict(Claim(process, what, threads))).encode())
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def reason(threads: int, given: str = "") -> str:
    """Why a run computes with `threads`, in a sentence; `given` says who chose them, if somebody did."""
    beside = [f"{claim.what} has {claim.threads}" for claim in claims()]
    text = f"{threads} {'thread' if threads == 1 else 'threads'} of {cores()} cores"
    if given:
        text += f", {given}"
    elif beside:
        text += f", as {some(beside)}"
    load = psutil.getloadavg()[0]
    busy = load > cores() or threads + sum(claim.threads for claim in claims()) > cores()
    return text + (f"; the machine is overcommitted (load {load:.1f}), so steps take longer" if busy else "")


def _folder() -> Path:
    return user_state_path("sd-lora") / "running"


def _read(path: Path) -> Claim | None:
    try:
        facts = json.loads(path.read_bytes())
        owner = facts["process"]
        process = Process(int(owner["pid"]), str(owner["host"]), float(owner["since"]))
        return Claim(process, str(facts["what"])[:100], max(0, int(facts["threads"])))
    except (OSError, KeyError, TypeError, ValueError, OverflowError):
        return None
