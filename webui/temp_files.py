"""Keeps the page's private folder of files below a quota; Gradio's own cleaning fails under load."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

#: bytes it may hold, seconds after which an unused file is deleted, and seconds for which it is always kept
QUOTA, OLD, YOUNG = 512 * 2**20, 3600.0, 120.0
#: seconds between two sweeps
_EVERY = 30.0


class Janitor:
    """Cleans up `folder` regularly, in its own thread."""

    def __init__(self, folder: Path, *, quota: int = QUOTA) -> None:
        self.folder, self.quota = folder, quota
        self._thread = threading.Thread(target=self._work, name="janitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _work(self) -> None:
        while True:
            time.sleep(_EVERY)
            self.sweep()

    def sweep(self) -> int:
        """Delete old files, then the oldest ones beyond the quota; returns how many bytes remain."""
        now, files = time.time(), []
        for path in list(self.folder.rglob("*")):
            with contextlib.suppress(OSError):
                facts = path.stat()
                if path.is_file() and not path.is_symlink():
                    files.append((facts.st_mtime, facts.st_size, path))
        total = sum(size for _, size, _ in files)
        for changed, size, path in sorted(files):
            if now - changed < YOUNG or (now - changed < OLD and total <= self.quota):
                break
            with contextlib.suppress(OSError):
                path.unlink()
                total -= size
        return total
