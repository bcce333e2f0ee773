"""Whether a run is finished is one fact: the page, the command line and Python say the same of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from sd_lora.commands.app import app
from sd_lora.config.presets import load_config
from sd_lora.errors import ConfigError
from sd_lora.runs.control import resume_run
from sd_lora.runs.folder import RunFolder
from sd_lora.runs.state import read_run, run_status


def stopped(folder: Path) -> None:
    (folder / "checkpoints").mkdir()


def without_export(folder: Path) -> None:
    save_file({"a": np.zeros(4)}, folder / "adapter.safetensors")


def handed_over(folder: Path) -> None:
    """What a run that was stopped after its third step leaves."""
    stopped(folder)
    save_file({"a": np.zeros(4)}, folder / "adapter.safetensors", {"sdlora.steps": "3"})


def finished(folder: Path) -> None:
    without_export(folder)
    (folder / "diffusers").mkdir()
    (folder / "diffusers" / "README.md").write_text("a card")


def damaged(folder: Path) -> None:
    finished(folder)
    file = folder / "adapter.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def without_adapter(folder: Path) -> None:
    finished(folder)
    (folder / "adapter.safetensors").unlink()


class Resumed(Exception):
    """The command goes on with a run."""


@pytest.mark.parametrize("make", [finished, stopped, handed_over, without_export, damaged, without_adapter])
def test_the_page_and_the_command_line_resume_the_same_runs(
    make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(*_: object, **__: object) -> None:
        raise Resumed

    monkeypatch.setattr("sd_lora.training.preparation.prepare", prepare)
    monkeypatch.setattr("sd_lora.runs.control._spawn", lambda *_: 7)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.toml").write_text(load_config("tiny-style", "data.folder=photos").to_toml())
    make(run)
    done = make is finished

    assert RunFolder(run).is_finished is done
    if make is handed_over:
        assert read_run(run).adapters == ((3, run / "adapter.safetensors"),)
    assert (run_status(run), read_run(run).can_resume) == (("finished", False) if done else ("stopped", True))
    if done:
        with pytest.raises(ConfigError, match="is finished"):
            resume_run(run)
    else:
        assert resume_run(run) == 7
    answer = CliRunner().invoke(app, ["resume", str(run)])
    assert ("is finished" in answer.output) is done
    assert isinstance(answer.exception, Resumed) is not done
