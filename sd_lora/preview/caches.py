"""What the service keeps: adapters that it has read, and pictures that it has drawn."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Hashable
from pathlib import Path

from cachetools import LRUCache
from PIL import Image

from sd_lora.adapters.adapter import Adapter
from sd_lora.errors import AdapterError

#: a file as long as it stays the same: name, place on the disk, size, and when it and its entry were changed
_Version = tuple[str, int, int, int, int]
_TRIES = 3


class PictureCache:
    """The pictures used last, by everything that makes them what they are, up to a number of bytes; safe to use from
    several threads. Pictures must not be changed by who gets them."""

    def __init__(self, most_bytes: int) -> None:
        self._images: LRUCache[Hashable, Image.Image] = LRUCache(
            most_bytes, getsizeof=lambda image: image.width * image.height * len(image.getbands())
        )
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Image.Image | None:
        with self._lock:
            return self._images.get(key)

    def put(self, key: Hashable, image: Image.Image) -> None:
        with self._lock, contextlib.suppress(ValueError):  # larger than the entire cache
            self._images[key] = image


class AdapterCache:
    """The adapters used last, by the sha256 of their files; hashes are kept as long as a file stays the same."""

    def __init__(self) -> None:
        self._adapters: LRUCache[str, Adapter] = LRUCache(8)
        self._hashes: LRUCache[_Version, str] = LRUCache(10_000)
        self._lock = threading.Lock()

    def sha256(self, path: Path) -> str:
        """The hash of the file at `path`. Raises AdapterError if it cannot be read."""
        return self._hash(path)[1]

    def load(self, path: Path) -> tuple[str, Adapter]:
        """The hash of the file at `path` and the adapter in it. Raises AdapterError unless it is complete."""
        for _ in range(_TRIES):
            version, digest = self._hash(path)
            with self._lock:
                if (known := self._adapters.get(digest)) is not None:
                    return digest, known
            try:
                adapter = Adapter.load(path)
            except AdapterError as error:  # its folder is not for everyone who may see the message
                raise AdapterError(str(error).replace(str(path), path.name)) from error
            if self._hash(path)[0] == version:  # what was loaded is what was hashed
                with self._lock:
                    self._adapters[digest] = adapter
                return digest, adapter
        raise AdapterError(f"{path.name} is being written; try again in a moment")

    def _hash(self, path: Path) -> tuple[_Version, str]:
        try:
            facts = path.stat()
            version = (str(path), facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
            with self._lock:
                known = self._hashes.get(version)
            if known is None:
                with path.open("rb") as file:
                    known = hashlib.file_digest(file, "sha256").hexdigest()
                with self._lock:
                    self._hashes[version] = known
        except OSError as error:
            raise AdapterError(f"{path.name} cannot be read: {error.strerror or error}; choose another") from error
        return version, known
