"""Stopping a run from outside: the first signal asks for the end of the step, the second ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from sd_lora.errors import SdLoraError


class RunInterrupted(SdLoraError):
    """A run that was asked to stop and has saved its state; `exit_code` is 128 plus the signal."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class StopSignals:
    """For the length of a ``with`` block the first SIGINT or SIGTERM is kept in `received` (0: none); the second acts
    as usual. Only the main thread receives signals, so nothing changes in any other. `on_first` is called with the
    first, from the signal handler."""

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, on_first: Callable[[int], None] | None = None) -> None:
        self.received, self._on_first = 0, on_first
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in self._SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.received = number
        self._restore()
        if self._on_first is not None:
            self._on_first(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
