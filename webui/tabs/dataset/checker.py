"""Datasets are checked one at a time, in a separate thread, so that the page can show the progress."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sd_lora.check.result import Check
from sd_lora.config.presets import load_config
from sd_lora.errors import ConfigError

from ...checks import check_folder
from ...site import Site

_TICK = 0.25


class _Abandoned(Exception):
    """Nobody waits for the check any longer."""


class Checker:
    """Checks datasets, one at a time: each loads the base model and uses every core."""

    def __init__(self, site: Site) -> None:
        self._site, self._busy = site, threading.Lock()

    def check(self, folder: Path, trigger: str) -> Iterator[tuple[int, int] | Check]:
        """From time to time how many pictures are checked and of how many; at the end the check. SdLoraError."""
        if "," in trigger:
            raise ConfigError(f'the trigger word "{trigger}" contains a comma; give one word, such as inkwash')
        data: dict[str, Any] = {"folder": str(folder), "trigger": trigger}
        config = load_config("", options={"model": {"base": self._site.base}, "data": data})
        if not self._busy.acquire(blocking=False):
            raise ConfigError("another dataset is being checked; try again when that is done")
        events: queue.SimpleQueue[tuple[int, int] | Check | BaseException] = queue.SimpleQueue()
        abandoned = threading.Event()

        def watch(done: int, total: int) -> None:
            if abandoned.is_set():
                raise _Abandoned
            events.put((done, total))

        def work() -> None:
            try:
                events.put(check_folder(config, thumbnails=True, watch=watch))
            except BaseException as error:  # raised again in the caller's thread
                events.put(error)
            finally:
                self._busy.release()

        threading.Thread(target=work, name="check", daemon=True).start()
        try:
            yield from _latest(events)
        finally:
            abandoned.set()


def _latest(events: queue.SimpleQueue[Any]) -> Iterator[tuple[int, int] | Check]:
    """The events up to the check; of those in quick succession only the last."""
    while True:
        event = events.get()
        with contextlib.suppress(queue.Empty):
            while isinstance(event, tuple):
                event = events.get_nowait()
        if isinstance(event, BaseException):
            raise event
        yield event
        if isinstance(event, Check):
            return
        time.sleep(_TICK)
