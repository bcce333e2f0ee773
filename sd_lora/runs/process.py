"""Which process a run is: by the lock in its folder, and by the record made when it was started. No torch."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import psutil

from sd_lora.storage.atomic import storing, write_atomically

LOCK, LOGS = ".lock", ".logs"
#: by how many seconds clocks may have been set since a process was started
LEEWAY = 60.0

#: held while processes are started, stopped or looked up
changing = threading.RLock()
#: the processes started by this one, kept so that their end is noticed
children: list[subprocess.Popen[bytes]] = []


class Notes:
    """Files about the run in `folder`, in a hidden folder beside it: the output and the record of its process, its
    config until the run has made its folder, and what it does before its first step."""

    def __init__(self, folder: Path) -> None:
        self.home = folder.parent / LOGS
        endings = ("log", "json", "toml", "stage")
        self.log, self.record, self.config, self.stage = (self.home / f"{folder.name}.{end}" for end in endings)

    def make_home(self) -> None:
        """Make the hidden folder. StorageError."""
        with storing(self.home):
            self.home.mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True)
class Process:
    """The process `pid` on `host`, which was running at the time `since`; `stopping` once it was asked to stop."""

    pid: int
    host: str
    since: float
    stopping: bool = False

    @property
    def is_here(self) -> bool:
        return self.host == socket.gethostname()

    def running(self) -> psutil.Process | None:
        """The process itself; None if it has ended, even if another has its number now."""
        with contextlib.suppress(psutil.Error, ValueError, OverflowError):
            process = psutil.Process(self.pid)
            if process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= self.since + LEEWAY:
                return process
        return None


def lock_owner(folder: Path) -> Process | None:
    """Who holds the lock of the run in `folder`; None if nobody does.

    The lock is tried only if its last owner is alive: trying it means holding it for a moment, in which a starting run
    would be refused.
    """
    with _opened(folder / LOCK) as handle:
        owner = _named(handle)
        if owner is None or (owner.is_here and owner.running() is None):
            return None
        return owner if _is_held(handle) else None


def is_alive(folder: Path) -> bool:
    """Whether the process that was started for `folder` by this one, or before a restart, is still running."""
    with changing:
        children[:] = [child for child in children if child.poll() is None]
        record = read_record(Notes(folder).record)
        if record is None or any(child.pid == record.pid for child in children):
            return record is not None
        return is_run_of(record, folder, holds_lock=False) is not None


def owner_named_in(lock: Path) -> Process | None:
    """The owner that a lock file names: who holds the lock, or was killed while it held it."""
    with _opened(lock) as handle:
        return _named(handle)


def is_run_of(process: Process, folder: Path, *, holds_lock: bool) -> psutil.Process | None:
    """`process`, if it is sd_lora's and works on `folder`: it has the lock open, or its command names the folder."""
    candidate = process.running() if process.is_here and process.pid != os.getpid() else None
    if candidate is None:
        return None
    try:
        command = candidate.cmdline()
        if not any(Path(part).stem in ("sd-lora", "sd_lora") for part in command[:4]):
            return None
        if not holds_lock:
            return candidate if any(part.removeprefix("--out=") == str(folder) for part in command[3:]) else None
        lock = folder / LOCK
        return candidate if any(os.path.samefile(file.path, lock) for file in candidate.open_files()) else None
    except (psutil.Error, OSError):
        return None


def read_record(path: Path) -> Process | None:
    """The process recorded in `path`."""
    try:
        return _process(path.read_bytes()) if path.is_file() else None
    except OSError:
        return None


def write_record(path: Path, process: Process) -> None:
    """Record `process` in `path`. StorageError."""
    write_atomically(path, json.dumps(asdict(process)).encode())


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A handle to read `path`; -1 unless it is a regular file."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
    except OSError:
        yield -1
        return
    try:
        yield handle if stat.S_ISREG(os.fstat(handle).st_mode) else -1
    finally:
        os.close(handle)


def _named(handle: int) -> Process | None:
    """The owner that the lock file names; it is emptied when the lock is released."""
    try:
        if handle >= 0 and sys.platform == "win32":
            os.lseek(handle, 1, os.SEEK_SET)  # the first byte is locked
        return _process(os.read(handle, 4096)) if handle >= 0 else None
    except OSError:
        return None


def _process(text: bytes) -> Process | None:
    """The process that `text` describes as JSON; None if it is anything else."""
    try:
        facts = json.loads(text)
        process = Process(int(facts["pid"]), str(facts["host"]), float(facts["since"]), bool(facts.get("stopping")))
        datetime.fromtimestamp(process.since)  # raises if it is not a time
        return process
    except (KeyError, TypeError, ValueError, OverflowError, OSError, RecursionError):
        return None


def _is_held(handle: int) -> bool:
    """Whether the lock is held. Windows does not show that without locking; there the owner being alive has to do."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(handle, fcntl.LOCK_UN)
    return False
