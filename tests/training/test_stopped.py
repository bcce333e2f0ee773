"""A stopped run hands over its adapter as far as it is trained, and can be ended there or resumed to its last step."""

from __future__ import annotations

import shlex
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from small_runs import STEPS, body_of, config_of, go, interrupted, resumed, write_images
from typer.testing import CliRunner

import sd_lora
from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.summary import read_summary
from sd_lora.commands.app import app
from sd_lora.errors import AdapterError, ConfigError, StorageError
from sd_lora.runs.folder import RunFolder
from sd_lora.runs.state import read_run, run_status
from sd_lora.training.preparation import prepare
from sd_lora.training.run import run_training
from sd_lora.training.stopping import RunInterrupted

CLI = CliRunner()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("stopped") / "images")


@pytest.fixture(scope="module")
def complete(random_sd_folder: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run that kept its adapter of every step."""
    run = tmp_path_factory.mktemp("complete") / "run"
    go(config_of(random_sd_folder, images, run, "training.save_every=1", "training.average=ema"))
    return run


@pytest.fixture(scope="module")
def stop(random_sd_folder: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    run = tmp_path_factory.mktemp("made") / "run"
    with pytest.raises(RunInterrupted) as caught:
        go(config_of(random_sd_folder, images, run, "training.average=ema"), stop_after=3)
    return run, str(caught.value)


@pytest.fixture
def stopped(stop: tuple[Path, str], tmp_path: Path) -> Path:
    """A run that was stopped after step 3."""
    return Path(shutil.copytree(stop[0], tmp_path / "run"))


def finish(run: Path) -> Adapter:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sd_lora.resume(run, finish=True)


def assert_complete(run: Path, step: int) -> None:
    for name in ("adapter.json", "adapter.png", "diffusers/README.md", "diffusers/pytorch_lora_weights.safetensors",
                 "diffusers/preview.png", f"samples/step-{step:06}.png", "loss.png"):  # fmt: skip
        assert (run / name).is_file(), name
    assert RunFolder(run).is_finished
    assert (run_status(run), read_run(run).can_resume) == ("finished", False)


def test_the_adapter_of_the_last_step_is_handed_over(
    stopped: Path, stop: tuple[Path, str], complete: Path, random_sd_folder: Path, images: Path, tmp_path: Path
) -> None:
    first, message = stop
    assert (
        f"stopped after step 3 of {STEPS}, and saved; the adapter so far is {first / 'adapter.safetensors'};" in message
    )
    assert f"sd-lora resume {first}, or end the run here with: sd-lora resume --finish {first}" in message
    for name in ("adapter", "adapter-ema"):
        kept = complete / "adapters" / f"step-000003{name.removeprefix('adapter')}.safetensors"
        assert body_of(stopped / f"{name}.safetensors") == body_of(kept)
    summary = read_summary(stopped / "adapter.safetensors")
    assert (summary.problem, summary.steps, summary.layout) == ("", 3, "kohya")
    further = config_of(random_sd_folder, images, tmp_path / "new", f"lora.init={stopped / 'adapter.safetensors'}")
    assert prepare(further).adapter.weights.keys() == Adapter.load(stopped / "adapter.safetensors").weights.keys()


def test_it_is_not_finished_by_that(stopped: Path, complete: Path) -> None:
    folder = RunFolder(stopped)
    assert (folder.is_finished, folder.reached) == (False, 3)
    assert not folder.export.exists()
    assert not (stopped / "adapter.json").exists()
    state = read_run(stopped)
    assert (state.status, state.can_resume) == ("stopped", True)
    assert state.adapters == ((3, stopped / "adapter.safetensors"),)
    assert [report.step for report in resumed(stopped)] == list(range(4, STEPS + 1))
    for name in ("adapter.safetensors", "adapter-ema.safetensors"):
        assert body_of(stopped / name) == body_of(complete / name)
    assert_complete(stopped, STEPS)


def test_an_adapter_that_cannot_be_handed_over_is_a_note(
    random_sd_folder: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr("sd_lora.training.session._save", full)
    run, notes = prepare(config_of(random_sd_folder, images, tmp_path / "run")), list[str]()
    with pytest.raises(RunInterrupted, match=r"stopped after step 1 of \d, and saved; resume with"):
        run_training(run, stop=lambda: 15, on_note=notes.append)
    assert "the adapter of step 1 was not written: the disk is full" in notes


def test_a_run_is_ended_where_it_is_and_can_still_be_resumed_exactly(stopped: Path, complete: Path) -> None:
    handed_over = body_of(stopped / "adapter.safetensors")
    answer = CLI.invoke(app, ["resume", "--finish", str(stopped)])
    assert answer.exit_code == 0, answer.output
    assert f"ending the run at step 3 of {STEPS}" in answer.output
    assert body_of(stopped / "adapter.safetensors") == handed_over
    assert_complete(stopped, 3)
    metadata = Adapter.load(stopped / "adapter.safetensors").metadata
    assert (metadata["ss_steps"], metadata["ss_output_name"]) == ("3", RunFolder(stopped).read_config().output.name)
    assert [step for step, _ in read_run(stopped).adapters] == [3]

    for arguments in ([], ["--finish"], ["training.steps=20"]):
        answer = CLI.invoke(app, ["resume", str(stopped), *arguments])
        said = answer.output + str(answer.exception or "")
        assert f"it ended at step 3 of {STEPS}; to train the remaining steps: " in said, said
        assert "another run: sd-lora train" in said
        assert "steps are done" not in said
    command = said.partition("to train the remaining steps: ")[2].partition(";")[0]
    assert "lora.variant" not in said
    assert said.endswith("training.steps=17")  # 20 in all are 17 more, in a run of their own
    answer = CLI.invoke(app, shlex.split(command)[1:])
    assert answer.exit_code == 0, answer.output
    assert f"resuming after step 3 of {STEPS}" in answer.output
    assert body_of(stopped / "adapter.safetensors") == body_of(complete / "adapter.safetensors")
    assert_complete(stopped, STEPS)


@pytest.mark.slow
def test_a_reopened_run_is_not_finished(stopped: Path) -> None:
    finish(stopped)
    RunFolder(stopped).reopen()
    assert not RunFolder(stopped).is_finished
    assert read_run(stopped).can_resume
    assert interrupted(lambda: resumed(stopped, stop_after=5))
    assert (RunFolder(stopped).is_finished, RunFolder(stopped).reached) == (False, 5)


@pytest.mark.slow
def test_a_killed_run_is_ended_at_its_checkpoint(
    random_sd_folder: Path, images: Path, complete: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert interrupted(
        lambda: go(config_of(random_sd_folder, images, run, "training.checkpoint_every=2"), crash_after=5)
    )
    assert not (run / "adapter.safetensors").exists()
    assert finish(run).metadata["sdlora.steps"] == "4"
    assert body_of(run / "adapter.safetensors") == body_of(complete / "adapters" / "step-000004.safetensors")
    assert_complete(run, 4)
    assert (run / "log.jsonl").read_text().count("\n") == 4


def test_without_a_checkpoint_there_is_nothing_to_end(random_sd_folder: Path, images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert interrupted(lambda: go(config_of(random_sd_folder, images, run), crash_after=2))
    with pytest.raises(ConfigError, match="has no complete checkpoint, so there is no step to end it at"):
        finish(run)
    assert not RunFolder(run).is_finished


# ---- files taken out of a checkpoint


def without_metadata(file: Path) -> None:
    save_file(load_file(file), file)


@pytest.mark.parametrize(
    ("change", "words"), [(lambda _: None, r"step 3 of run run"), (without_metadata, "run's checkpoint")]
)
def test_an_adapter_of_a_checkpoint_is_named(
    change: Callable[[Path], None], words: str, stopped: Path, tmp_path: Path
) -> None:
    file = tmp_path / "style.safetensors"
    shutil.copy(stopped / "checkpoints" / "step-000003" / "adapter.safetensors", file)
    change(file)
    with pytest.raises(
        AdapterError, match=rf"part of a .*{words}.*not an adapter; use the adapter.safetensors of the run"
    ):
        Adapter.load(file)
    assert "sd-lora resume --finish RUN" in read_summary(file).problem
    for command in (["inspect", str(file)], ["convert", str(file), "--out", str(tmp_path / "new.safetensors")]):
        assert "not an adapter" in str(CLI.invoke(app, command).exception)
    config = RunFolder(stopped).read_config()
    with pytest.raises(AdapterError, match="not an adapter"):
        prepare(replace(config, lora=replace(config.lora, init=str(file))), planned=True)
