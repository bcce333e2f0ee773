"""Datasets are checked in a separate thread, so that the page can show the progress: at once with the base model that
the page has open, and then, if it is a small one, again with a step timed."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sd_lora.check.result import Check
from sd_lora.config.presets import load_config
from sd_lora.config.schema import RunConfig
from sd_lora.errors import ConfigError

from ...checks import check_folder
from ...site import Site

if TYPE_CHECKING:
    from sd_lora.check.doctor import Looks

_TICK = 0.25
#: datasets of which it is remembered what their pictures look like
_REMEMBERED = 4


class _Abandoned(Exception):
    """Nobody waits for the check any longer."""


class Checker:
    """Checks datasets; pictures that have not changed since the last check are not decoded again."""

    def __init__(self, site: Site) -> None:
        self._site, self._timing, self._remembering = site, threading.Lock(), threading.Lock()
        self._looks: OrderedDict[Path, Looks] = OrderedDict()

    def check(self, folder: Path, trigger: str, *, timed: bool = False) -> Iterator[tuple[int, int] | Check]:
        """From time to time how many pictures are checked and of how many; then the check, and once more with the time
        of a run if that was not known and can be measured soon, or is to be `timed`. SdLoraError."""
        check = None
        for event in self._followed(folder, trigger):
            check = event if isinstance(event, Check) else None
            yield event
        if check is None or check.plan is None or check.plan.seconds is not None:
            return
        if (timed or self._site.service.reader.is_small) and self._timing.acquire(blocking=False):
            try:
                yield check_folder(self._config(folder, trigger), thumbnails=True, looks=self._looks_of(folder))
            finally:
                self._timing.release()

    def quick(self, folder: Path, trigger: str, watch: Any = None) -> Check:
        """The check with the base model that is open; the time of a run only if it is known. SdLoraError."""
        options: Any = {"watch": watch, "base": self._site.service.reader.open_base(), "looks": self._looks_of(folder)}
        return check_folder(self._config(folder, trigger), thumbnails=True, **options)

    def _config(self, folder: Path, trigger: str) -> RunConfig:
        if "," in trigger:
            raise ConfigError(f'the trigger word "{trigger}" contains a comma; give one word, such as inkwash')
        data: dict[str, Any] = {"folder": str(folder), "trigger": trigger}
        return load_config("", options={"model": {"base": self._site.base}, "data": data})

    def _looks_of(self, folder: Path) -> Looks:
        with self._remembering:
            looks = self._looks.setdefault(folder, {})
            self._looks.move_to_end(folder)
            while len(self._looks) > _REMEMBERED:
                self._looks.popitem(last=False)
        return looks

    def _followed(self, folder: Path, trigger: str) -> Iterator[tuple[int, int] | Check]:
        events: queue.SimpleQueue[tuple[int, int] | Check | BaseException] = queue.SimpleQueue()
        abandoned = threading.Event()

        def watch(done: int, total: int) -> None:
            if abandoned.is_set():
                raise _Abandoned
            events.put((done, total))

        def work() -> None:
            try:
                events.put(self.quick(folder, trigger, watch))
            except BaseException as error:  # raised again in the caller's thread
                events.put(error)

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
