"""Which process a run is, told from the lock in its folder and from what was noted when it was started. No torch."""

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

from sd_lora.storage.atomic import write_atomically

LOCK, LOGS = ".lock", ".logs"
#: by how many seconds clocks may have been set since a process was started
LEEWAY = 60.0

#: held while processes are started, stopped or asked after
changing = threading.RLock()
#: the processes started here, kept so that they are taken note of when they end
children: list[subprocess.Popen[bytes]] = []


class Notes:
    """What is kept beside the run in `folder`, in a hidden folder: what its process says, which it is, and the config
    until the run has made its folder."""

    def __init__(self, folder: Path) -> None:
        self.home = folder.parent / LOGS
        self.log, self.record, self.config = (self.home / f"{folder.name}.{end}" for end in ("log", "json", "toml"))


@dataclass(frozen=True)
class Process:
    """The process `pid` on `host`, which ran already at the time `since`; `stopping` once it was asked to stop."""

    pid: int
    host: str
    since: float
    stopping: bool = False

    @property
    def is_here(self) -> bool:
        return self.host == socket.gethostname()

    def found(self) -> psutil.Process | None:
        """The process itself; None if it has ended, and another has its number."""
        with contextlib.suppress(psutil.Error, ValueError, OverflowError):
            process = psutil.Process(self.pid)
            if process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= self.since + LEEWAY:
                return process
        return None


def lock_owner(folder: Path) -> Process | None:
    """Who holds the lock of the run in `folder`; None if nobody does.

    The lock is tried only if its last owner lives: to try it is to hold it for a moment, in which a run that starts
    would be refused.
    """
    with _opened(folder / LOCK) as handle:
        owner = _named(handle)
        if owner is None or (owner.is_here and owner.found() is None):
            return None
        return owner if _is_held(handle) else None


def is_alive(folder: Path) -> bool:
    """Whether the process that was started for `folder` from here, or before a restart, still runs."""
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
    """`process`, if it is sd_lora's and works on `folder`: it has the lock open, or was started from here for it."""
    found = process.found() if process.is_here and process.pid != os.getpid() else None
    if found is None:
        return None
    try:
        command = found.cmdline()
        if not any(Path(part).stem in ("sd-lora", "sd_lora") for part in command[:4]):
            return None
        if not holds_lock:
            return found if any(part.removeprefix("--out=") == str(folder) for part in command[3:]) else None
        lock = folder / LOCK
        return found if any(os.path.samefile(file.path, lock) for file in found.open_files()) else None
    except (psutil.Error, OSError):
        return None


def read_record(path: Path) -> Process | None:
    """The process that was noted in `path`."""
    try:
        return _process(json.loads(path.read_text("utf-8"))) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None


def write_record(path: Path, process: Process) -> None:
    """Note `process` in `path`. StorageError."""
    write_atomically(path, json.dumps(asdict(process)).encode())


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A handle to read the plain file `path`; -1 if there is none."""
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
    """Who the lock file says its owner is; it is emptied when the lock is given back."""
    try:
        if handle >= 0 and sys.platform == "win32":
            os.lseek(handle, 1, os.SEEK_SET)  # the first byte is locked
        return _process(json.loads(os.read(handle, 4096))) if handle >= 0 else None
    except (OSError, ValueError, RecursionError):
        return None


def _process(facts: object) -> Process | None:
    try:
        assert isinstance(facts, dict)
        process = Process(int(facts["pid"]), str(facts["host"]), float(facts["since"]), bool(facts.get("stopping")))
        datetime.fromtimestamp(process.since)  # raises for what is no time
        return process
    except (AssertionError, KeyError, TypeError, ValueError, OverflowError, OSError):
        return None


def _is_held(handle: int) -> bool:
    """Whether the lock is held by anyone. Windows does not tell without locking; there the owner's life must do."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(handle, fcntl.LOCK_UN)
    return False
