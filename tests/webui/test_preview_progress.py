"""Drawing for one visitor: progress is shown, and an outdated drawing does not disturb a newer one."""

from __future__ import annotations

import io
import itertools
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest
from PIL import Image
from sd_lora.webui.preview_progress import NOTHING, Drawings, Progress, file_of
from sd_lora.webui.site import Site
from sd_lora.webui.tabs.compare import _Pair

from sd_lora import AdapterError, ConfigError
from sd_lora.preview.events import PreviewCell, PreviewProgress, PreviewStopped
from sd_lora.preview.job import PreviewJob, PreviewRow
from sd_lora.preview.recipe import read_recipe

JOB = PreviewJob((PreviewRow("a cup"),), (1.0,))


class Service:
    """Draws grey pictures; ends like the real one, even if it is stopped before the last picture."""

    def __init__(self) -> None:
        self.jobs: list[PreviewJob] = []
        self.wrong = False

    def draw(self, job: PreviewJob, stop: threading.Event) -> Iterator[Any]:
        self.jobs.append(job)
        for row, column in itertools.product(range(len(job.rows)), range(len(job.columns))):
            if stop.is_set():
                raise PreviewStopped("the preview was stopped")
            yield PreviewProgress(row, column, 1, 2)
            if self.wrong:
                raise AdapterError("it does not fit")
            yield PreviewCell(row, column, Image.new("L", (8, 8), column), hashes={Path("a"): "as drawn"})
        stop.set()  # no more is needed

    def recipe(self, job: PreviewJob, row: int, column: int, *, hashes: Any) -> dict[str, Any]:
        return {"prompt": job.rows[row].prompt, "strength": job.columns[column], "adapters": [], "seed": 0, "steps": 1,
                "negative": "", "guidance": 1.0, "width": 8, "height": 8, "base": hashes[Path("a")],
                "scheduler": "", "sd_lora": ""}  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(cast(Any, Service()), tmp_path, tmp_path, tmp_path)


def visitor(name: str = "ann") -> Any:
    return SimpleNamespace(session_hash=name)


def test_what_a_prompt_says_and_is_not_drawn_is_in_the_status(site: Site) -> None:
    job = replace(JOB, rows=(PreviewRow.of("a cat --ss ddim"), PreviewRow.of("a dog --ss ddim")))
    *_, last = Drawings().follow(site, job, visitor())
    assert re.sub("<[^>]*>", "", last.status()).count("--ss is left out, as samples are drawn with") == 1


def test_a_drawing_is_followed_until_its_files_are_written(site: Site) -> None:
    *before, last = [replace(progress) for progress in Drawings().follow(site, JOB, visitor())]
    assert not any(progress.is_done for progress in before)
    assert last.is_done
    assert last.is_complete
    assert "2 pictures in" in last.status()
    content = Path(file_of(site, last, 0, 1, "x")).read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        assert image.getpixel((0, 0)) == 1
    assert read_recipe(content)["strengths"] == [1.0]
    assert b"as drawn" in content


@pytest.mark.parametrize("how", ["stopped", "replaced"])
def test_a_drawing_ends_when_stopped_or_replaced(site: Site, how: str) -> None:
    drawings = Drawings()
    going = drawings.follow(site, JOB, visitor())
    next(going)
    if how == "stopped":
        drawings.stop(visitor())
        drawings.stop(visitor("another"))
    else:
        assert list(drawings.follow(site, JOB, visitor()))[-1].is_complete
    *_, last = going
    assert last.is_done
    assert not last.is_complete
    assert list(drawings.follow(site, JOB, visitor("bob")))[-1].is_complete


def compared(pair: Any, request: Any = None) -> Any:
    return pair.on_compare(request or visitor(), "a cup", 0, "", 1.0, "two", 0.5)


@pytest.fixture
def pair(site: Site, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = object.__new__(_Pair)
    made.site, made.drawings = site, Drawings()
    monkeypatch.setattr(Site, "adapter", lambda _, identity: Path(identity))
    return made


def test_a_pair_is_one_job_and_its_last_update_has_both_files(pair: Any) -> None:
    *before, (status, files, _) = compared(pair)
    assert all(shown == gr.skip() for _, shown, _ in before)
    assert "4 pictures in" in status
    assert [Path(file).name for file in files] == ["strength-0.png", "strength-0.5.png"]
    (job,) = pair.site.service.jobs
    assert [[mixed.strength for mixed in row.mix] for row in job.rows] == [[], [0.5]]


@pytest.mark.parametrize("events", [0, 1, 3])
def test_a_pair_that_is_replaced_does_not_disturb_the_newer_one(pair: Any, events: int) -> None:
    older = compared(pair)
    for _ in range(events):
        next(older)
    if not events:  # stopped before its first event
        pair.drawings.begin = lambda *_: stopped()
        assert list(older) == [(gr.skip(),) * 3]
        return
    newer = compared(pair)
    next(newer)
    assert list(older)[-1] == (gr.skip(),) * 3
    *_, (_, files, _) = newer
    assert len(files) == 2


def stopped() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def test_an_error_clears_the_status(pair: Any) -> None:
    pair.site.service.wrong = True
    going = compared(pair)
    assert "step 1 of 2" in next(going)[0]
    assert next(going) == (NOTHING, gr.skip(), gr.skip())
    with pytest.raises(AdapterError, match="does not fit"):
        next(going)


def test_two_base_models_are_no_comparison_and_the_newest_adapter_takes_the_right(
    pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: tmp_path / f"{name}.safetensors" for name in ("old", "new")}
    for age, file in enumerate(reversed(files.values())):
        file.touch()
        os.utime(file, (1_000 - age,) * 2)
    monkeypatch.setattr(Site, "adapters", lambda _: files)
    assert pair._newest() == "new"
    first, *_ = pair.on_compare(visitor(), "a cup", 0, "", 1.0, "", 0.5)
    assert first[2]["value"] == "new"
    (job,) = pair.site.service.jobs
    assert [mixed.path for mixed in job.rows[1].mix] == [Path("new")]
    assert pair.on_right(None)["value"] == "new"
    assert pair.on_right("")["value"] == ""  # the base model, as it was chosen
    monkeypatch.setattr(Site, "adapters", lambda _: {})
    with pytest.raises(ConfigError, match="no LoRA yet to compare"):
        next(pair.on_compare(visitor(), "a cup", 0, "", 1.0, None, 0.5))


def test_a_status_is_read_out_where_its_meaning_changes_not_at_each_step() -> None:
    progress, said = Progress(replace(JOB, strengths=(0.5, 1.0))), list[str]()

    def note() -> None:
        said.append(re.findall('data-said="([^"]*)"', progress.status())[0])

    note()
    for number in range(2):
        for step in (1, 2):
            progress.update(PreviewProgress(0, number, step, 2), 0.0)
            note()
        progress.images[0, number] = Image.new("L", (8, 8))
    progress.finish("2 pictures in 1.0 s")
    note()
    assert list(dict.fromkeys(said)) == ["starting …", "picture 1 of 3", "picture 2 of 3", "2 pictures in 1.0 s"]
    assert "aria-live" not in progress.status()
