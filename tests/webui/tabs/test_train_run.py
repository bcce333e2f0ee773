"""What the Train tab shows of runs: those that wait, samples as strips, checkpoints to choose from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest
from PIL import Image
from sd_lora.webui.checkpoint_grid import CheckpointGrid, adapter_choices, chosen_adapter
from sd_lora.webui.site import Site
from sd_lora.webui.tabs.train import queue as train_queue
from sd_lora.webui.tabs.train.queue import RunQueue
from sd_lora.webui.tabs.train.samples import strips_html
from sd_lora.webui.tabs.train.view import progress_html

from sd_lora import ConfigError, RunConfig, load_config
from sd_lora.preview.job import PreviewLimits
from sd_lora.preview.recipe import png_bytes
from sd_lora.preview.sheet import cells_of, draw_sheet
from sd_lora.runs.stage import VARIABLE, Stage, stage_in
from sd_lora.runs.state import RunState


@pytest.fixture
def active(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of active runs, which starting one adds to."""
    names: list[str] = []

    def start(config: RunConfig, folder: Path) -> None:
        if folder.name == "refused":
            raise ConfigError("its images are gone")
        names.append(folder.name)

    monkeypatch.setattr(train_queue, "start_run", start)
    monkeypatch.setattr(RunQueue, "_active", lambda _: names)
    return names


def test_runs_wait_for_those_before_them_and_are_found_by_the_next_server(tmp_path: Path, active: list[str]) -> None:
    queue, config = RunQueue(tmp_path), load_config("tiny-style", "data.folder=photos", "data.trigger=zwq")
    assert "one has started" in queue.add(config, tmp_path / "one")
    assert "two starts when the run before it ended" in queue.add(config, tmp_path / "two")
    assert "three starts when 2 runs before it ended" in queue.add(config, tmp_path / "three")
    with pytest.raises(ConfigError, match='"two" exists already'):
        queue.add(config, tmp_path / "two")
    queue.advance()
    assert (active, queue.waiting()) == (["one"], ["two", "three"])
    active.clear()
    queue = RunQueue(tmp_path)  # the server was killed
    queue.advance()
    assert (active, queue.waiting()) == (["two"], ["three"])
    assert queue.drop("three")
    assert not queue.drop("three")
    assert queue.waiting() == []


def test_a_run_that_cannot_start_is_reported_and_the_next_one_starts(tmp_path: Path, active: list[str]) -> None:
    queue, config = RunQueue(tmp_path), load_config("tiny-style", "data.folder=photos")
    for name in ("one", "refused", "three"):
        queue.add(config, tmp_path / name)
    active.clear()
    queue.advance()
    assert queue.refused == {"refused": "its images are gone"}
    queue.advance()
    assert (active, queue.waiting()) == (["three"], [])


def sheet(path: Path, colours: list[list[str]], prompts: list[str]) -> Path:
    """A sheet of single-coloured pictures, with its recipe."""
    images = [[Image.new("RGB", (64, 64), colour) for colour in row] for row in colours]
    drawn = draw_sheet(images, ["strength 0", "strength 1"], prompts)
    recipe = {"prompts": prompts, "strengths": [0, 1], "inference_steps": 5, "seed": 0}
    path.write_bytes(png_bytes(drawn, recipe))
    return path


def test_the_pictures_of_a_sheet_are_cut_out_of_it(tmp_path: Path) -> None:
    path = sheet(tmp_path / "a.png", [["red", "blue"], ["lime", "black"]], ["one", "two"])
    with Image.open(path) as image:
        rows = cells_of(image.convert("RGB"), 2, 2)
        for count in ((3, 2), (2, 3), (0, 1)):
            with pytest.raises(ValueError, match="not one of"):
                cells_of(image, *count)
    seen = [[sorted(set(cell.getdata())) for cell in row] for row in rows]
    assert seen == [[[(255, 0, 0)], [(0, 0, 255)]], [[(0, 255, 0)], [(0, 0, 0)]]]


def test_samples_are_strips_by_prompt_and_step(tmp_path: Path) -> None:
    prompts = ["<b>one</b>", "two"]
    samples = [
        (step, sheet(tmp_path / f"{step}.png", [["red", "blue"], ["lime", "black"]], prompts)) for step in (5, 10)
    ]
    (tmp_path / "odd.png").write_bytes(b"no sheet")
    html = strips_html([*samples, (15, tmp_path / "odd.png"), (20, tmp_path / "gone.png")])
    assert re.findall(r'data-steps="([^"]*)"', html) == ["5 10"]
    assert re.findall(r'data-step="(\d+)"', html) == ["5", "10", "5", "10"]
    assert html.count("<figcaption") == 2
    assert "<b>" not in html
    assert strips_html([]) == strips_html([(1, tmp_path / "odd.png")]) == ""
    assert 'type="range"' not in strips_html(samples[:1])


def test_what_a_run_does_before_its_first_step_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Stage().say("nobody looks")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "stage"))
    stage = Stage()
    stage.say("loading the base model")
    assert stage_in(tmp_path / "stage") == "loading the base model"
    stage.count("encoding pictures and captions,", 8, 8)
    assert stage_in(tmp_path / "stage") == "encoding pictures and captions, 8 of 8"
    assert stage_in(tmp_path / "none") == ""
    stage.end()
    stage.say("its steps have begun")
    assert not (tmp_path / "stage").exists()
    (tmp_path / "stage").mkdir()
    stage = Stage()
    stage.say("a folder is in the way")  # which stops no run
    html = progress_html(RunState("ink", "starting", doing="loading <the> base model"))
    assert "loading &lt;the&gt; base model" in html


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two prompts with checkpoints at steps 5 and 10, of which the last is its adapter."""
    folder = tmp_path / "runs" / "ink"
    (folder / "adapters").mkdir(parents=True)
    prompts = "preview.prompts=[\"a cup --n blurry\", 'a boat']"
    settings = ("preview.strengths=0.5,1", "preview.seed=7", "preview.inference_steps=9", "data.resolution=64")
    config = load_config("tiny-style", prompts, *settings, "training.steps=10")
    (folder / "config.toml").write_text(config.to_toml())
    for file in (folder / "adapters" / "step-000005.safetensors", folder / "adapter.safetensors"):
        file.write_bytes(b"")
    return folder


@pytest.fixture
def grid(run: Path) -> CheckpointGrid:
    service = cast(Any, SimpleNamespace(limits=PreviewLimits(), base="tiny"))
    with gr.Blocks():
        return CheckpointGrid(Site(service, run.parent, run.parent / "data", run.parent / "work"))


def test_checkpoints_are_drawn_like_the_samples(grid: CheckpointGrid, run: Path) -> None:
    job = grid.job(run)
    assert [(row.prompt, row.label) for row in job.rows] == [
        ("a cup", "step 5"), ("a cup", "at the end"), ("a boat", "step 5"), ("a boat", "at the end"),
    ]  # fmt: skip
    assert job.columns == (0.0, 0.5, 1.0)
    assert (job.seed, job.steps, job.width) == (7, 9, 64)
    grid.site.service.limits = PreviewLimits(cells=7)  # type: ignore[misc]
    assert [row.prompt for row in grid.job(run).rows] == ["a cup", "a cup"]  # as many prompts as fit


def test_one_checkpoint_is_marked_as_the_one_that_is_used(grid: CheckpointGrid, run: Path) -> None:
    identity, event = grid.site.id_of(run), cast(Any, SimpleNamespace(index=1))
    cell, line, button = grid.on_select(identity, event)
    assert "step 5 at strength 0.5" in line
    assert button["interactive"] is True
    assert grid.on_select(identity, cast(Any, SimpleNamespace(index=3)))[2]["interactive"] is False  # the base model
    adapter, line = grid.on_use(identity, cell)
    assert "step 5 is the one of ink that is used; 0.5 is its strength" in line
    assert adapter["value"] == grid.site.id_of(run / "adapters" / "step-000005.safetensors")
    assert chosen_adapter(run) == "step-000005.safetensors"
    assert [label for label, _ in adapter_choices(grid.site, run)] == ["step 5 · used", "step 10"]
    for cell in (-1, 0, 99):
        with pytest.raises(ConfigError, match="no picture of a checkpoint is chosen"):
            grid.on_use(identity, cell)
    for odd in ("[]", "{", json.dumps({"adapter": None})):
        (run / "chosen.json").write_text(odd)
        assert chosen_adapter(run) in ("", "None")


def test_a_run_without_checkpoints_says_so(grid: CheckpointGrid, run: Path) -> None:
    for file in run.rglob("*.safetensors"):
        file.unlink()
    with pytest.raises(ConfigError, match="has no LoRA yet"):
        grid.job(run)
