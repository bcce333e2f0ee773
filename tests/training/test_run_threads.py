"""With how many threads runs compute and pages draw, and that a resumed run keeps its number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import config_of, go, interrupted, resumed, write_images

from sd_lora.commands.run_plan import plan_of
from sd_lora.config.presets import load_config
from sd_lora.config.reading import parse_config
from sd_lora.errors import ConfigError
from sd_lora.models.device import computing_with
from sd_lora.preview.job import PreviewJob, PreviewRow
from sd_lora.preview.service import PreviewService
from sd_lora.runs.folder import RunFolder
from sd_lora.runs.threads import claims
from sd_lora.training.checkpoints import Checkpoints
from sd_lora.training.preparation import prepare
from sd_lora.training.resume_check import check_same


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", 4)


def free(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `count` threads free, of eight that torch would use."""
    monkeypatch.setattr("sd_lora.training.preparation.threads.free_threads", lambda: count)


def test_a_run_takes_the_threads_that_are_free_and_says_so(
    random_sd_folder: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(3, monkeypatch)
    with computing_with(8):
        for given, count in (("auto", 3), ("5", 5)):
            run = prepare(config_of(random_sd_folder, images, tmp_path / "run", f"training.threads={given}"))
            assert run.config.training.threads == plan_of(run)["threads"] == count
            assert any(reason.startswith(f"{count} threads of ") for reason in run.means.reasons)
            assert torch.get_num_threads() == 8
    with computing_with(2):  # what the caller has set is not raised
        assert prepare(config_of(random_sd_folder, images, tmp_path / "run")).config.training.threads == 2


@pytest.mark.slow
def test_a_resumed_run_computes_with_as_many_threads_as_it_began_with(
    random_sd_folder: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(2, monkeypatch)
    before, seen = torch.get_num_threads(), list[int]()

    with computing_with(8):
        config = config_of(random_sd_folder, images, tmp_path / "run", "training.checkpoint_every=2")
        assert interrupted(lambda: go(config, stop_after=2))
        assert RunFolder(tmp_path / "run").read_config().training.threads == 2
        free(1, monkeypatch)
        monkeypatch.setattr(
            "sd_lora.training.session.Session.train",
            lambda session, *_: (seen.append(torch.get_num_threads()), session._finish()),
        )
        resumed(tmp_path / "run")
        assert torch.get_num_threads() == 8
    assert seen == [2]
    assert (torch.get_num_threads(), claims()) == (before, [])


def test_another_number_of_threads_is_a_note(random_sd_folder: Path, images: Path, tmp_path: Path) -> None:
    config = config_of(random_sd_folder, images, tmp_path / "run", "training.checkpoint_every=2")
    assert interrupted(lambda: go(config, stop_after=2))
    checkpoint = Checkpoints(tmp_path / "run" / "checkpoints", 1).newest(tensors=False)
    assert checkpoint is not None
    then = checkpoint.facts["run"]
    assert then["threads"] == torch.get_num_threads()
    notes = check_same(then, {**then, "threads": 64}, tmp_path)
    assert notes == [
        f"the run continues with threads 64 instead of {then['threads']}: its result may differ in the last bits"
    ]
    older = {key: value for key, value in then.items() if key != "threads"}  # of before it was recorded
    assert check_same(older, then, tmp_path) == []


@pytest.mark.parametrize("given", ["0", "-1", "2.5", "many", "5000"])
def test_a_number_of_threads_that_cannot_be_is_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"training\.threads"):
        load_config("style", f"training.threads={given}")


def test_auto_is_the_default() -> None:
    assert parse_config([], ["training.threads=auto"]) == parse_config([])


def test_each_row_is_drawn_with_the_threads_that_are_free_then(random_sd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    random_sd.set_progress_bar_config(disable=True)
    now, seen = [3, 1, 99], list[int]()
    plain = random_sd.unet.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        seen.append(torch.get_num_threads())
        return plain(*args, **kwargs)

    monkeypatch.setattr(random_sd.unet, "forward", forward)
    with computing_with(4):
        service = PreviewService(random_sd, threads=lambda: now.pop(0))
        service.grid(PreviewJob(tuple(PreviewRow(text) for text in ("a", "b", "c")), (0.0,), steps=1))
        service.close()
    assert seen == [3, 1, 4]  # never more than it had at first
