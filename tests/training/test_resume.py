"""A run that was stopped or has crashed ends as if it had not: the same bytes, the same log."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_runs import STEPS, body_of, config_of, go, interrupted, resumed, write_images
from typer.testing import CliRunner

import sd_lora
from sd_lora.commands.app import app
from sd_lora.errors import ConfigError, DataError
from sd_lora.runs.folder import RunFolder
from sd_lora.runs.lock import RunLock
from sd_lora.training.optimizers import OPTIMIZERS as TABLE
from sd_lora.training.run import RunNote
from sd_lora.training.stopping import RunInterrupted

SCHEDULE_FREE = ("optimizer.name=schedule-free", "optimizer.schedule=constant")
SPECIAL = {"prodigy": ("optimizer.learning_rate=1",), "schedule-free": SCHEDULE_FREE}
OPTIMIZERS = {name: (f"optimizer.name={name}", *SPECIAL.get(name, ())) for name in TABLE}
del OPTIMIZERS["adamw8bit"]  # needs a CUDA device
OPTIMIZERS["adamw"] = ()  # the default, whose run other tests share
PRECISIONS = {"float32": (), "bfloat16": ("model.dtype=bfloat16",)}
MICRO = {"whole": (), "one by one": ("training.micro_batch=1",)}
#: a crash in the step after the checkpoint of step 2, and a stop at the end of an epoch
ENDS = {"mid": {"crash_after": 3}, "boundary": {"stop_after": 3}}
CHECKPOINTING = "training.gradient_checkpointing=true"
FEED_FORWARD = "training.gradient_checkpointing=ff"
OTHERS = {
    "dropouts, noises and an average": (
        "lora.dropout=0.2", "lora.rank_dropout=0.3", "training.caption_dropout=0.5", "training.noise_offset=0.1",
        "training.multires_noise=0.3", "training.input_perturbation=0.1", "training.average=ema",
    ),
    "text encoders, robust losses, a tail and a cap": (
        "lora.targets=attn,text", "training.loss=huber", "training.timesteps=mixed", "training.weighting=min-snr",
        "training.average=tail", "optimizer.max_norm=0.01", "optimizer.plus_ratio=4",
    ),
    "dora, checkpointing, validation and a shared cache": (
        "lora.variant=dora", CHECKPOINTING, "training.hold_out=0.3", "training.validate_every=2",
        "data.cache={work}/cache",
    ),
    "samples": ("preview.every=1", *SCHEDULE_FREE),
}  # fmt: skip

Start = Callable[..., Any]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("resume") / "images")


@pytest.fixture(scope="module")
def whole(random_sd_folder: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Uninterrupted runs, each made once."""
    made: dict[tuple[str, ...], Path] = {}

    def make(*overrides: str) -> Path:
        if overrides not in made:
            made[overrides] = tmp_path_factory.mktemp("whole") / "run"
            go(config_of(random_sd_folder, images, made[overrides], "training.checkpoint_every=2", *overrides))
        return made[overrides]

    return make


def losses(run: Path) -> list[tuple[int, float, float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["learning_rate"]) for line in lines]


def assert_same(run: Path, other: Path) -> None:
    files = sorted(file.name for file in run.glob("adapter*.safetensors"))
    assert files == sorted(file.name for file in other.glob("adapter*.safetensors"))
    assert all(body_of(run / name) == body_of(other / name) for name in files)
    assert losses(run) == losses(other)
    assert [step for step, *_ in losses(run)] == list(range(1, len(losses(run)) + 1))


def covering() -> Iterator[Any]:
    """Two rows an optimizer, in which every two values of different settings meet at least once; the first row belongs
    to the first tier."""
    for number, optimizer in enumerate(OPTIMIZERS):
        micro, end = number % 2, number // 2 % 2
        for row in ((0, micro, end), (1, 1 - micro, 1 - end)):
            values = (list(table)[place] for table, place in zip((PRECISIONS, MICRO, ENDS), row, strict=True))
            yield pytest.param(optimizer, *values, marks=pytest.mark.slow if number or row[0] else ())


@pytest.mark.parametrize(("optimizer", "precision", "micro", "end"), covering())
def test_a_resumed_run_ends_with_the_same_bytes(
    optimizer: str, precision: str, micro: str, end: str, random_sd_folder: Path, images: Path, tmp_path: Path,
    whole: Callable[..., Path],
) -> None:  # fmt: skip
    overrides = (*OPTIMIZERS[optimizer], *PRECISIONS[precision], *MICRO[micro])
    expected = whole(*overrides)
    config = config_of(random_sd_folder, images, tmp_path / "run", "training.checkpoint_every=2", *overrides)
    assert interrupted(lambda: go(config, **ENDS[end]))
    reports = resumed(tmp_path / "run")
    assert reports[0].step == (3 if end == "mid" else 4)
    assert_same(tmp_path / "run", expected)


KILLED = """
import os, signal, sys, sd_lora
sd_lora.train(sd_lora.load_config(sys.argv[1]), watch=lambda r: r.step == 5 and os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_killed_process_is_resumed_to_the_same_bytes(
    random_sd_folder: Path, images: Path, tmp_path: Path, whole: Callable[..., Path]
) -> None:
    run, file = tmp_path / "run", tmp_path / "config.toml"
    config = config_of(random_sd_folder, images, run, "training.checkpoint_every=2")
    file.write_text(config.to_toml(), "utf-8")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(file)], check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert resumed(run)[0].step == 5
    assert_same(run, whole())


@pytest.mark.slow
@pytest.mark.parametrize("case", OTHERS)
def test_whatever_is_trained_resumes_exactly(
    case: str, random_sd_folder: Path, images: Path, tmp_path: Path, whole: Callable[..., Path]
) -> None:
    overrides = tuple(text.format(work=tmp_path) for text in OTHERS[case])
    config = config_of(random_sd_folder, images, tmp_path / "run", "training.checkpoint_every=2", *overrides)
    assert interrupted(lambda: go(config, crash_after=5))
    resumed(tmp_path / "run")
    assert_same(tmp_path / "run", whole(*overrides))


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 4])
def test_any_number_of_interruptions(
    times: int, random_sd_folder: Path, images: Path, tmp_path: Path, whole: Callable[..., Path]
) -> None:
    longer = "training.steps=12"
    config = config_of(random_sd_folder, images, tmp_path / "run", "training.checkpoint_every=1", longer)
    assert interrupted(lambda: go(config, crash_after=1))
    for step in range(2, times + 1):
        assert interrupted(lambda step=step: resumed(tmp_path / "run", crash_after=step))
    resumed(tmp_path / "run")
    assert_same(tmp_path / "run", whole(longer))


@pytest.mark.slow
def test_a_run_without_a_checkpoint_starts_anew_in_place(
    random_sd_folder: Path, images: Path, tmp_path: Path, whole: Callable[..., Path]
) -> None:
    config = config_of(random_sd_folder, images, tmp_path / "run", "training.checkpoint_every=100")
    assert interrupted(lambda: go(config, crash_after=3))
    assert [report.step for report in resumed(tmp_path / "run")] == list(range(1, STEPS + 1))
    assert_same(tmp_path / "run", whole())


@pytest.mark.slow
def test_micro_batches_and_checkpointing_change_next_to_nothing(whole: Callable[..., Path]) -> None:
    plain = losses(whole())
    for other in (whole(*MICRO["one by one"]), whole(CHECKPOINTING), whole(FEED_FORWARD)):
        assert [loss for _, loss, _ in losses(other)] == pytest.approx([loss for _, loss, _ in plain], rel=1e-4)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_and_told(
    random_sd_folder: Path, images: Path, tmp_path: Path, whole: Callable[..., Path]
) -> None:
    run = tmp_path / "run"
    config = config_of(random_sd_folder, images, run, "training.checkpoint_every=2")
    assert interrupted(lambda: go(config, crash_after=5))
    newest = max((run / "checkpoints").glob("step-*"))
    (newest / "optimizer.safetensors").write_bytes(b"torn")
    with pytest.warns(RunNote, match=r"step-000004"):
        sd_lora.resume(run)
    assert_same(run, whole())


@pytest.mark.slow
def test_a_run_is_moved_and_resumed(
    random_sd_folder: Path, images: Path, tmp_path: Path, whole: Callable[..., Path]
) -> None:
    config = config_of(random_sd_folder, images, tmp_path / "run", "training.checkpoint_every=2")
    assert interrupted(lambda: go(config, stop_after=2))
    shutil.move(tmp_path / "run", tmp_path / "moved")
    resumed(tmp_path / "moved")
    assert_same(tmp_path / "moved", whole())


def test_other_images_are_refused_by_name(random_sd_folder: Path, tmp_path: Path) -> None:
    own = write_images(tmp_path / "own", 5)
    config = config_of(random_sd_folder, own, tmp_path / "run", "training.checkpoint_every=1")
    assert interrupted(lambda: go(config, crash_after=2))
    shutil.copy(own / "0.png", own / "1.png")
    (own / "2.png").unlink()
    (own / "2.txt").unlink()
    (own / "3.txt").write_text("something else\n", "utf-8")
    shutil.copy(own / "4.png", own / "5.png")
    shutil.copy(own / "4.txt", own / "5.txt")
    with pytest.raises(DataError) as caught:
        resumed(tmp_path / "run")
    message = str(caught.value)
    assert all(f"{name}.png" in message for name in (1, 2, 3, 5))
    assert "0.png" not in message
    assert "4.png" not in message
    assert all(word in message for word in ("changed", "gone", "new", "put them back"))


@pytest.mark.slow
def test_a_run_in_use_is_left_alone(random_sd_folder: Path, images: Path, tmp_path: Path) -> None:
    config = config_of(random_sd_folder, images, tmp_path / "run")
    assert interrupted(lambda: go(config, stop_after=2))
    with RunLock(tmp_path / "run"), pytest.raises(ConfigError, match="in use by process"):
        resumed(tmp_path / "run")
    resumed(tmp_path / "run")


def test_the_command_resumes_says_what_is_finished_and_what_is_no_run(
    random_sd_folder: Path, images: Path, tmp_path: Path, whole: Callable[..., Path]
) -> None:
    run, call = tmp_path / "run", CliRunner()
    config = config_of(random_sd_folder, images, run, "training.checkpoint_every=2")
    with pytest.raises(RunInterrupted) as caught:
        go(config, stop_after=4)
    assert caught.value.exit_code == 128 + 15
    assert f"sd-lora resume {run}" in str(caught.value)
    assert RunFolder(run).is_finished is False
    done = call.invoke(app, ["resume", str(run)])
    assert done.exit_code == 0, done.output
    assert_same(run, whole())
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    done = call.invoke(app, ["resume", str(run)])
    assert done.exit_code == 0
    assert "finished" in done.output
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before
    with pytest.raises(ConfigError, match="is not a run"):
        call.invoke(app, ["resume", str(images)], catch_exceptions=False)
    with pytest.raises(ConfigError, match="sd-lora resume"):
        go(config)
