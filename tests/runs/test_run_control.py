"""Runs in processes of their own: what is told of them, and that they outlive whoever started them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_runs import write_images

from sd_lora.config.presets import load_config
from sd_lora.config.schema import RunConfig
from sd_lora.errors import ConfigError
from sd_lora.runs import process as run_process
from sd_lora.runs.control import resume_run, start_run, stop_run
from sd_lora.runs.lock import RunLock
from sd_lora.runs.state import RunState, list_runs, read_run, run_status

STEPS = 6
REPORT = {"step": 1, "steps": STEPS, "loss": 0.5, "learning_rate": 1e-3, "seconds": 0.2, "memory": 2**20}
SLEEPS = "import sys, time; print('up', flush=True); time.sleep(60)"


def config_of(images: Path, *overrides: str) -> RunConfig:
    return load_config(
        "tiny-style", f"data.folder={images}", "data.trigger=zwq", f"training.steps={STEPS}", "training.batch_size=1",
        "training.hold_out=0.25", "training.validate_every=3", "training.save_every=2", "preview.every=2",
        "preview.inference_steps=1", "preview.strengths=1", "lora.rank=2", "lora.targets=attn", *overrides,
    )  # fmt: skip


def waited(run: Path, done: Callable[[RunState], bool], seconds: float = 120) -> RunState:
    """The state of `run` once `done` says so; every state on the way is one that may be."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        state = read_run(run)
        if done(state):
            assert run_status(run) == state.status or state.is_alive
            return state
        assert state.is_alive, (state.status, state.error, state.log)
        time.sleep(0.02)
    raise AssertionError(f"nothing came of it: {read_run(run)}")


def ended(state: RunState) -> bool:
    return not state.is_alive


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """The folder of a run to be; what was started for it ends with the test."""
    yield tmp_path / "runs" / "my run.1"
    for record in (tmp_path / "runs" / ".logs").glob("*.json"):
        with suppress(ProcessLookupError, ValueError):
            os.killpg(json.loads(record.read_text())["pid"], signal.SIGKILL)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A run folder as a run that trained three of its steps would have left it."""
    folder = tmp_path / "runs" / "made"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(RunConfig().to_toml() + f"\n[unused]\n# {STEPS}\n")
    write_log(folder, 3)
    return folder


def write_log(folder: Path, count: int, more: str = "") -> None:
    lines = [json.dumps(REPORT | {"step": step, "steps": max(count, STEPS)}) + "\n" for step in range(1, count + 1)]
    (folder / "log.jsonl").write_text("".join(lines) + more)


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[str]]:
    """A process that is none of ours."""
    with subprocess.Popen([sys.executable, "-c", SLEEPS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
        process.kill()


@pytest.mark.slow
def test_a_run_is_started_stopped_killed_and_resumed_to_its_end(run: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "--pictures", 4)  # a name that looks like an option
    number = start_run(config_of(images), run)
    assert read_run(run).status == "starting"
    assert os.getsid(number) == number  # what ends this process does not end it
    assert list_runs(run.parent) == [run]
    with pytest.raises(ConfigError, match="exists"):
        start_run(config_of(images), run)
    with pytest.raises(ConfigError, match=r"my run.1 is running, and at most 1"):
        start_run(config_of(images), run.with_name("other"), most=1)

    assert waited(run, lambda s: s.status == "running").can_resume is False
    with pytest.raises(ConfigError, match="is already running"):
        resume_run(run)
    stop_run(run)
    stop_run(run)  # no second signal, which would end it unsaved
    stopped = waited(run, ended)
    assert (stopped.status, stopped.error, stopped.can_resume) == ("stopped", "", True)
    assert 1 <= stopped.step < STEPS
    assert f"stopped after step {stopped.step} of {STEPS}, and saved" in stopped.log
    assert (run / "checkpoints" / f"step-{stopped.step:06}" / "manifest.json").is_file()
    assert f"the adapter so far is {run / 'adapter.safetensors'}" in stopped.log
    assert stopped.adapters[-1] == (stopped.step, run / "adapter.safetensors")
    assert not psutil.pid_exists(number)  # not even as a zombie
    assert sorted(p.name for p in (run.parent / ".logs").iterdir()) == ["my run.1.json", "my run.1.log"]

    number = resume_run(run)
    waited(run, lambda s: s.status == "running")
    os.kill(number, signal.SIGKILL)
    killed = waited(run, ended)
    assert (killed.status, killed.can_resume) == ("failed", True)
    assert "killed" in killed.error

    resume_run(run)
    assert read_run(run).status == "starting"
    done = waited(run, ended)
    assert (done.status, done.step, done.steps, done.can_resume) == ("finished", STEPS, STEPS, False)
    assert done.error == ""
    assert [step for step, _, _ in done.losses] == list(range(1, STEPS + 1))
    assert [step for step, _ in done.samples] == [2, 4, STEPS]
    assert [step for step, _ in done.adapters] == [2, 4, STEPS]
    assert [step for step, _, _ in done.validation] == [3, STEPS]
    assert done.memory > 0
    assert done.seconds is not None
    assert done.seconds > 0
    with pytest.raises(ConfigError, match="finished"):
        resume_run(run)
    with pytest.raises(ConfigError, match="nothing to stop"):
        stop_run(run)


def test_a_stopped_run_is_resumed_or_ended_where_it_is(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr("sd_lora.runs.control._spawn", lambda _, arguments: commands.append(arguments))
    resume_run(made)
    resume_run(made, finish=True)
    assert commands == [["resume", "--", str(made)], ["resume", "--finish", "--", str(made)]]


@pytest.mark.slow
def test_a_run_that_cannot_begin_says_why_and_its_name_is_free_again(run: Path, tmp_path: Path) -> None:
    number = start_run(config_of(tmp_path / "nowhere"), run)
    with pytest.raises(ConfigError, match=r"no config\.toml"):
        resume_run(run)
    failed = waited(run, ended)
    assert (failed.status, failed.can_resume, failed.step) == ("failed", False, 0)
    assert "nowhere" in failed.error
    assert not failed.error.startswith("error")
    assert failed.log.startswith("$ sd-lora train")
    assert list_runs(run.parent) == [run]  # whoever started it must find out
    assert not psutil.pid_exists(number)
    number = start_run(config_of(tmp_path / "nowhere"), run)
    stop_run(run)  # before it has begun
    state = waited(run, ended)
    assert (state.status, state.can_resume) == ("stopped", False)


def test_configs_that_cannot_be_written_are_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.folder is empty"):
        start_run(load_config("tiny-style"), run)
    config = config_of(Path("photos"))
    with pytest.raises(ConfigError, match="invalid character"):
        start_run(replace(config, data=replace(config.data, default_caption="\ud800")), run)
    assert not run.parent.exists()


def forge(folder: Path, pid: int, **more: Any) -> None:
    owner = {"pid": pid, "host": socket.gethostname(), "since": 4e9} | more
    (folder / ".lock").write_text(json.dumps(owner))


def test_a_foreign_process_in_a_forged_lock_is_not_signalled(
    made: Path, stranger: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    forge(made, stranger.pid)
    assert read_run(made).status == "failed"  # named, but nobody holds it
    with pytest.raises(ConfigError, match="nothing to stop"):
        stop_run(made)
    with RunLock(made):  # held, but not by the process that is named
        forge(made, stranger.pid)
        assert read_run(made).status == "running"
        with pytest.raises(ConfigError, match=f"process {stranger.pid}, .* may not be this run"):
            stop_run(made)
        forge(made, os.getpid())
        with pytest.raises(ConfigError, match="may not be"):
            stop_run(made)
        forge(made, stranger.pid, host="elsewhere")
        with pytest.raises(ConfigError, match="runs on elsewhere"):
            stop_run(made)
        monkeypatch.setattr(psutil.Process, "cmdline", lambda _: [sys.executable, "-m", "sd_lora", "webui"])
        forge(made, os.getpid())  # a program that trains in its own process does not stop itself
        with pytest.raises(ConfigError, match="may not be"):
            stop_run(made)
    assert stranger.poll() is None


@pytest.mark.parametrize(("name", "opened"), [("sd_lora", True), ("sd_lora", False), ("other", True)])
def test_only_our_command_line_that_has_the_lock_open_is_signalled(
    made: Path, tmp_path: Path, name: str, opened: bool
) -> None:
    script = tmp_path / f"{name}.py"
    hold = f"handle = open({str(made / '.lock')!r}, 'r+'); fcntl.flock(handle, fcntl.LOCK_EX); " if opened else ""
    script.write_text(f"import fcntl; {hold}{SLEEPS}")
    forge(made, 1)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            with nullcontext() if opened else RunLock(made):
                forge(made, process.pid)
                if (name, opened) == ("sd_lora", True):
                    stop_run(made)
                    assert process.wait(10) == -signal.SIGTERM
                    assert read_run(made).status == "failed"
                else:
                    with pytest.raises(ConfigError, match="may not be"):
                        stop_run(made)
                    assert process.poll() is None
        finally:
            process.kill()


def test_a_number_given_anew_after_a_restart_is_nobody(made: Path, stranger: subprocess.Popen[str]) -> None:
    forge(made, stranger.pid, since=1e9)
    home = made.parent / ".logs"
    home.mkdir()
    (home / "made.json").write_text(json.dumps({"pid": stranger.pid, "host": socket.gethostname(), "since": 1e9}))
    assert read_run(made).status == "failed"
    with RunLock(made):
        forge(made, stranger.pid, since=1e9)
        assert read_run(made).status == "failed"
        with pytest.raises(ConfigError, match="nothing to stop"):
            stop_run(made)


def test_the_lock_is_not_tried_while_a_run_may_want_it(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To try a lock is to hold it for a moment, in which a run that starts would be refused."""
    monkeypatch.setattr("sd_lora.runs.process._is_held", lambda _: pytest.fail("tried"))
    for text in ("", "{", json.dumps({"pid": 2**22 + 1, "host": socket.gethostname(), "since": 4e9})):
        (made / ".lock").write_text(text)
        assert not read_run(made).is_alive


def test_a_run_of_the_command_line_is_told_from_its_files(made: Path) -> None:
    state = read_run(made)
    assert (state.name, state.status, state.step, state.steps, state.log) == ("made", "stopped", 3, STEPS, "")
    assert state.can_resume
    assert state.losses == ((1, 0.5, 0.5), (2, 0.5, 0.5), (3, 0.5, 0.5))
    assert (state.learning_rate, state.seconds, state.memory, state.eta) == (1e-3, 0.2, 2**20, None)
    with RunLock(made):
        running = read_run(made)
        assert running.status == "running"
        assert running.eta == pytest.approx(3 * 0.2)


@pytest.mark.parametrize(
    "torn", ['{"step": 4, "ste', "\0\0", "[1, 2]", '{"step": "x", "loss": NaN}', "\xff", "9" * 5000]
)
def test_torn_files_are_read_as_far_as_they_go(made: Path, torn: str) -> None:
    write_log(made, 3, torn)
    for name in ("validation.jsonl", ".lock", "config.toml"):
        (made / name).write_text(torn)
    logs = made.parent / ".logs"
    logs.mkdir()
    for name in ("made.json", "made.log"):
        (logs / name).write_text(torn, encoding="latin-1")
    assert [step for step, _, _ in read_run(made).losses] == [1, 2, 3]
    with pytest.raises(ConfigError, match="nothing to stop"):
        stop_run(made)


def test_what_has_vanished_or_is_no_file_is_told(made: Path, tmp_path: Path) -> None:
    gone = read_run(tmp_path / "gone")
    assert (gone.status, gone.can_resume) == ("failed", False)
    assert "no longer exists" in gone.error
    (made / "log.jsonl").unlink()
    os.mkfifo(made / "log.jsonl")  # reading it would never end
    (made / "samples").write_text("no folder")
    assert read_run(made).losses == ()
    assert list_runs(tmp_path / "gone") == []
    assert list_runs(made / "config.toml") == []


def test_the_last_error_of_the_last_process_is_told(made: Path) -> None:
    logs = made.parent / ".logs"
    logs.mkdir()
    old = "$ sd-lora train\nerror: of old\n$ sd-lora resume\x1b[2J\n"
    fault = "Traceback (most recent call last):\n  x\nKeyError: 'y'"
    for said, status, error in (
        ("step 3", "stopped", ""),
        ("error: one\nerror: photos cannot be:\n  a\n  b", "failed", "photos cannot be: a b"),
        ("stopped after step 3 of 6, and saved", "stopped", ""),
        (fault, "failed", "a bug in the program, KeyError: 'y'"),
    ):
        (logs / "made.log").write_text(f"{old}{said}\n")
        state = read_run(made)
        assert (state.status, error in state.error, bool(state.error)) == (status, True, bool(error))
        assert "of old" not in state.log
        assert "\x1b" not in state.log
    (made / ".lock").write_text("")
    (logs / "made.log").write_text("$ sd-lora resume\n")
    for stopping, status in ((True, "stopped"), (False, "failed")):  # killed before it had the lock, or asked to stop
        process = {"pid": 2**22 + 1, "host": socket.gethostname(), "since": time.time(), "stopping": stopping}
        (logs / "made.json").write_text(json.dumps(process))
        assert read_run(made).status == status
    os.utime(logs / "made.log", (1, 1))  # another process has worked on the run since
    assert (read_run(made).status, read_run(made).error) == ("stopped", "")


def test_of_a_long_run_a_share_is_read(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads, parsed = json.loads, list[str]()
    for steps in (10_000, 40_000):
        report = REPORT | {"grad_norm": 0.1234567890123, "by_noise": [0.1234567890123456] * 4, "alarms": []}
        lines = [json.dumps(report | {"step": i, "steps": steps, "loss": i / steps}) for i in range(1, steps + 1)]
        (made / "log.jsonl").write_text("\n".join(lines) + "\n")
        parsed.clear()
        with monkeypatch.context() as patch:
            patch.setattr(json, "loads", lambda line: (parsed.append(line), loads(line))[1])
            state = read_run(made)
        assert state.step == state.losses[-1][0] == steps
        assert state.losses[0][0] < steps / 500
        assert 300 < len(state.losses) <= 800
        assert all(abs(loss - step / steps) < 1e-9 and mean <= loss for step, loss, mean in state.losses)
        assert [step for step, _, _ in state.losses] == sorted({step for step, _, _ in state.losses})
        assert len(parsed) < 4000


def test_runs_are_listed_newest_first_and_hidden_ones_are_not(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "older", "oldest", ".hidden")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text("")
        os.utime(tmp_path / name / "config.toml", (time.time() - age,) * 2)
    (tmp_path / "no run").mkdir()
    assert [path.name for path in list_runs(tmp_path)] == ["new", "older", "oldest"]


def test_ended_processes_are_not_kept(monkeypatch: pytest.MonkeyPatch, made: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    monkeypatch.setattr(run_process, "children", [child])
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    read_run(made)
    assert not psutil.pid_exists(child.pid)
    assert run_process.children == []
