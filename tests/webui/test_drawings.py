"""One row drawn for one visitor: how it goes is told, and what is no longer wanted is not shown."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from PIL import Image
from sd_lora.webui.compare_tab import _Pair
from sd_lora.webui.drawings import Drawings
from sd_lora.webui.site import Site

from sd_lora import PreviewCell, PreviewJob, PreviewProgress, PreviewRow, PreviewStopped, read_recipe

JOB = PreviewJob((PreviewRow("a cup"),), (1.0,))


class Service:
    """Draws grey pictures; ends as the real one does, also where it was stopped before the last one."""

    def __init__(self) -> None:
        self.jobs: list[PreviewJob] = []

    def draw(self, job: PreviewJob, stop: threading.Event) -> Iterator[Any]:
        self.jobs.append(job)
        for column in range(len(job.columns)):
            yield PreviewProgress(0, column, 1, 2)
            if stop.is_set():
                raise PreviewStopped("the preview was stopped")
            yield PreviewCell(0, column, Image.new("L", (8, 8), column), hashes={Path("a"): "as drawn"})
        stop.set()  # nobody wants more of it

    def recipe(self, job: PreviewJob, row: int, column: int, *, hashes: Any) -> dict[str, Any]:
        return {"prompt": job.rows[row].prompt, "strength": job.columns[column], "adapters": [], "seed": 0, "steps": 1,
                "negative": "", "guidance": 1.0, "width": 8, "height": 8, "base": hashes[Path("a")],
                "scheduler": "", "sd_lora": ""}  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(cast(Any, Service()), tmp_path, tmp_path, tmp_path)


def visitor(name: str = "ann") -> Any:
    return SimpleNamespace(session_hash=name)


def test_the_last_that_is_told_has_the_file_of_the_last_picture(site: Site) -> None:
    *before, (told, file) = Drawings().single(site, JOB, visitor())
    assert before
    assert all(file is None for _, file in before)
    assert "2 pictures in" in told
    with Image.open(str(file)) as image:
        assert image.getpixel((0, 0)) == 1
    assert read_recipe(Path(str(file)).read_bytes())["strengths"] == [1.0]
    assert b"as drawn" in Path(str(file)).read_bytes()


@pytest.mark.parametrize("how", ["stopped", "asked anew"])
def test_nothing_more_comes_of_what_is_not_wanted(site: Site, how: str) -> None:
    drawings = Drawings()
    going = drawings.single(site, JOB, visitor())
    next(going)
    if how == "stopped":
        drawings.stop("ann")
        drawings.stop("another")
    else:
        assert list(drawings.single(site, JOB, visitor()))[-1][1]
    assert not any(file for _, file in going)
    assert len(list(drawings.single(site, JOB, visitor("bob")))) > 1


def test_of_a_pair_the_second_is_not_begun_once_the_first_is_stopped(site: Site) -> None:
    pair = object.__new__(_Pair)
    pair.site, pair.drawings = site, Drawings()
    pair._job = lambda *_: JOB  # type: ignore[method-assign]
    going = pair.on_compare(visitor(), "a cup", 0, "one", 1.0, "two", 1.0)
    next(going)
    pair.drawings.stop("ann")
    list(going)
    assert len(cast(Any, site.service).jobs) == 1
    *_, (_, files) = pair.on_compare(visitor(), "a cup", 0, "one", 1.0, "two", 1.0)
    assert len(files) == 2
    assert len(cast(Any, site.service).jobs) == 3
