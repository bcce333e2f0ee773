"""One process per run folder: a lock that the system gives back however its owner ends."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil

from sd_lora.errors import ConfigError, StorageError, printable
from sd_lora.storage.atomic import storing

#: the byte that is locked on Windows, where what is locked cannot be read: far behind the owner's name
_FAR = 2**30
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


class RunLock:
    """Held inside ``with``: no other `RunLock` on `folder`, in any process, gets past its start.

    ConfigError if another holds it, StorageError if the disk cannot lock. The file ``.lock`` stays behind: to remove it
    would let two processes lock two files of that name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / ".lock"
        self._handle = -1

    def __enter__(self) -> RunLock:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with storing(self.path):
            handle = os.open(self.path, flags, 0o666)
            try:
                self._lock(handle)
                os.ftruncate(handle, 0)
                os.write(handle, json.dumps(_owner()).encode())
            except BaseException:
                os.close(handle)
                raise
        self._handle = handle
        return self

    def __exit__(self, *_: object) -> None:
        handle, self._handle = self._handle, -1
        with suppress(OSError):
            os.ftruncate(handle, 0)
        os.close(handle)

    def _lock(self, handle: int) -> None:
        try:
            _take(handle)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise StorageError(
                    f"{self.path} cannot be locked: its disk has no locks; name a folder on another disk"
                ) from error
            if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise
            raise ConfigError(
                f"run folder {self.folder} is in use by {_described(handle)}; wait until it ends, or stop it"
            ) from error


def still_runs(pid: int, since: float) -> bool:
    """Whether the process `pid` runs and ran already at time `since`; numbers are given anew after a restart."""
    try:
        process = psutil.Process(pid)
        # A minute, because the time at which a process started is known by a clock that may have been set since.
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= since + 60
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _take(handle: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(handle, _FAR, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _owner() -> dict[str, str | int]:
    started = datetime.now(UTC).isoformat(" ", "seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": started}


def _described(handle: int) -> str:
    """Who holds the lock, by what the file says; it may say nothing yet."""
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        owner = json.loads(os.read(handle, 4096))
        pid, host, started = (printable(str(owner[key])[:100]) for key in ("pid", "host", "started"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another process"
    return f"process {pid} on {host} since {started}"
