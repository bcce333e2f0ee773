"""What the preview service draws, and what it refuses."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from preview_jobs import BASE, LONG, Maker, job_of, pictures

from sd_lora import AdapterError, ConfigError
from sd_lora.models.schedulers import SCHEDULERS
from sd_lora.preview.caches import PictureCache
from sd_lora.preview.events import PreviewCell, PreviewProgress
from sd_lora.preview.job import MixedAdapter, PreviewJob, PreviewLimits, PreviewRow
from sd_lora.preview.service import PreviewService


def test_strength_0_is_the_base_and_comes_first(service: PreviewService, files: list[Path], random_sd: Any) -> None:
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(3))
    base = random_sd(BASE.prompt, latents=noise, guidance_scale=5.0, num_inference_steps=3).images[0]
    for mix in ((), files[:1], files):
        row = pictures(service, job_of(*mix, strengths=(1.0, 0.5), seed=3))[0]
        assert len(row) == 3
        assert row[0] == base.tobytes()
        assert len(set(row)) == (3 if mix else 1)


def test_what_strengths_cannot_change_is_drawn_once(service: PreviewService, files: list[Path]) -> None:
    idle = job_of(MixedAdapter(files[0], 0.0), strengths=(0.5, 1.0))
    for job in (job_of(strengths=(0.5, 1.0)), replace(idle, seed=1)):
        events = list(service.draw(job))
        assert sum(isinstance(event, PreviewProgress) for event in events) == job.steps
        cells = [event for event in events if isinstance(event, PreviewCell)]
        assert [(cell.row, cell.column) for cell in cells] == [(0, 0), (0, 1), (0, 2)]
        assert len({cell.image.tobytes() for cell in cells}) == 1


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
    assert [[cell.image.tobytes() for cell in service.drawn(job)]] == first
    assert {cell.hashes[files[0]] for cell in service.drawn(job)} == {service.sha256(files[0])}
    assert service.drawn(replace(job, seed=9)) == []
    found = {cell.column: cell.image for cell in service.drawn(replace(job, strengths=(0.5, 1.0, 1.5)))}
    base, half, whole, more = (found.get(column) for column in range(4))
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
    assert len(service._waiting) == 1  # the long one: this one did not have to wait
    assert all(isinstance(event, PreviewCell) for event in events)
    assert pictures(service, job) == first
    service.stop()
    thread.join(60)


def test_no_more_pictures_are_kept_than_was_asked_for(random_sd: Any) -> None:
    random_sd.set_progress_bar_config(disable=True)
    made = PreviewService(random_sd, limits=PreviewLimits(kept=2 * 3 * 64 * 64))
    jobs = [PreviewJob((BASE,), (0.0,), seed=seed, steps=1, width=64, height=64) for seed in range(3)]
    for job in jobs:
        list(made.draw(job))
    assert [bool(made.drawn(job)) for job in jobs] == [False, True, True]
    made.close()


def test_pictures_of_what_is_not_finished_are_shown(service: PreviewService, files: list[Path]) -> None:
    events = list(service.draw(job_of(files[0], steps=10)))
    steps = [event for event in events if isinstance(event, PreviewProgress)]
    assert [event.step for event in steps] == list(range(1, 11))  # of all columns
    sketches = [event.sketch for event in steps if event.sketch is not None]
    assert sketches
    assert sketches[0].size == (16, 16)


def test_the_first_column_is_the_base_whatever_the_strengths_by_block(
    service: PreviewService, files: list[Path]
) -> None:
    [[base]] = pictures(service, PreviewJob((BASE,), (0.0,), steps=3))
    service._pictures = PictureCache(1)  # nothing is kept
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
    service._pictures = PictureCache(1)
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
    with pytest.raises(ConfigError, match="steps are"):
        service.draw(PreviewJob((BASE,), steps=1001))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_another_scheduler_draws_another_picture_and_the_bases_own_comes_back(
    service: PreviewService, random_sd: Any, name: str
) -> None:
    own, job = random_sd.scheduler, PreviewJob((BASE,), (0.0,), steps=4)
    before = pictures(service, job)
    other = replace(job, scheduler=name)
    drawn = pictures(service, other)
    assert (drawn == before) == (name == "DDIM")  # which the base's own is
    assert pictures(service, other) == drawn
    assert service.recipe(other, 0, 0, hashes={})["scheduler"] == SCHEDULERS[name]
    assert service.recipe(job, 0, 0, hashes={})["scheduler"] == "DDIMScheduler"
    assert random_sd.scheduler is own


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


def test_rows_of_other_sizes_are_drawn_as_alone(service: PreviewService) -> None:
    own = PreviewRow.of(f"{BASE.prompt} --n dark --w 32 --h 16 --d 5 --s 2 --l 3")
    job = PreviewJob((BASE, own), (1.0,), steps=3)
    alone = PreviewJob((BASE,), (1.0,), "dark", 5, 2, 3.0, 32, 16)
    assert pictures(service, job) == [pictures(service, replace(job, rows=(BASE,)))[0], pictures(service, alone)[0]]
    grid = service.grid(job)
    assert [row[0].size for row in grid.images] == [(16, 16), (32, 16)]
    assert grid.sheet().width > 2 * 32 * 11
