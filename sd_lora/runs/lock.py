"""One process per run folder: a lock that the system releases however its owner ends."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from sd_lora.errors import ConfigError, StorageError, printable
from sd_lora.runs.process import LOCK, Process, owner_named_in
from sd_lora.storage.atomic import storing

_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}


class RunLock:
    """Held inside ``with``: no other `RunLock` on `folder`, in any process, gets past its start.

    ConfigError if another holds it, StorageError if the disk cannot lock. The file ``.lock`` stays behind; it names the
    owner while the lock is held, and after the owner was killed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / LOCK
        self._lock = FileLock(self.path, blocking=False, preserve_lock_file=True, on_acquired=_sign)

    def __enter__(self) -> RunLock:
        with storing(self.path):
            os.stat(self.folder)  # the library would create a missing folder
            try:
                self._lock.acquire()
            except Timeout as error:
                raise ConfigError(
                    f"run folder {self.folder} is in use by {_described(self.path)}; wait until it ends, or stop it"
                ) from error
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                raise StorageError(
                    f"{self.path} cannot be locked: its disk has no locks; name a folder on another disk"
                ) from error
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            os.truncate(self.path, 0)
        self._lock.release()


def _sign(handle: int) -> None:
    """Name this process in the lock file, after a blank: Windows lets nobody read the first byte while it is locked."""
    owner = Process(os.getpid(), socket.gethostname(), time.time())
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, b" " + json.dumps(asdict(owner)).encode())


def _described(path: Path) -> str:
    """Who holds the lock, as far as the file names its owner yet."""
    owner = owner_named_in(path)
    if owner is None:
        return "another process"
    since = datetime.fromtimestamp(owner.since).astimezone().isoformat(" ", "seconds")
    return f"process {owner.pid} on {printable(owner.host)[:100]} since {since}"
