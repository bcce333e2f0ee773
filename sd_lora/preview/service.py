"""`PreviewService`: one base model, one thread that draws, any number of callers.

Pipelines and injected adapters are shared state, so nothing but that one thread touches them; callers submit jobs
and read events about them.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor

from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.fit import base_name, modules_of
from sd_lora.config.schema import ModelConfig
from sd_lora.errors import AdapterError, ConfigError, SdLoraError
from sd_lora.models.opening import open_base
from sd_lora.models.schedulers import SCHEDULERS
from sd_lora.preview.caches import AdapterCache, PictureCache
from sd_lora.preview.events import (
    PreviewBusy,
    PreviewCell,
    PreviewEvent,
    PreviewProgress,
    PreviewStopped,
    PreviewWaiting,
)
from sd_lora.preview.job import PreviewJob, PreviewLimits, PreviewRow
from sd_lora.preview.painter import Painter, Strokes, Words
from sd_lora.preview.reading import BaseReader
from sd_lora.preview.recipe import recipe_of, sheet_recipe
from sd_lora.preview.sheet import PreviewGrid
from sd_lora.preview.ticket import Ticket, check_each_once

_TICK = 0.2


class PreviewService:
    """Draws preview jobs on one base model, one after the other, for any number of threads.

    >>> service = PreviewService.open("tiny")
    >>> for event in service.draw(PreviewJob((PreviewRow("a red house", (MixedAdapter(Path("ink.safetensors")),)),))):
    ...     if isinstance(event, PreviewCell):
    ...         event.image.save(f"{event.column}.png")
    """

    def __init__(
        self,
        pipe: Any,
        *,
        limits: PreviewLimits | None = None,
        batch_size: int = 0,
        threads: Callable[[], int] | None = None,
    ) -> None:
        """`batch_size`: the most strengths of a prompt drawn at once; 0: as many as memory holds. `threads` says,
        before a row is drawn, how many processor threads it may use."""
        self._threads, self._most_threads = threads, torch.get_num_threads()
        self.limits = limits or PreviewLimits()
        self.base, self.scheduler = base_name(pipe), type(pipe.scheduler).__name__
        self._painter = Painter(pipe, batch_size)
        family = self._painter.family
        self.size = family.native_size(pipe)
        #: what sides of pictures are multiples of: the pixels of a latent
        self.grain = self.size // family.latent_shape(pipe, (self.size, self.size))[-1]
        self.most_steps = int(pipe.scheduler.config.num_train_timesteps)
        self._pipe, self._modules = pipe, modules_of(pipe)
        self._adapters, self._pictures = AdapterCache(), PictureCache(self.limits.kept)
        #: what other threads may read of the base model meanwhile
        self.reader = BaseReader(pipe, family)
        self._waiting: list[Ticket] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="preview", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls,
        base: str | ModelConfig = "tiny",
        *,
        limits: PreviewLimits | None = None,
        threads: Callable[[], int] | None = None,
    ) -> Self:
        """A service on a base model, loaded to its device. Raises SdLoraError if it cannot be."""
        opened = open_base(base if isinstance(base, ModelConfig) else ModelConfig(base=base))
        pipe = opened.pipe.to(opened.device)
        pipe.set_progress_bar_config(disable=True)
        return cls(pipe, limits=limits, threads=threads)

    def sha256(self, path: Path) -> str:
        """The hash of an adapter file, remembered while it does not change. Raises AdapterError."""
        return self._adapters.sha256(path)

    def misfit(self, path: Path) -> str:
        """Why the adapter at `path` cannot act on this base model, or an empty string; waits for no drawing."""
        try:
            problems = self._adapters.load(path)[1].misfits(self._pipe, self._modules)
        except AdapterError as error:
            return str(error)
        return "; ".join(problems)

    def draw(
        self, job: PreviewJob, stopped: threading.Event | None = None, *, sketched: bool = True
    ) -> Iterator[PreviewEvent]:
        """The events of a job: every PreviewCell of it once, row by row, and its progress between them, now and then
        with a sketch if they are `sketched`.

        Pictures that were drawn before are not drawn again. Leaving the iterator ends the drawing after the current
        step; so does setting `stopped`, with PreviewStopped. Raises SdLoraError, before anything is drawn, for a job
        that is too large, PreviewBusy if too many wait, AdapterError if an adapter does not fit. Adapters are read now;
        their files may change while the job waits.
        """
        job = self._sized(job)
        self.limits.check(job, self.grain, self.most_steps)
        if idle := self._painter.family.idle_words([job.of(row).negative for row in job.rows]):
            raise ConfigError(f"{idle}; leave it out")
        loaded = {path: self._adapters.load(path) for path in job.paths}
        hashes = {path: digest for path, (digest, _) in loaded.items()}
        check_each_once(job, hashes)
        adapters = {path: adapter for path, (_, adapter) in loaded.items()}
        return self._events(Ticket(job, hashes, adapters, job.keys(hashes), stopped or threading.Event(), sketched))

    def drawn(self, job: PreviewJob) -> list[PreviewCell]:
        """The pictures of a job that were drawn before and are still kept, row by row. Raises AdapterError."""
        job = self._sized(job)
        hashes = self._hashes(job)
        return self._cached(job.keys(hashes), hashes)

    def recipe(
        self, job: PreviewJob, row: int | None = None, column: int = 0, *, hashes: Mapping[Path, str] | None = None
    ) -> dict[str, Any]:
        """How the picture at (row, column) is made; without a row, the entire sheet. `hashes`: of the adapters as they
        were drawn, from a PreviewCell; by default, of the files as they are now."""
        job = self._sized(job)
        hashes = self._hashes(job) if hashes is None else hashes
        scheduler = SCHEDULERS.get(job.scheduler, self.scheduler)
        facts = {"base": self.base, "scheduler": scheduler, "sha256": {str(p): h for p, h in hashes.items()}}
        if row is None:
            return sheet_recipe(job, facts)
        return recipe_of(job, job.rows[row], job.columns[column], facts)

    def grid(self, job: PreviewJob, watch: Callable[[int, int], None] | None = None) -> PreviewGrid:
        """All pictures of a job, and the recipe of their sheet; `watch` is called with how many of how many are drawn.
        Raises what `draw` does."""
        images: dict[tuple[int, int], Image.Image] = {}
        hashes: Mapping[Path, str] = {}
        for event in self.draw(job, sketched=False):
            if isinstance(event, PreviewCell):
                images[event.row, event.column], hashes = event.image, event.hashes
                if watch is not None:
                    watch(len(images), len(job.rows) * len(job.columns))
        rows = tuple(tuple(images[row, c] for c in range(len(job.columns))) for row in range(len(job.rows)))
        labels = tuple(row.label or row.prompt for row in job.rows)
        return PreviewGrid(labels, job.columns, rows, self.recipe(job, hashes=hashes))

    def stop(self) -> int:
        """Stop the job that is being drawn and those that wait; how many there were."""
        with self._changed:
            for ticket in self._waiting:
                ticket.stopped.set()
            return len(self._waiting)

    def close(self) -> None:
        """Stop all jobs and end the thread."""
        self.stop()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    # ---- the caller's side

    def _events(self, ticket: Ticket) -> Iterator[PreviewEvent]:
        cached = self._cached(ticket.keys, ticket.hashes)
        if len(cached) == len(ticket.keys) * len(ticket.keys[0]):
            yield from cached
            return
        self._enter(ticket)
        try:
            yield from self._read(ticket)
        finally:
            self._leave(ticket)

    def _leave(self, ticket: Ticket) -> None:
        """Nobody wants the job any more; if it only waits, it is removed at once."""
        ticket.stopped.set()
        with self._changed:
            if ticket in self._waiting[1:]:
                self._waiting.remove(ticket)

    def _enter(self, ticket: Ticket) -> None:
        with self._changed:
            if self._closed:
                raise PreviewBusy("the preview is closing; try again when it runs")
            ahead = len(self._waiting)
            if ahead > self.limits.waiting:
                raise PreviewBusy(f"busy, {ahead - 1} waiting; try again in a while")
            self._waiting.append(ticket)
            self._changed.notify_all()

    def _read(self, ticket: Ticket) -> Iterator[PreviewEvent]:
        reported = 0
        while True:
            try:
                event = ticket.events.get(timeout=_TICK)
            except queue.Empty:
                with self._changed:
                    ahead = self._waiting.index(ticket) if ticket in self._waiting else 0
                if ahead and ticket.stopped.is_set():
                    raise PreviewStopped("the preview was stopped") from None
                if ahead and ahead != reported:
                    reported = ahead
                    yield PreviewWaiting(ahead)
                continue
            if event is None:
                return
            if isinstance(event, BaseException):
                raise event
            yield event

    def _cached(self, keys: list[list[Hashable]], hashes: Mapping[Path, str]) -> list[PreviewCell]:
        images = ((r, c, self._pictures.get(key)) for r, row in enumerate(keys) for c, key in enumerate(row))
        return [PreviewCell(row, column, image, hashes) for row, column, image in images if image is not None]

    def _sized(self, job: PreviewJob) -> PreviewJob:
        return replace(job, width=job.width or self.size, height=job.height or self.size)

    def _hashes(self, job: PreviewJob) -> dict[Path, str]:
        """Of the job's adapter files as they are now. Raises AdapterError."""
        return {path: self.sha256(path) for path in job.paths}

    # ---- the drawing thread's side

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    for ticket in self._waiting:
                        ticket.events.put(PreviewStopped("the preview was closed"))
                    return
                ticket = self._waiting[0]
            ended: BaseException | None = None
            try:
                self._draw_all(ticket)
            except BaseException as error:  # any error goes to the caller, and the next job is drawn
                ended = error.with_traceback(None) if isinstance(error, SdLoraError) else error
            with self._changed:
                self._waiting.remove(ticket)
            ticket.events.put(ended)

    def _draw_all(self, ticket: Ticket) -> None:
        if ticket.stopped.is_set():
            raise PreviewStopped("the preview was stopped")
        self._check_fit(ticket.adapters)
        for number, row in enumerate(ticket.job.rows):
            missing: dict[Hashable, list[int]] = {}
            for column, key in enumerate(ticket.keys[number]):
                image = self._pictures.get(key)
                if image is None:
                    missing.setdefault(key, []).append(column)
                else:
                    ticket.events.put(PreviewCell(number, column, image, ticket.hashes))
            if missing:
                self._draw_row(ticket, number, row, missing)

    def _check_fit(self, adapters: Mapping[Path, Adapter]) -> None:
        problems = {path.name: adapter.misfits(self._pipe, self._modules) for path, adapter in adapters.items()}
        wrong = [f"{n} does not fit base model {self.base}: {'; '.join(each)}" for n, each in problems.items() if each]
        if wrong:
            raise AdapterError("; ".join(wrong))

    def _draw_row(
        self, ticket: Ticket, number: int, row: PreviewRow, missing: Mapping[Hashable, Sequence[int]]
    ) -> None:
        """Draw the pictures of a row that are not cached, each once for all its columns."""
        if self._threads is not None:
            torch.set_num_threads(min(self._most_threads, self._threads()))
        job, columns = ticket.job.of(row), [same[0] for same in missing.values()]
        strokes = Strokes(job.width, job.height, job.steps, job.guidance, job.seed, job.scheduler)
        words = Words(row.prompt, job.negative if job.guidance > 1 else "")

        def on_step(first: int, step: int, latents: Tensor) -> None:
            if ticket.stopped.is_set() or self._closed:
                raise PreviewStopped("the preview was stopped")
            sketch = self._painter.sketch(latents) if ticket.sketched and step < job.steps else None
            ticket.events.put(PreviewProgress(number, columns[first], step, job.steps, sketch))

        mix = [(ticket.adapters[mixed.path], mixed.strength) for mixed in row.acting]
        strengths = [job.columns[column] for column in columns]
        with closing(self._painter.row(words, mix, strengths, strokes, on_step)) as pictures:
            for (key, same), image in zip(missing.items(), pictures, strict=True):
                self._pictures.put(key, image)
                for column in same:
                    ticket.events.put(PreviewCell(number, column, image, ticket.hashes))
