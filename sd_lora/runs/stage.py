"""What a run does before its first step, in one line beside the run, for those who look. No torch."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from sd_lora.errors import SdLoraError, printable
from sd_lora.storage.atomic import write_atomically

#: the environment variable that names the file to write to; unset: nobody looks
VARIABLE = "SD_LORA_STAGE"
_EVERY, _LONGEST = 0.5, 200


class Stage:
    """Writes down what a run is doing."""

    def __init__(self) -> None:
        self._file, self._written = os.environ.get(VARIABLE, ""), 0.0

    def say(self, text: str) -> None:
        """What it does from now on, such as ``loading the base model``."""
        if self._file:
            self._written = time.monotonic()
            try:
                write_atomically(Path(self._file), text.encode())
            except (OSError, SdLoraError):
                self._file = ""  # it only informs

    def end(self) -> None:
        """Its steps have begun, which its log shows."""
        if self._file:
            with contextlib.suppress(OSError):
                Path(self._file).unlink(missing_ok=True)
            self._file = ""

    def count(self, what: str, done: int, total: int) -> None:
        """As `say`, with how many of how many are done; not more often than can be read."""
        if done in (0, total) or time.monotonic() - self._written >= _EVERY:
            self.say(f"{what} {done} of {total}")


def stage_in(file: Path) -> str:
    """What was written down last; empty if nothing was."""
    try:
        return printable(file.read_text("utf-8")[:_LONGEST])
    except (OSError, ValueError):
        return ""
