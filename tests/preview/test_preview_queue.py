"""Many callers of one preview service: each gets what one gets alone, waits in order, and can stop."""

from __future__ import annotations

import contextlib
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from preview_jobs import LONG, job_of, pictures, until

from sd_lora.preview.events import PreviewBusy, PreviewProgress, PreviewStopped, PreviewWaiting
from sd_lora.preview.job import MixedAdapter, PreviewJob, PreviewLimits, PreviewRow
from sd_lora.preview.service import PreviewService


@pytest.mark.slow
def test_many_callers_get_what_one_gets_alone(random_sd_folder: Path, files: list[Path]) -> None:
    draw = random.Random(7)
    jobs = [
        PreviewJob(
            tuple(PreviewRow(draw.choice(["a boat", "a cup", "a house"]), tuple(
                MixedAdapter(path, draw.choice([0.5, 1.0, {"unet": {"up": 0.3}}]))
                for path in draw.sample(files, draw.randrange(3))
            )) for _ in range(draw.randrange(1, 3))),
            tuple(draw.sample([0.0, 0.3, 0.7, 1.0, 1.4], draw.randrange(1, 3))), steps=draw.choice([1, 2]),
            seed=draw.randrange(3),
        )
        for _ in range(150)
    ]  # fmt: skip
    alone = PreviewService.open(str(random_sd_folder))
    expected = [pictures(alone, job) for job in jobs]
    alone.close()
    crowd = PreviewService.open(str(random_sd_folder))
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda job: pictures(crowd, job), jobs))
    crowd.close()
    assert sum(a != b for a, b in zip(expected, found, strict=True)) == 0


def test_whoever_leaves_or_is_stopped_waits_no_longer(service: PreviewService, files: list[Path]) -> None:
    started = threading.Event()

    def occupy() -> None:
        with contextlib.suppress(PreviewStopped):
            for event in service.draw(job_of(files[0], **LONG)):
                if isinstance(event, PreviewProgress):
                    started.set()

    thread = threading.Thread(target=occupy)
    thread.start()
    assert started.wait(60)
    left = service.draw(job_of(files[1]))
    assert isinstance(next(left), PreviewWaiting)
    left.close()
    assert len(service._waiting) == 1
    stop = threading.Event()
    stopped = service.draw(job_of(files[1]), stop)
    next(stopped)
    stop.set()
    with pytest.raises(PreviewStopped):
        next(stopped)
    assert len(service._waiting) == 1
    service.stop()
    thread.join(60)


def test_whoever_waits_is_told_how_many_come_first(service: PreviewService, files: list[Path]) -> None:
    slow, told, started = job_of(files[0], **LONG), list[int](), threading.Event()

    def occupy() -> None:
        with contextlib.suppress(PreviewStopped):
            for _ in service.draw(slow):
                started.set()

    def wait() -> None:
        for event in service.draw(job_of(files[1])):
            if isinstance(event, PreviewWaiting):
                told.append(event.ahead)
                service.stop()

    first = threading.Thread(target=occupy, daemon=True)
    first.start()
    assert started.wait(60)
    with pytest.raises(PreviewStopped):
        wait()
    assert told == [1]
    first.join(60)


def test_when_too_many_wait_the_next_is_refused_with_their_number(random_sd: Any, files: list[Path]) -> None:
    service = PreviewService(random_sd, limits=PreviewLimits(waiting=2))
    held = [service.draw(job_of(files[0], seed=seed, **LONG)) for seed in range(3)]

    def read(events: Any) -> None:
        with contextlib.suppress(PreviewStopped):
            list(events)

    threads = [threading.Thread(target=read, args=(events,), daemon=True) for events in held]
    for number, thread in enumerate(threads, 1):
        thread.start()
        until(lambda n=number: len(service._waiting) == n)
    with pytest.raises(PreviewBusy, match="busy, 2 waiting"):
        next(service.draw(job_of(files[0], seed=9)))
    service.close()


def test_stop_acts_within_two_steps_and_the_next_job_is_right(
    service: PreviewService, files: list[Path], random_sd: Any
) -> None:
    expected = pictures(service, job_of(files[1], strengths=(1.0,)))
    draw, steps = random.Random(1), list[None]()
    random_sd.unet.register_forward_pre_hook(lambda *_: steps.append(None))
    for number in range(30):
        stop, after, then = threading.Event(), draw.randrange(1, 40), 0
        with contextlib.suppress(PreviewStopped):
            for event in service.draw(job_of(files[0], steps=50, seed=100 + number), stop):
                if isinstance(event, PreviewProgress) and event.step >= after and not stop.is_set():
                    stop.set()
                    then = len(steps)  # events may be behind what is drawn
        assert len(steps) - then <= 2
        until(lambda: len(service._waiting) == 0)
        fresh = job_of(files[1], strengths=(1.0,), seed=200 + number)
        assert pictures(service, fresh)[0][1] != expected[0][1]
        assert pictures(service, job_of(files[1], strengths=(1.0,))) == expected


def test_whoever_leaves_stops_the_drawing(service: PreviewService, files: list[Path]) -> None:
    drawing = service.draw(job_of(files[0], **LONG))
    assert next(drawing)
    drawing.close()
    until(lambda: len(service._waiting) == 0, 20)
    assert len(pictures(service, job_of(files[0]))[0]) == 3


def test_a_closed_service_ends_its_jobs_and_takes_no_more(random_sd: Any, files: list[Path]) -> None:
    service = PreviewService(random_sd)
    drawing = service.draw(job_of(files[0], **LONG))
    assert next(drawing)
    service.close()
    with pytest.raises(PreviewStopped):
        list(drawing)
    with pytest.raises(PreviewBusy, match="closing"):
        next(service.draw(job_of(files[0])))
