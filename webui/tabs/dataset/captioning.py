"""Captions drafted by a captioning model, in a thread, so that the page can show how far it is."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sd_lora.errors import ConfigError
from sd_lora.tools.caption import CaptionReport, caption_folder

_drafting = threading.Lock()


def draft(folder: Path, model: str) -> Iterator[tuple[int, int] | CaptionReport]:
    """How many of how many pictures without a caption are described; at the end what was written. SdLoraError."""
    if not _drafting.acquire(blocking=False):
        raise ConfigError("captions are being drafted already; try again when that is done")
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def work() -> None:
        try:
            events.put(caption_folder(folder, model, watch=lambda done, total: events.put((done, total))))
        except BaseException as error:  # raised again in the caller's thread
            events.put(error)
        finally:
            _drafting.release()

    threading.Thread(target=work, name="captioning", daemon=True).start()
    while True:
        event = events.get()
        if isinstance(event, BaseException):
            raise event
        yield event
        if isinstance(event, CaptionReport):
            return


def taken_back(folder: Path, written: list[tuple[str, str]]) -> Callable[[], None]:
    """What removes the drafts that were `written`, but for those that have been changed since."""

    def take_back() -> None:
        for name, caption in written:
            for file in (folder / name).parent.glob("*.txt"):
                if file.stem in (Path(name).stem, Path(name).name) and file.read_text("utf-8") == f"{caption}\n":
                    file.unlink()

    return take_back
