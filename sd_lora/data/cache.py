"""Encoded images and captions on disk: found by what they were made from, checksummed, shared safely between runs."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachetools import LRUCache
from safetensors import SafetensorError

from sd_lora.errors import DataError, StorageError, reason, shown
from sd_lora.storage.atomic import open_to_others

if TYPE_CHECKING:
    from torch import Tensor

#: changes whenever entries are made in another way, so that old ones are not used
SCHEMA = 1
_DIGEST = 32
_ABANDONED = 24 * 3600.0
#: what to do about an OSError besides naming another folder, by its number
_ADVICE = {
    errno.ENOSPC: "make room, or ", getattr(errno, "EDQUOT", -1): "make room within your quota, or ",
    errno.EACCES: "allow it, or ", errno.EPERM: "allow it, or ",
}  # fmt: skip


class Cache:
    """A folder of entries; an entry is a few tensors under a key made from everything that they depend on.

    A file is the SHA-256 of the rest, then safetensors; one that was truncated or changed is made again. Entries get
    their name once they are complete, so several runs may write to one cache. Recently used ones are kept in memory,
    up to `memory` bytes.
    """

    def __init__(self, folder: Path, memory: int = 256 * 2**20) -> None:
        self.folder = folder
        #: how many entries were made, and how many existed already
        self.made = self.reused = 0
        self._recent: LRUCache[str, dict[str, Tensor]] = LRUCache(
            memory, getsizeof=lambda tensors: sum(tensor.nbytes for tensor in tensors.values())
        )
        _check(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
        except OSError as error:
            raise _unwritable(folder, error) from error

    def ensure(self, key: str, make: Callable[[], Mapping[str, Tensor]]) -> None:
        """Make the entry `key` unless it exists and is complete."""
        from safetensors.torch import save

        if self._read(key) is not None:
            self.reused += 1
            return
        self._write(key, save({name: tensor.contiguous() for name, tensor in make().items()}))
        self.made += 1

    def load(self, key: str) -> dict[str, Tensor]:
        """The entry `key`. Raises DataError if it no longer exists or is damaged."""
        if key in self._recent:
            return self._recent[key]
        tensors = self._read(key)
        if tensors is None:
            raise DataError(
                f"{self.path(key)} was removed or damaged during training; start the run again to restore it"
            )
        with suppress(ValueError):  # larger than all that may be kept
            self._recent[key] = tensors
        return tensors

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.tensors"

    def _read(self, key: str) -> dict[str, Tensor] | None:
        from safetensors.torch import load

        try:
            content = self.path(key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"{self._in_the_way(key, error)}; remove it, or name another data.cache") from error
        body = memoryview(content)[_DIGEST:]
        if hashlib.sha256(body).digest() != content[:_DIGEST]:
            return None
        with suppress(SafetensorError):
            return load(bytes(body))
        return None

    def _write(self, key: str, body: bytes) -> None:
        path, partial = self.path(key), None
        try:
            path.parent.mkdir(exist_ok=True)
            descriptor, partial = tempfile.mkstemp(prefix=".partial-", dir=path.parent)
            with os.fdopen(descriptor, "wb") as file:  # no fsync: the checksum shows what a crash truncated
                file.write(hashlib.sha256(body).digest())
                file.write(body)
            open_to_others(Path(partial))  # other users may share the cache
            os.replace(partial, path)
            partial = None
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        finally:
            if partial is not None:
                with suppress(OSError):
                    os.unlink(partial)

    def _in_the_way(self, key: str, error: OSError) -> str:
        """Why the entry `key` can neither be read nor written."""
        path = self.path(key)
        if path.is_dir():
            return f"{shown(str(path))} is a folder where an entry of the cache belongs"
        if path.parent.exists() and not path.parent.is_dir():
            return f"{shown(str(path.parent))} is a file where a folder of the cache belongs"
        return f"{shown(str(path))} cannot be read: {reason(error)}"

    def _sweep(self) -> None:
        """Remove incomplete files of runs that were killed long ago."""
        for partial in self.folder.glob("??/.partial-*"):
            with suppress(OSError):
                if time.time() - partial.stat().st_mtime > _ABANDONED:
                    partial.unlink()


def cache_folder(configured: str, run: Path) -> Path:
    """Where entries are kept: the configured folder, or the run's own. DataError for the home of an unknown user."""
    try:
        return Path(configured).expanduser() if configured else run / "cache"
    except RuntimeError as error:
        raise _unusable(Path(configured), "there is no such user") from error


def check_cache(configured: str) -> None:
    """DataError if the folder that data.cache names cannot hold a cache; writes nothing. "" is the run's own."""
    if configured:
        _check(cache_folder(configured, Path()))


def _check(folder: Path) -> None:
    place = folder
    try:
        while not (status := _status(place)) and place != place.parent:
            place = place.parent
    except (OSError, ValueError) as error:
        raise _unusable(folder, reason(error) if isinstance(error, OSError) else "its name holds a NUL") from error
    if status and not stat.S_ISDIR(status.st_mode):
        raise _unusable(folder, f"{'it' if place == folder else shown(str(place))} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise _unusable(folder, f"writing to {'it' if place == folder else shown(str(place))} is not allowed")


def _status(place: Path) -> os.stat_result | None:
    """The status of `place`, None if it does not exist."""
    try:
        return place.stat()
    except (FileNotFoundError, NotADirectoryError):
        if place.is_symlink():
            raise FileNotFoundError(errno.ENOENT, "a link that leads nowhere") from None
        return None


def _unusable(folder: Path, why: str) -> DataError:
    return DataError(f"cache folder {shown(str(folder))} cannot be used: {why}; name another with data.cache")


def _unwritable(folder: Path, error: OSError) -> StorageError:
    advice = _ADVICE.get(error.errno or 0, "")
    return StorageError(
        f"cache folder {shown(str(folder))} cannot be written: {error.strerror}; {advice}name another with data.cache"
    )


def key_of(**facts: Any) -> str:
    """The key of an entry that depends on `facts` (what JSON can hold) and on nothing else."""
    text = json.dumps({"schema": SCHEMA, **facts}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
