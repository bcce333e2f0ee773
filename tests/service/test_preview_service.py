"""The preview service: whoever asks, however many at once, gets the picture that was asked for."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sd_lora import (
    AdapterError,
    ConfigError,
    MixedAdapter,
    PreviewBusy,
    PreviewCell,
    PreviewJob,
    PreviewLimits,
    PreviewProgress,
    PreviewRow,
    PreviewService,
    PreviewStopped,
    PreviewWaiting,
)

Maker = Callable[..., Any]
BASE = PreviewRow("a red boat on the sea")


@pytest.fixture
def service(random_sd: Any) -> Iterator[PreviewService]:
    random_sd.set_progress_bar_config(disable=True)
    made = PreviewService(random_sd)
    yield made
    made.close()


@pytest.fixture
def files(random_sd: Any, trained_adapter: Maker, tmp_path: Path) -> list[Path]:
    """Three adapters that act: of other ranks and targets, and one of the text encoder too."""
    kinds = (("attn",), ("attn", "ff"), ("attn", "conv"))
    paths = []
    for number, targets in enumerate(kinds):
        adapter = trained_adapter(random_sd, *targets, rank=number + 2, std=0.2)
        paths.append(adapter.save(tmp_path / f"{number}.safetensors"))
    return paths


def job_of(*mix: Path | MixedAdapter, **settings: Any) -> PreviewJob:
    parts = tuple(m if isinstance(m, MixedAdapter) else MixedAdapter(m) for m in mix)
    return PreviewJob((PreviewRow(BASE.prompt, parts),), **({"steps": 3} | settings))


#: a job that takes far longer than whatever is tried while it is drawn
LONG = {"steps": 150, "strengths": tuple(number / 10 for number in range(1, 60))}


def pictures(service: PreviewService, job: PreviewJob) -> list[list[bytes]]:
    found: dict[tuple[int, int], bytes] = {}
    for event in service.draw(job):
        if isinstance(event, PreviewCell):
            assert (event.row, event.column) not in found
            found[event.row, event.column] = event.image.tobytes()
    return [[found[r, c] for c in range(len(job.columns))] for r in range(len(job.rows))]


# ---- what is drawn


def test_strength_0_is_the_base_and_comes_first(service: PreviewService, files: list[Path], random_sd: Any) -> None:
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(3))
    base = random_sd(BASE.prompt, latents=noise, guidance_scale=5.0, num_inference_steps=3).images[0]
    for mix in ((), files[:1], files):
        row = pictures(service, job_of(*mix, strengths=(1.0, 0.5), seed=3))[0]
        assert len(row) == 3
        assert row[0] == base.tobytes()
        assert len(set(row)) == (3 if mix else 1)


def test_a_mix_is_the_adapters_injected_together(service: PreviewService, files: list[Path], random_sd: Any) -> None:
    from sd_lora import Adapter

    own = {"unet": {"down": 0.5, "up": 1.5}}
    job = job_of(MixedAdapter(files[0], 0.6), MixedAdapter(files[1], own), strengths=(0.5,))
    drawn = pictures(service, job)[0][1]
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    one, two = Adapter.load(files[0]), Adapter.load(files[1])
    halves = {"unet": {"down": 0.25, "up": 0.75, "mid": 0.5}}
    with one.injected(random_sd, 0.3, name="a"), two.injected(random_sd, halves, name="b"):
        # a part that is left out of a mapping has strength 1, and so half of it at 0.5
        expected = random_sd(BASE.prompt, latents=noise, guidance_scale=5.0, num_inference_steps=3).images[0]
    assert drawn == expected.tobytes()


def test_everything_that_makes_a_picture_makes_another(service: PreviewService, files: list[Path]) -> None:
    plain = job_of(files[0], strengths=(1.0,))
    others = [
        replace(plain, seed=1), replace(plain, steps=4), replace(plain, guidance=2.0), replace(plain, negative="a cat"),
        replace(plain, width=24), replace(plain, height=24), replace(plain, strengths=(0.9,)),
        replace(plain, rows=(PreviewRow("a cup", plain.rows[0].mix),)), job_of(files[1], strengths=(1.0,)),
        job_of(MixedAdapter(files[0], {"unet": {"up": 0.5}}), strengths=(1.0,)), job_of(*files[:2], strengths=(1.0,)),
    ]  # fmt: skip
    assert len({pictures(service, job)[0][1] for job in (plain, *others)}) == 12


def test_a_file_that_changes_is_drawn_anew(
    service: PreviewService, files: list[Path], random_sd: Any, trained_adapter: Maker
) -> None:
    job = job_of(files[0], strengths=(1.0,))
    before = pictures(service, job)
    files[0].write_bytes(files[1].read_bytes())
    after = pictures(service, job)
    assert after[0][0] == before[0][0]
    assert after[0][1] != before[0][1]
    assert after == pictures(service, job_of(files[1], strengths=(1.0,)))


def test_what_was_drawn_comes_at_once_whoever_draws(service: PreviewService, files: list[Path]) -> None:
    job = job_of(files[0], strengths=(0.5, 1.0))
    first = pictures(service, job)
    assert [[image.tobytes() for image in row if image] for row in service.drawn(job)] == first
    assert service.drawn(replace(job, seed=9)) == [[None, None, None]]
    [[base, half, whole, more]] = service.drawn(replace(job, strengths=(0.5, 1.0, 1.5)))
    assert None not in (base, half, whole)
    assert more is None
    long, started = job_of(files[1], seed=5, **LONG), threading.Event()

    def occupy() -> None:
        for event in service.draw(long):
            if isinstance(event, PreviewProgress):
                started.set()

    thread = threading.Thread(target=occupy)
    thread.start()
    assert started.wait(60)
    events = list(service.draw(job))
    assert service.waiting == 1
    assert all(isinstance(event, PreviewCell) and event.cached for event in events)
    assert pictures(service, job) == first
    service.stop()
    thread.join(60)


def test_no_more_pictures_are_kept_than_was_asked_for(random_sd: Any) -> None:
    random_sd.set_progress_bar_config(disable=True)
    made = PreviewService(random_sd, limits=PreviewLimits(kept=2 * 3 * 64 * 64))
    jobs = [PreviewJob((BASE,), (0.0,), seed=seed, steps=1, width=64, height=64) for seed in range(3)]
    for job in jobs:
        list(made.draw(job))
    assert [made.drawn(job)[0][0] is not None for job in jobs] == [False, True, True]
    made.close()


def test_pictures_of_what_is_not_finished_are_shown(service: PreviewService, files: list[Path]) -> None:
    events = list(service.draw(job_of(files[0], steps=10)))
    steps = [event for event in events if isinstance(event, PreviewProgress)]
    assert [event.step for event in steps] == list(range(1, 11)) * 3
    sketches = [event.sketch for event in steps if event.sketch is not None]
    assert sketches
    assert sketches[0].size == (16, 16)


# ---- many at once


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


def test_the_first_column_is_the_base_whatever_the_strengths_by_block(
    service: PreviewService, files: list[Path]
) -> None:
    [[base]] = pictures(service, PreviewJob((BASE,), (0.0,), steps=3))
    service._cells = type(service._cells)(1)  # nothing is at hand
    [[zero, half]] = pictures(service, job_of(MixedAdapter(files[1], {"unet": {"up": 0.3}}), strengths=(0.5,)))
    halved = MixedAdapter(files[1], {"unet": {"up": 0.15, "down": 0.5, "mid": 0.5}})
    [[_, given]] = pictures(service, job_of(halved, strengths=(1.0,)))
    assert zero == base
    assert half == given != base


def test_a_file_that_changes_while_its_job_waits_is_drawn_as_it_was(
    service: PreviewService, files: list[Path], tmp_path: Path
) -> None:
    mine = tmp_path / "mine.safetensors"
    shutil.copyfile(files[0], mine)
    waiting = service.draw(job_of(mine))
    os.replace(shutil.copyfile(files[1], tmp_path / "new"), mine)
    cells = [event for event in waiting if isinstance(event, PreviewCell)]
    drawn = [cell.image.tobytes() for cell in cells]
    assert {cell.hashes[mine] for cell in cells} == {service.sha256(files[0])} != {service.sha256(mine)}
    recipe = service.recipe(job_of(mine), 0, 1, hashes=cells[1].hashes)
    assert recipe["adapters"][0]["sha256"] == service.sha256(files[0])
    service._cells = type(service._cells)(1)
    assert [drawn] == pictures(service, job_of(files[0]))
    assert pictures(service, job_of(mine)) == pictures(service, job_of(files[1]))


def test_a_file_rewritten_in_place_at_the_same_time_is_another(service: PreviewService, files: list[Path]) -> None:
    before, facts = service.sha256(files[0]), files[0].stat()
    content = bytearray(files[0].read_bytes())
    content[-1] ^= 1
    files[0].write_bytes(content)
    os.utime(files[0], ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert service.sha256(files[0]) != before


def test_one_adapter_under_two_names_is_refused(service: PreviewService, files: list[Path], tmp_path: Path) -> None:
    again = Path(shutil.copyfile(files[0], tmp_path / "again.safetensors"))
    with pytest.raises(ConfigError, match="0 and again would act twice on one prompt"):
        service.draw(job_of(files[0], again))
    with pytest.raises(ConfigError, match="0 would act twice"):
        service.draw(job_of(files[0], files[0]))


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
    assert service.waiting == 1
    stop = threading.Event()
    stopped = service.draw(job_of(files[1]), stop)
    next(stopped)
    stop.set()
    with pytest.raises(PreviewStopped):
        next(stopped)
    assert service.waiting == 1
    service.stop()
    thread.join(60)


def test_whoever_waits_is_told_how_many_come_first(service: PreviewService, files: list[Path]) -> None:
    slow, told, started = job_of(files[0], **LONG), list[int](), threading.Event()

    def occupy() -> None:
        for _ in service.draw(slow):
            started.set()

    def wait() -> None:
        for event in service.draw(job_of(files[1])):
            if isinstance(event, PreviewWaiting):
                told.append(event.ahead)
                service.stop()

    threads = [threading.Thread(target=target, daemon=True) for target in (occupy, wait)]
    threads[0].start()
    assert started.wait(60)
    with pytest.raises(PreviewStopped):
        wait()
    assert told == [1]
    threads[0].join(60)


def test_when_too_many_wait_the_next_is_refused_with_their_number(random_sd: Any, files: list[Path]) -> None:
    service = PreviewService(random_sd, limits=PreviewLimits(waiting=2))
    held = [service.draw(job_of(files[0], seed=seed, **LONG)) for seed in range(3)]
    threads = [threading.Thread(target=lambda g=g: list(g), daemon=True) for g in held]
    for number, thread in enumerate(threads, 1):
        thread.start()
        until(lambda n=number: service.waiting == n)
    with pytest.raises(PreviewBusy, match="busy, 2 waiting"):
        next(service.draw(job_of(files[0], seed=9)))
    service.close()


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# ---- stopping


def test_stop_acts_within_two_steps_and_the_next_job_is_right(service: PreviewService, files: list[Path]) -> None:
    expected = pictures(service, job_of(files[1], strengths=(1.0,)))
    draw = random.Random(1)
    for number in range(30):
        stop, after = threading.Event(), draw.randrange(1, 40)
        late = 0
        try:
            for event in service.draw(job_of(files[0], steps=50, seed=100 + number), stop):
                late += stop.is_set() and isinstance(event, PreviewProgress)
                if isinstance(event, PreviewProgress) and event.step >= after:
                    stop.set()
        except PreviewStopped:
            assert stop.is_set()
        assert late <= 2
        until(lambda: service.waiting == 0)
        fresh = job_of(files[1], strengths=(1.0,), seed=200 + number)
        assert pictures(service, fresh)[0][1] != expected[0][1]
        assert pictures(service, job_of(files[1], strengths=(1.0,))) == expected


def test_whoever_leaves_stops_the_drawing(service: PreviewService, files: list[Path]) -> None:
    drawing = service.draw(job_of(files[0], **LONG))
    assert next(drawing)
    drawing.close()
    until(lambda: service.waiting == 0, 20)
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


# ---- what cannot be drawn


def test_an_adapter_that_does_not_fit_says_so_before_anything_is_drawn(
    service: PreviewService, files: list[Path], bases: dict[str, Path], trained_adapter: Maker, tmp_path: Path
) -> None:
    from sd_lora import load_base

    foreign = trained_adapter(load_base(bases["sdxl"])[0], "attn").save(tmp_path / "foreign.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(files[0].read_bytes()[:-100])
    assert service.misfit(files[0]) == ""
    for wrong, said in ((foreign, "of its"), (tmp_path / "damaged.safetensors", "damaged.safetensors")):
        assert said in service.misfit(wrong)
        events = list[Any]()
        with pytest.raises(AdapterError, match=wrong.name):
            events.extend(service.draw(PreviewJob((BASE, PreviewRow("a cup", (MixedAdapter(wrong),))), steps=2)))
        assert events == []
    with pytest.raises(AdapterError, match="cannot be read"):
        service.draw(job_of(tmp_path / "gone.safetensors"))
    assert len(pictures(service, job_of(files[0]))[0]) == 3


def test_strengths_of_parts_that_are_not_there_end_their_job_only(service: PreviewService, files: list[Path]) -> None:
    with pytest.raises(AdapterError, match="no modules"):
        list(service.draw(job_of(MixedAdapter(files[0], {"unet": {"side": 1.0}}))))
    assert len(pictures(service, job_of(files[0]))[0]) == 3


def test_too_much_is_refused_before_it_waits(service: PreviewService) -> None:
    with pytest.raises(ConfigError, match="steps lie"):
        service.draw(PreviewJob((BASE,), steps=1001))


def test_full_memory_halves_the_batch_and_draws_on(random_sd: Any, files: list[Path]) -> None:
    service = PreviewService(random_sd, batch_size=4)
    plain, sizes = type(random_sd.unet).forward, list[int]()

    def forward(unet: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        sizes.append(len(sample))
        if len(sample) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(unet, sample, *args, **kwargs)

    random_sd.unet.forward = forward.__get__(random_sd.unet)
    row = pictures(service, job_of(files[0], strengths=(0.2, 0.4, 0.6), steps=2))[0]
    assert len(set(row)) == 4
    assert sizes == [8, 4, 4, 4, 4]
    service.close()


def test_pictures_can_be_handed_out_while_others_are_drawn(service: PreviewService, files: list[Path]) -> None:
    image = next(e.image for e in service.draw(job_of(files[0])) if isinstance(e, PreviewCell))
    assert isinstance(image, Image.Image)
    recipe = service.recipe(job_of(files[0]), 0, 1)
    assert recipe["adapters"][0]["sha256"] == service.sha256(files[0])
    assert (recipe["width"], recipe["height"], recipe["base"]) == (16, 16, service.base)
