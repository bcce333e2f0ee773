"""The bar that shows a training in a notebook or on a terminal, with the loss as it falls."""

from __future__ import annotations

import sys
from collections import deque
from math import fsum
from typing import Any, Self

from sd_lora.runs.reports import StepReport


class Bar:
    """A bar of tqdm, for the length of a ``with`` block: while images and captions are encoded, then by steps with the
    mean loss of the last twentieth. Where nobody watches, such as in a program whose output goes to a file, nothing."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._losses = deque[float]()

    def __enter__(self) -> Self:
        if "ipykernel" in sys.modules or sys.stderr.isatty():
            from tqdm.auto import tqdm

            self._bar = tqdm(desc="encoding", unit="image")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def encoding(self, done: int, total: int) -> None:
        """Show how many of how many images and captions have been encoded."""
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(done - self._bar.n)
            if done == total:
                self._bar.refresh()

    def show(self, report: StepReport) -> None:
        """Show the report of a step."""
        if self._bar is None:
            return
        if not self._losses:
            self._bar.unit = "step"
            self._bar.set_description("training", refresh=False)
            self._bar.reset(report.steps)
            self._bar.initial = report.step - 1  # of a resumed run, so that the rate is that of its own steps
            self._bar.n = report.step - 1
        self._losses.append(report.loss)
        while len(self._losses) > max(1, report.steps // 20):
            self._losses.popleft()
        self._bar.set_postfix_str(f"loss {fsum(self._losses) / len(self._losses):.4f}", refresh=False)
        self._bar.update()
