"""What the drawing thread does to the pipeline: puts a row's adapters on it, and looks at unfinished pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from PIL import Image
from torch import Tensor

from sd_lora.adapters.adapter import Adapter
from sd_lora.preview.painter import Painter

#: the share of the time of drawing that may go into pictures of what is not finished yet
_SKETCHING = 0.15


class Injected:
    """The adapters of a row on the pipeline for the length of a ``with`` block, which gives their common strength."""

    def __init__(self, pipe: Any, mix: Sequence[tuple[Adapter, Any]]) -> None:
        self._pipe, self._mix, self._stack = pipe, mix, ExitStack()

    def __enter__(self) -> Callable[[Tensor], None]:
        try:
            for number, (adapter, own) in enumerate(self._mix):
                self._stack.enter_context(adapter.injected(self._pipe, own, name=f"mix{number}"))
        except BaseException:
            self._stack.close()
            raise
        return self._set

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _set(self, strengths: Tensor) -> None:
        # One number for all where it can be: at 0 the layers are not even computed.
        value: Any = float(strengths[0]) if len(strengths) == 1 else strengths
        for adapter, _ in self._mix:
            adapter.scale(value)


class Sketcher:
    """Pictures of unfinished drawings, as many as cost little of the time."""

    def __init__(self, painter: Painter) -> None:
        self._painter, self._next = painter, 0.0

    def sketch(self, latents: Tensor) -> Image.Image | None:
        started = time.monotonic()
        if started < self._next:
            return None
        image = self._painter.sketch(latents[:1])[0]
        took = time.monotonic() - started
        self._next = started + took / _SKETCHING
        return image
