"""One visitor's drawing: runs a job, keeps what is to be shown of it, and can be stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from sd_lora.preview.events import PreviewCell, PreviewProgress, PreviewStopped, PreviewWaiting
from sd_lora.preview.job import PreviewJob
from sd_lora.preview.service import PreviewService
from sd_lora.preview.sheet import PreviewGrid

from .messages import status_html
from .picture_files import picture_file
from .site import Site

#: between two pictures of what is not finished yet
_EVERY = 0.25
#: the status before anything was drawn
NOTHING = status_html("")


def results(name: str, label: str) -> tuple[gr.HTML, gr.Gallery, gr.DownloadButton]:
    """Status, gallery and sheet of what is drawn, empty yet; `shown_of` gives their updates."""
    status = gr.HTML(NOTHING, elem_id=f"{name}-status", padding=False)
    gallery = gr.Gallery(
        label=label,
        columns=3,
        fit_columns=False,
        object_fit="contain",
        height="auto",
        format="png",
        elem_id=f"{name}-gallery",
        interactive=False,
        buttons=["download", "fullscreen"],
    )
    sheet = gr.DownloadButton("Download labelled sheet", size="sm", elem_id=f"{name}-sheet", interactive=False)
    return status, gallery, sheet


class Drawings:
    """The drawings that are going on, one a visitor: a new one stops the one before."""

    def __init__(self) -> None:
        self._stops: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def begin(self, visitor: str) -> threading.Event:
        stop = threading.Event()
        with self._lock:
            before = self._stops.get(visitor)
            self._stops[visitor] = stop
        if before is not None:
            before.set()
        return stop

    def stop(self, request: gr.Request) -> None:
        """Stop the drawing of whoever asks, if there is one."""
        with self._lock:
            stop = self._stops.get(visitor_of(request))
        if stop is not None:
            stop.set()

    def follow(self, site: Site, job: PreviewJob, request: gr.Request) -> Iterator[Progress]:
        """Draw `job` for whoever asks, and say how it goes (`draw`); leaving it stops it."""
        visitor = visitor_of(request)
        stop = self.begin(visitor)
        try:
            yield from draw(site.service, job, stop)
        finally:
            stop.set()
            self.end(visitor, stop)

    def show(self, site: Site, job: PreviewJob, request: gr.Request) -> Iterator[tuple[Any, Any, Any]]:
        """As `follow`, as updates of status, gallery and sheet."""
        for progress in self.follow(site, job, request):
            yield shown_of(site, progress)

    def end(self, visitor: str, stop: threading.Event) -> None:
        with self._lock:
            if self._stops.get(visitor) is stop:
                del self._stops[visitor]


@dataclass
class Progress:
    """What of a job can be shown: pictures by place, a sketch where one is being drawn, and a line."""

    job: PreviewJob
    images: dict[tuple[int, int], Image.Image] = field(default_factory=dict)
    sketches: dict[tuple[int, int], Image.Image] = field(default_factory=dict)
    #: of the adapters' files as they were drawn; None: as they are now
    hashes: Mapping[Path, str] | None = None
    line: str = "starting …"
    #: what is said beside the line
    note: str = ""
    share: float = 0.0
    is_done: bool = False

    @property
    def total(self) -> int:
        return len(self.job.rows) * len(self.job.columns)

    @property
    def is_whole(self) -> bool:
        return len(self.images) == self.total

    def status(self) -> str:
        """The line with its note, and its bar, as HTML."""
        text = "; ".join(filter(None, (self.line, self.note)))
        return status_html(text, None if self.is_done else self.share)

    def grid(self) -> PreviewGrid | None:
        """All pictures as a grid that can be saved as a sheet, once they are there."""
        if not self.is_whole:
            return None
        rows, columns = len(self.job.rows), len(self.job.columns)
        images = tuple(tuple(self.images[row, column] for column in range(columns)) for row in range(rows))
        labels = tuple(row.label or row.prompt for row in self.job.rows)
        return PreviewGrid(labels, self.job.columns, images, {})


def draw(service: PreviewService, job: PreviewJob, stop: threading.Event) -> Iterator[Progress]:
    """Run `job` and say how it goes, the same Progress each time; ends when it is done or was stopped."""
    progress, started, shown = Progress(job), time.monotonic(), 0.0
    try:
        for event in service.draw(job, stop):
            if isinstance(event, PreviewWaiting):
                started = time.monotonic()  # only what is drawn counts
                progress.line = f"{event.ahead} waiting before you"
            elif isinstance(event, PreviewCell):
                progress.sketches.pop((event.row, event.column), None)
                progress.images[event.row, event.column] = event.image
                progress.hashes = event.hashes
            else:
                _take_up(progress, event, started)
            now = time.monotonic()
            if not isinstance(event, PreviewProgress) or now - shown >= _EVERY:
                shown = now
                yield progress
    except PreviewStopped:
        progress.line = f"stopped; {len(progress.images)} of {progress.total} pictures are drawn"
        progress.is_done = True
        progress.sketches.clear()
        yield progress
        return
    progress.line = f"{counted(progress.total)} in {time.monotonic() - started:.1f} s"
    progress.is_done = True
    yield progress


def _take_up(progress: Progress, event: PreviewProgress, started: float) -> None:
    """Take up how far the picture at hand is."""
    done = len(progress.images) + event.step / event.steps
    progress.share = done / progress.total
    remaining = (time.monotonic() - started) * (progress.total - done) / max(done, 1e-6)
    progress.line = (
        f"picture {min(len(progress.images) + 1, progress.total)} of {progress.total}, step {event.step} of "
        f"{event.steps}, about {remaining:.0f} s left"
    )
    if event.sketch is not None:
        progress.sketches[event.row, event.column] = event.sketch


def counted(pictures: int) -> str:
    return f"{pictures} picture{'' if pictures == 1 else 's'}"


def shown_of(site: Site, progress: Progress) -> tuple[Any, Any, Any]:
    """Updates of status, gallery and sheet for how far a job is."""
    cells = []
    for row, asked in enumerate(progress.job.rows):
        for column, strength in enumerate(progress.job.columns):
            label = f"base · {asked.prompt}" if strength == 0 else f"{strength:g} · {asked.label or asked.prompt}"
            if (row, column) in progress.images:
                cells.append((file_of(site, progress, row, column, f"strength-{strength:g}"), label))
            elif (row, column) in progress.sketches:
                cells.append((progress.sketches[row, column], f"{label} …"))
    sheet, grid = gr.update(value=None, interactive=False), progress.grid()
    if grid is not None:
        recipe = site.service.recipe(progress.job, hashes=progress.hashes)
        path = picture_file(site.work, grid.sheet(), recipe, "sheet")
        sheet = gr.update(value=path, interactive=True)
    # of one strength, a row for all prompts
    across = len(progress.job.columns) if len(progress.job.columns) > 1 else min(len(progress.job.rows), 3)
    return progress.status(), gr.update(value=cells, columns=across), sheet


def file_of(site: Site, progress: Progress, row: int, column: int, name: str) -> str:
    """A picture that is drawn, as a file that carries its recipe."""
    recipe = site.service.recipe(progress.job, row, column, hashes=progress.hashes)
    return picture_file(site.work, progress.images[row, column], recipe, name)


def visitor_of(request: gr.Request | None) -> str:
    """The open page that a request comes from."""
    return str(getattr(request, "session_hash", None) or id(request))
