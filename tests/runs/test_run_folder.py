"""The run folder on disks that fail, with files that were damaged, and its pictures."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image
from small_runs import config_of, write_images

from sd_lora.config.schema import RunConfig
from sd_lora.errors import StorageError
from sd_lora.runs import curves
from sd_lora.runs.folder import RunFolder
from sd_lora.runs.reports import LEVELS, StepReport, ValidationReport
from sd_lora.training import sidecars as companions
from sd_lora.training.preparation import prepare
from sd_lora.training.run import run_training
from sd_lora.training.stopping import RunInterrupted

REPORT = StepReport(1, 5, 0.5, 1e-4, 0.1, 1.0, [0.5, None, 0.25, None], 100)
MEASURED = ValidationReport(2, 0.5, 0.4, [0.5] * LEVELS, [0.4] * LEVELS)


@pytest.fixture(autouse=True)
def _plain_curves() -> None:
    """Here curves are drawn as they are."""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create(RunConfig())
    return folder


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


# ---- disks


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", failing(errno.EROFS))
    with pytest.raises(StorageError, match="Read-only file system; name a folder on a disk that can be written to"):
        RunFolder(tmp_path / "run").create(RunConfig())


@pytest.mark.parametrize(
    "store",
    [
        lambda folder: folder.kept_adapter(1), lambda folder: folder.sync(),
        lambda folder: companions.export_diffusers(None, folder.export, "float16", None),  # type: ignore[arg-type]
    ],
    ids=["kept adapter", "sync", "export"],
)  # fmt: skip
def test_what_a_full_disk_does_not_take_is_a_storage_error(
    store: Callable[[RunFolder], object], folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.record(REPORT)
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    monkeypatch.setattr(Path, "mkdir", failing(errno.ENOSPC))
    with pytest.raises(StorageError, match="No space left on device; make room on that disk"):
        store(folder)


def test_a_log_that_is_not_there_yet_need_not_be_synced(folder: RunFolder) -> None:
    folder.sync()


def test_a_log_that_cannot_be_written_is_told_with_what_helps(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", failing(errno.ENOSPC))
        with pytest.raises(StorageError, match=r"make room on that disk.*, then: sd-lora resume .*run$"):
            folder.record(REPORT)
    shutil.rmtree(folder.path)
    with pytest.raises(StorageError, match=r"No such file or directory; name a folder that exists$"):
        folder.record(REPORT)


def test_pictures_are_whole_or_as_they_were(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = folder.loss_curve, folder.path / "validation.png"
    folder.record(REPORT)
    folder.draw_loss()
    folder.record_validation(MEASURED)
    before = [picture.read_bytes() for picture in pictures]
    write, replace = Figure.savefig, os.replace

    def full(self: Figure, path: Any, **options: Any) -> None:
        if isinstance(path, Path):  # straight to the disk
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, path, **options)

    def no_picture(source: Any, target: Any) -> None:
        if Path(target).suffix == ".png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(Figure, "savefig", full)
    monkeypatch.setattr(os, "replace", no_picture)
    for draw in (folder.draw_loss, lambda: folder.record_validation(MEASURED)):
        with pytest.raises(StorageError, match=r"\.png cannot be written: No space left"):
            draw()
    assert [picture.read_bytes() for picture in pictures] == before


def test_a_run_that_is_stopped_ends_so_though_its_losses_cannot_be_drawn(
    random_sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "write_figure", failing(errno.ENOSPC))
    run, notes = prepare(config_of(random_sd_folder, write_images(tmp_path / "images"), tmp_path / "run")), list[str]()
    with pytest.raises(RunInterrupted, match="stopped after step 1"):
        run_training(run, stop=lambda: 15, on_note=notes.append)
    assert any("loss.png could not be drawn" in note for note in notes)


# ---- damaged files


def test_odd_lines_of_a_log_are_left_out(folder: RunFolder) -> None:
    good, odd = asdict(REPORT), asdict(MEASURED)
    changes = [{"step": "x"}, {"loss": None}, {"step": 1.5}, {"by_noise": "no"}, {"by_noise": [1, "2"]}, {"alarms": 3},
               {"learning_rate": []}, {"step": True}, {"memory": {}}]  # fmt: skip
    lines = [json.dumps(good | change) for change in changes]
    lines += ["", "{", "[]", "3", "null", "[" * 5000, json.dumps({"step": 1})]
    folder.log.write_text("\n".join([json.dumps(good), *lines, json.dumps(good | {"step": 2})]) + "\n\xff", "latin-1")
    measured = folder.path / "validation.jsonl"
    measured.write_text("\n".join(json.dumps(odd | change) for change in ({}, {"held": None}, {"held_by_level": 1})))
    folder.rewind(10)
    assert folder.log.read_text() == json.dumps(good) + "\n" + json.dumps(good | {"step": 2}) + "\n"
    folder.record_validation(ValidationReport(3, 0.5, 0.4, [0.5] * LEVELS, [0.4] * LEVELS))
    assert [json.loads(line)["step"] for line in measured.read_text().splitlines()] == [2, 3]
    folder.draw_loss()


def test_a_log_that_cannot_be_read_is_a_storage_error(folder: RunFolder) -> None:
    folder.log.mkdir()
    with pytest.raises(StorageError, match=r"log\.jsonl cannot be read: Is a directory"):
        folder.rewind(1)


def test_a_run_whose_adapter_is_damaged_is_not_finished(random_sd_folder: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    run = prepare(config_of(random_sd_folder, write_images(tmp_path / "images"), folder.path))
    folder.export.mkdir(parents=True)
    (folder.export / "README.md").write_text("x")
    run.adapter.save(folder.adapter)
    assert folder.is_finished
    whole = folder.adapter.read_bytes()
    for damaged in (b"", whole[:-1]):
        folder.adapter.write_bytes(damaged)
        assert not folder.is_finished
    folder.adapter.unlink()
    assert not folder.is_finished


# ---- pictures


def test_the_axes_say_where_the_most_noise_is_and_count_in_whole_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = list[Figure]()
    monkeypatch.setattr(curves, "write_figure", lambda figure, _: drawn.append(figure))
    curves.draw_validation(
        [MEASURED, ValidationReport(3, 0.4, 0.3, [0.4] * LEVELS, [0.3] * LEVELS)], tmp_path / "v.png"
    )
    curves.draw([REPORT, REPORT], tmp_path / "l.png")
    (over, levels), (_, parts) = (figure.axes for figure in drawn)
    assert levels.get_xlabel() == "noise level, from least (1) to most (16)"
    assert all(float(tick).is_integer() for axes in (over, levels, parts) for tick in axes.get_xticks())


def test_pictures_are_png(folder: RunFolder) -> None:
    folder.record(REPORT)
    folder.draw_loss()
    with Image.open(folder.loss_curve) as picture:
        assert picture.format == "PNG"
