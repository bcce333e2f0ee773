"""A job that is drawn or waits for it."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from sd_lora.adapters.adapter import Adapter
from sd_lora.errors import ConfigError
from sd_lora.preview.events import PreviewCell, PreviewEvent
from sd_lora.preview.job import PreviewJob


@dataclass(eq=False)
class Ticket:
    """What is asked for, with the hashes and adapters as they were then, what has been said of it, and whether anyone
    still wants it. `keys`: what makes each picture, by row and column."""

    job: PreviewJob
    hashes: Mapping[Path, str]
    adapters: Mapping[Path, Adapter]
    keys: list[list[Hashable]]
    stopped: threading.Event
    events: queue.SimpleQueue[PreviewEvent | BaseException | None] = field(default_factory=queue.SimpleQueue)

    def cell(self, row: int, column: int, image: Image.Image, *, cached: bool = False) -> PreviewCell:
        """The event of a picture that is finished."""
        return PreviewCell(row, column, image, cached, self.hashes)


def check_each_once(job: PreviewJob, hashes: Mapping[Path, str]) -> None:
    """ConfigError if the same adapter, by whatever name, is asked to act twice on a row."""
    for row in job.rows:
        used = Counter(hashes[mixed.path] for mixed in row.acting)
        twice = [mixed.name for mixed in row.acting if used[hashes[mixed.path]] > 1]
        if twice:
            names = " and ".join(dict.fromkeys(twice))
            raise ConfigError(f"{names} would act twice on one prompt, as the same adapter; leave one out")
