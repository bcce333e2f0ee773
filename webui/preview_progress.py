"""One visitor's drawing: runs a job, keeps what is shown of it, and can be stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from PIL import Image

from sd_lora.preview.events import PreviewCell, PreviewProgress, PreviewStopped, PreviewWaiting
from sd_lora.preview.job import PreviewJob
from sd_lora.preview.sheet import PreviewGrid

from .cached_files import picture_file
from .components import gallery, html_field
from .messages import count_of, status_html
from .opening import BaseLoading
from .site import Site

if TYPE_CHECKING:
    from sd_lora.preview.service import PreviewService

#: seconds between two updates of an unfinished picture
_EVERY = 0.25
#: ways to enlarge small pictures, and the pixels of their longer side afterwards, at most
ENLARGING, _LARGE = {"smooth": Image.Resampling.LANCZOS, "pixels": Image.Resampling.NEAREST}, 512
#: the status before anything was drawn
NOTHING = status_html("")


def result_components(name: str, label: str) -> tuple[gr.HTML, gr.Gallery, gr.DownloadButton]:
    """Status, gallery and sheet of what is drawn, still empty; `updates_of` gives their updates."""
    return (
        html_field(f"{name}-status", NOTHING),
        gallery(f"{name}-gallery", label, 3),
        gr.DownloadButton("Download labelled sheet", size="sm", elem_id=f"{name}-sheet", interactive=False),
    )


class Drawings:
    """The drawings in progress, one per visitor: a new one stops the previous one."""

    def __init__(self) -> None:
        self._stops: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def begin(self, visitor: str) -> threading.Event:
        stop = threading.Event()
        with self._lock:
            previous = self._stops.get(visitor)
            self._stops[visitor] = stop
        if previous is not None:
            previous.set()
        return stop

    def stop(self, request: gr.Request) -> None:
        """Stop the drawing of this visitor, if there is one."""
        with self._lock:
            stop = self._stops.get(visitor_of(request))
        if stop is not None:
            stop.set()

    def follow(self, site: Site, job: PreviewJob, request: gr.Request) -> Iterator[Progress]:
        """Draw `job` for this visitor and report on it, the same Progress each time; closing this stops the drawing."""
        visitor = visitor_of(request)
        stop = self.begin(visitor)
        try:
            yield from _draw(site.service, job, stop)
        finally:
            stop.set()
            with self._lock:
                if self._stops.get(visitor) is stop:
                    del self._stops[visitor]

    def show(
        self, site: Site, job: PreviewJob, request: gr.Request, note: str = "", enlarging: str = ""
    ) -> Iterator[tuple[Any, Any, Any]]:
        """As `follow`, as updates of status, gallery and sheet, with `note` in the status."""
        for progress in self.follow(site, job, request):
            progress.note, progress.enlarging = note, enlarging
            yield updates_of(site, progress)


@dataclass
class Progress:
    """What can be shown of a job: pictures by place, a sketch where one is being drawn, and a line of status."""

    job: PreviewJob
    images: dict[tuple[int, int], Image.Image] = field(default_factory=dict)
    sketches: dict[tuple[int, int], Image.Image] = field(default_factory=dict)
    #: of the adapters' files when they were drawn with; None: of the files as they are now
    hashes: Mapping[Path, str] | None = None
    line: str = "starting …"
    #: added to the line
    note: str = ""
    #: how small pictures are enlarged, a key of `ENLARGING`
    enlarging: str = ""
    share: float = 0.0
    is_done: bool = False

    @property
    def total(self) -> int:
        return len(self.job.rows) * len(self.job.columns)

    @property
    def is_complete(self) -> bool:
        return len(self.images) == self.total

    def finish(self, line: str) -> None:
        self.line, self.is_done = line, True
        self.sketches.clear()

    def status(self) -> str:
        """The line with its note, and its bar, as HTML."""
        text = "; ".join(filter(None, (self.line, self.note, *self.job.notes)))
        said = text if self.is_done or not self.share else f"picture {len(self.images) + 1} of {self.total}"
        return status_html(text, None if self.is_done else self.share, said)

    def grid(self) -> PreviewGrid | None:
        """All pictures as a grid that can be saved as a sheet, once it is complete."""
        if not self.is_complete:
            return None
        rows, columns = len(self.job.rows), len(self.job.columns)
        images = tuple(tuple(self.images[row, column] for column in range(columns)) for row in range(rows))
        labels = tuple(row.label or row.prompt for row in self.job.rows)
        return PreviewGrid(labels, self.job.columns, images, {})

    def update(self, event: PreviewProgress, started: float) -> None:
        """Note how far the current picture is; `started`: when drawing began."""
        number, done = len(self.images), len(self.images) + event.step / event.steps
        self.share = done / self.total
        remaining = (time.monotonic() - started) * (self.total - done) / max(done, 1e-6)
        self.line = (
            f"picture {min(number + 1, self.total)} of {self.total}, step {event.step} of {event.steps}, "
            f"about {remaining:.0f} s left"
        )
        if event.sketch is not None:
            self.sketches[event.row, event.column] = event.sketch


def _draw(service: PreviewService, job: PreviewJob, stop: threading.Event) -> Iterator[Progress]:
    progress, started, shown = Progress(job), time.monotonic(), 0.0
    try:
        for event in service.draw(job, stop):
            if isinstance(event, PreviewWaiting):
                started = time.monotonic()  # waiting does not count as drawing
                progress.line = f"{event.ahead} waiting before you"
            elif isinstance(event, BaseLoading):
                started = time.monotonic()
                progress.line = f"loading the base model {event.base} …"
            elif isinstance(event, PreviewCell):
                progress.sketches.pop((event.row, event.column), None)
                progress.images[event.row, event.column] = event.image
                progress.hashes = event.hashes
            else:
                progress.update(event, started)
            now = time.monotonic()
            if not isinstance(event, PreviewProgress) or now - shown >= _EVERY:
                shown = now
                yield progress
    except PreviewStopped:
        progress.finish(f"stopped; {len(progress.images)} of {progress.total} pictures are drawn")
    else:
        progress.finish(f"{count_of(progress.total, 'picture')} in {time.monotonic() - started:.1f} s")
    yield progress


def updates_of(site: Site, progress: Progress) -> tuple[Any, Any, Any]:
    """Updates of status, gallery and sheet."""
    cells = []
    for row, content in enumerate(progress.job.rows):
        for column, strength in enumerate(progress.job.columns):
            label = f"base · {content.prompt}" if strength == 0 else f"{strength:g} · {content.label or content.prompt}"
            if (row, column) in progress.images:
                cells.append((file_of(site, progress, row, column, f"strength-{strength:g}"), label))
            elif (row, column) in progress.sketches:
                cells.append((progress.sketches[row, column], f"{label} …"))
    sheet, grid = gr.update(value=None, interactive=False), progress.grid()
    if grid is not None:
        recipe = site.service.recipe(progress.job, hashes=progress.hashes)
        sheet = gr.update(value=picture_file(site.work, grid.sheet(), recipe, "sheet"), interactive=True)
    # with a single strength, the prompts share a row
    columns = len(progress.job.columns) if len(progress.job.columns) > 1 else min(len(progress.job.rows), 3)
    return progress.status(), gr.update(value=cells, columns=columns), sheet


def file_of(site: Site, progress: Progress, row: int, column: int, name: str) -> str:
    """A drawn picture, enlarged as asked, as a file that carries its recipe."""
    recipe = site.service.recipe(progress.job, row, column, hashes=progress.hashes)
    return picture_file(site.work, enlarged(progress.images[row, column], progress.enlarging), recipe, name)


def enlarged(image: Image.Image, how: str) -> Image.Image:
    """`image` at the greatest integer factor at which its sides have at most `_LARGE` pixels, in the way that `how`
    names; itself, if that is none or too large already."""
    factor = _LARGE // max(image.size)
    if factor < 2 or how not in ENLARGING:
        return image
    return image.resize((image.width * factor, image.height * factor), ENLARGING[how])


def visitor_of(request: gr.Request | None) -> str:
    """The open page that a request comes from."""
    return str(getattr(request, "session_hash", None) or id(request))
