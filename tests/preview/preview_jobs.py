"""What the tests of the preview service share: jobs, their pictures, and waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sd_lora.preview.events import PreviewCell
from sd_lora.preview.job import MixedAdapter, PreviewJob, PreviewRow
from sd_lora.preview.service import PreviewService

Maker = Callable[..., Any]
BASE = PreviewRow("a red boat on the sea")
#: a job that takes far longer than whatever is tried while it is drawn
LONG = {"steps": 150, "strengths": tuple(number / 10 for number in range(1, 60))}


def job_of(*mix: Path | MixedAdapter, **settings: Any) -> PreviewJob:
    parts = tuple(m if isinstance(m, MixedAdapter) else MixedAdapter(m) for m in mix)
    return PreviewJob((PreviewRow(BASE.prompt, parts),), **({"steps": 3} | settings))


def pictures(service: PreviewService, job: PreviewJob) -> list[list[bytes]]:
    found: dict[tuple[int, int], bytes] = {}
    for event in service.draw(job):
        if isinstance(event, PreviewCell):
            assert (event.row, event.column) not in found
            found[event.row, event.column] = event.image.tobytes()
    return [[found[r, c] for c in range(len(job.columns))] for r in range(len(job.rows))]


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
