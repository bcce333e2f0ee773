"""Choosing a run's checkpoint and strength: what is written, that it can be taken back, and what is refused."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_runs import body_of, config_of, write_images

import sd_lora
from sd_lora.errors import ConfigError
from sd_lora.evaluation.calibration import calibrate, keep_calibration
from sd_lora.evaluation.drawing import Drawing, Illustrator
from sd_lora.evaluation.prompts import crossed_prompts
from sd_lora.evaluation.selection import Cell
from sd_lora.runs.folder import RunFolder
from sd_lora.training.choice import Wanted, select, undo


@pytest.fixture(scope="module")
def calibrated(random_sd_folder: Path) -> Path:
    pipe, _ = sd_lora.load_base(random_sd_folder)
    keep_calibration(calibrate(pipe, Illustrator(pipe, Drawing(1, 1.0)).draw(crossed_prompts(48)), "random", {}))
    return random_sd_folder


@pytest.fixture
def run(calibrated: Path, tmp_path: Path) -> Path:
    images = write_images(tmp_path / "images", 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sd_lora.train(config_of(calibrated, images, tmp_path / "run", "training.save_every=4"))
    return tmp_path / "run"


LONG = Wanted(share=1e6, strengths=(1.0, 0.7))  # the run takes a second, choosing as long as it must


def test_the_choice_becomes_the_adapter_and_can_be_taken_back(run: Path) -> None:
    folder, before = RunFolder(run), (run / "adapter.safetensors").read_bytes()
    export = run / "diffusers" / "pytorch_lora_weights.safetensors"
    exported = body_of(export)
    selection = select(run, LONG)
    cell = selection.choice.cell
    assert {each.step for each in selection.grid.cells} == {4, 7}
    assert folder.is_finished
    assert folder.reached == 7
    assert folder.unselected.read_bytes() == before
    chosen, trained = sd_lora.Adapter.load(folder.adapter), sd_lora.Adapter.load(folder.kept()[cell.step]).weights
    for name, weights in chosen.weights.items():
        change = np.asarray(weights.row.product(weights.tensors)) * weights.scaling
        whole = np.asarray(trained[name].row.product(trained[name].tensors)) * trained[name].scaling
        np.testing.assert_allclose(change, cell.strength * whole, rtol=2e-3, atol=2e-5)
    record = json.loads((run / "selection.json").read_text("utf-8"))
    assert (record["step"], record["strength"]) == (cell.step, cell.strength)
    assert json.loads(chosen.metadata["sdlora.selection"]) == record
    report = (run / "report.html").read_text("utf-8")
    assert "http" not in report.replace("http-equiv", "")
    assert report.count('class="chosen"') == 1
    assert "likeness" in report
    assert "in zwq style" in report
    assert chosen.metadata["ss_output_name"] == sd_lora.Adapter.load(folder.unselected).metadata["ss_output_name"]
    if cell != Cell(7, 1.0):
        assert body_of(export) != exported
    assert folder.last == folder.unselected
    assert undo(run) == folder.adapter
    assert folder.adapter.read_bytes() == before
    assert body_of(export) == exported
    assert not (run / "selection.json").exists()
    assert not (run / "report.html").exists()
    with pytest.raises(ConfigError, match="nothing was chosen"):
        undo(run)


@pytest.mark.slow
def test_choosing_again_starts_from_what_was_trained(run: Path) -> None:
    first = select(run, LONG)
    again = select(run, LONG)
    assert again.choice == first.choice
    assert RunFolder(run).kept().keys() == {4, 7}


@pytest.mark.slow
def test_a_short_budget_measures_fewer_cells(run: Path) -> None:
    assert len(select(run, Wanted(share=0.0, strengths=(1.0, 0.7))).grid.cells) < len(select(run, LONG).grid.cells) == 4


def test_a_run_that_is_not_finished_is_refused(run: Path) -> None:
    (run / "diffusers" / "README.md").unlink()
    with pytest.raises(ConfigError, match="is not finished; resume it first"):
        select(run)


@pytest.mark.slow
def test_images_that_are_gone_need_references(run: Path, tmp_path: Path) -> None:
    (tmp_path / "images").rename(tmp_path / "moved")
    with pytest.raises(ConfigError, match=r"cannot be read any more .* --references"):
        select(run, LONG)
    assert select(run, replace(LONG, references=str(tmp_path / "moved"))).choice.cell.step in (4, 7)


@pytest.mark.slow
def test_a_run_that_is_resumed_goes_on_from_its_last_step(run: Path) -> None:
    """What was chosen is no longer the run's: else its length would be read from the old last step for ever."""
    before = (run / "adapter.safetensors").read_bytes()
    select(run, LONG)
    RunFolder(run).reopen()
    assert (run / "adapter.safetensors").read_bytes() == before
    assert not any((run / name).exists() for name in ("adapter-last.safetensors", "selection.json", "report.html"))
