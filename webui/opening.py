"""The preview service of a base model that is still being loaded: the page answers before its base model is there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sd_lora.preview.events import PreviewEvent, PreviewStopped
from sd_lora.preview.job import PreviewJob, PreviewLimits

if TYPE_CHECKING:
    from sd_lora.preview.service import PreviewService

#: seconds between two looks at whether a waiting caller has left
_TICK = 0.1


@dataclass(frozen=True)
class BaseLoading:
    """The event of a job that waits until the base model called `base` is loaded."""

    base: str


class OpeningService:
    """Stands for the PreviewService that `open_service` makes, in a thread of its own, from `start` or first use on.

    What needs the base model waits for it, and raises the SdLoraError with which it could not be opened; `base`, its
    name, and `limits` are known before.
    """

    def __init__(self, base: str, limits: PreviewLimits, open_service: Callable[[], PreviewService]) -> None:
        self.base, self.limits = base, limits
        self._open, self._service = open_service, None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="opening", daemon=True)
        self._starting, self._ended = threading.Lock(), threading.Event()

    @property
    def is_open(self) -> bool:
        return self._service is not None

    def start(self) -> None:
        """Begin to open the base model, unless that has begun."""
        with self._starting:
            if self._thread.ident is None:
                self._thread.start()

    def wait(self) -> PreviewService:
        """The service, once the base model is loaded. Raises what opening it raised."""
        self.start()
        self._ended.wait()
        if self._error is not None:
            raise self._error
        assert self._service is not None
        return self._service

    def draw(
        self, job: PreviewJob, stopped: threading.Event | None = None, *, sketched: bool = True
    ) -> Iterator[PreviewEvent | BaseLoading]:
        """As PreviewService.draw; until the base model is loaded, with a BaseLoading for each moment of waiting."""
        if self.is_open:
            return self.wait().draw(job, stopped, sketched=sketched)
        return self._draw_later(job, stopped, sketched)

    def _draw_later(
        self, job: PreviewJob, stopped: threading.Event | None, sketched: bool
    ) -> Iterator[PreviewEvent | BaseLoading]:
        while not self._ended.wait(_TICK):
            if stopped is not None and stopped.is_set():
                raise PreviewStopped("the preview was stopped")
            yield BaseLoading(self.base)
        yield from self.wait().draw(job, stopped, sketched=sketched)

    def close(self) -> None:
        """End the drawing thread, if there is one."""
        if self._service is not None:
            self._service.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.wait(), name)

    def _work(self) -> None:
        try:
            self._service = self._open()
        except Exception as error:  # it is raised again wherever the service is needed
            self._error = error
        finally:
            self._ended.set()
