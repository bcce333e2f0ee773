"""A job that is being drawn, or waits for that."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sd_lora.adapters.adapter import Adapter
from sd_lora.errors import ConfigError
from sd_lora.preview.events import PreviewEvent
from sd_lora.preview.job import PreviewJob


@dataclass(eq=False)
class Ticket:
    """A job with the hashes and adapters as they were when it was asked for, its events, and whether anyone still wants
    it. `keys`: what makes each picture, by row and column; `sketched`: whether what is not finished is shown."""

    job: PreviewJob
    hashes: Mapping[Path, str]
    adapters: Mapping[Path, Adapter]
    keys: list[list[Hashable]]
    stopped: threading.Event
    sketched: bool
    events: queue.SimpleQueue[PreviewEvent | BaseException | None] = field(default_factory=queue.SimpleQueue)


def check_each_once(job: PreviewJob, hashes: Mapping[Path, str]) -> None:
    """ConfigError if the same adapter, by whatever name, is asked to act twice on a row."""
    for row in job.rows:
        used = Counter(hashes[mixed.path] for mixed in row.acting)
        twice = [mixed.name for mixed in row.acting if used[hashes[mixed.path]] > 1]
        if twice:
            names = " and ".join(dict.fromkeys(twice))
            raise ConfigError(f"{names} would act twice on one prompt, as the same adapter; leave one out")
