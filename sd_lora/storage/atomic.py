"""Write files completely or not at all, so that they survive a power cut."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from sd_lora.errors import AdapterError, StorageError

#: what to do about an OSError, by its number
_ADVICE = {
    errno.ENOSPC: "make room on that disk, or name a folder on another",
    getattr(errno, "EDQUOT", -1): "make room within your quota, or name a folder on another disk",
    errno.EROFS: "name a folder on a disk that can be written to",
    errno.EIO: "that disk is failing, copy what is on it and name a folder on another",
    errno.EACCES: "allow writing there, or name another folder",
    errno.EPERM: "allow writing there, or name another folder",
    errno.ENOENT: "name a folder that exists",
}
#: how a file system says that a folder cannot be synced
_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF}


def write_atomically(path: Path, content: bytes, check: Callable[[Path], None] | None = None) -> None:
    """Write `content` beside `path`, fsync, `check` it there, then rename and fsync the folder: `path` is complete
    or as it was. StorageError if it cannot be written."""
    # Two threads may write one path; a file with our numbers can only be left by a process that was killed.
    partial = path.with_name(f".{path.name[:50]}.{os.getpid()}-{threading.get_native_id()}.partial")
    with storing(path):
        try:
            remove(partial)
            write_synced(partial, content)
            if check is not None:
                try:
                    check(partial)
                except AdapterError as error:
                    raise AdapterError(f"{path} was not written: {str(error).replace(str(partial), 'it')}") from error
            os.replace(partial, path)
        except BaseException:
            with contextlib.suppress(OSError):
                remove(partial)
            raise
        sync_folder(path.parent)


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn an OSError into a StorageError that names `path`, the reason and what to do."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "make room, or name another folder")
        raise StorageError(f"{path} cannot be written: {error.strerror or error}; {advice}") from error


def write_synced(path: Path, content: bytes) -> None:
    """Write the new file `path` and wait until the disk has it; its folder's entry may still be lost. OSError."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        rest = memoryview(content)
        while rest:
            count = os.write(handle, rest)
            if not count:
                raise OSError(errno.EIO, "the disk takes no more bytes")
            rest = rest[count:]
        os.fsync(handle)
        if sys.platform == "darwin":  # where fsync stops at the disk's own cache
            import fcntl

            with contextlib.suppress(OSError):
                fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Wait until the disk has the names in folder `path`, where the system can (Windows cannot). OSError."""
    if os.name == "nt":
        return
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # a folder may be writable and not readable
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove the file or link `path` if it is there. OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def remove_tree(path: Path) -> None:
    """Remove the file, link or folder `path` with all that is in it, never the target of a link. OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        remove(path)


def open_to_others(path: Path) -> None:
    """Give `path` the permissions of any new file; safetensors writes files that only their owner may read."""
    mask = os.umask(0o077)
    os.umask(mask)
    path.chmod(0o666 & ~mask)
