"""Adapters that the service has read: each file once, as long as it stays the same."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from pathlib import Path

from sd_lora.adapter import Adapter
from sd_lora.errors import AdapterError


class AdapterShelf:
    """The adapters used last, by the sha256 of their files; hashes are kept by name, size and time of change."""

    def __init__(self, most: int = 8) -> None:
        self._most = most
        self._adapters: OrderedDict[str, Adapter] = OrderedDict()
        self._hashes: dict[tuple[str, int, int], str] = {}
        self._lock = threading.Lock()

    def sha256(self, path: Path) -> str:
        """The hash of the file at `path`. Raises AdapterError if it cannot be read."""
        try:
            facts = path.stat()
            key = (str(path), facts.st_size, facts.st_mtime_ns)
            with self._lock:
                known = self._hashes.get(key)
            if known is None:
                with path.open("rb") as file:
                    known = hashlib.file_digest(file, "sha256").hexdigest()
                with self._lock:
                    self._hashes[key] = known
        except OSError as error:
            raise AdapterError(f"{path.name} cannot be read: {error.strerror or error}; choose another") from error
        return known

    def load(self, path: Path) -> Adapter:
        """The adapter at `path`. Raises AdapterError for what is no whole adapter."""
        digest = self.sha256(path)
        with self._lock:
            if digest in self._adapters:
                self._adapters.move_to_end(digest)
                return self._adapters[digest]
        try:
            adapter = Adapter.load(path)
        except AdapterError as error:  # where it lies is not for everyone who may see the message
            raise AdapterError(str(error).replace(str(path), path.name)) from error
        with self._lock:
            self._adapters[digest] = adapter
            while len(self._adapters) > self._most:
                self._adapters.popitem(last=False)
        return adapter
