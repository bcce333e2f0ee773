"""What is shown while training and at the end of a run: rates, means, what is going on, and where things lie."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import threading
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from sd_lora.commands.console import print_demo, print_run
from sd_lora.commands.progress import TrainingProgress
from sd_lora.config.presets import load_config
from sd_lora.runs.logs import smoothed
from sd_lora.runs.reports import StepReport
from sd_lora.training.sidecars import model_card
from sd_lora.training.stopping import StopSignals

STEPS = 60
LOSSES = [1.0 / step for step in range(1, STEPS + 1)]


def report(step: int, seconds: float = 0.1) -> StepReport:
    return StepReport(step, STEPS, LOSSES[step - 1], 1e-3, seconds, memory=2**30)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The time, which stands still until it is set."""
    now = SimpleNamespace(time=1000.0)
    monkeypatch.setattr("sd_lora.commands.progress.time.monotonic", lambda: now.time)
    return now


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is written to a terminal."""
    written = io.StringIO()
    monkeypatch.setattr(
        "sd_lora.commands.progress.Console", lambda: Console(file=written, force_terminal=True, width=200)
    )
    return written


def test_what_is_drawn_between_steps_does_not_slow_the_rate(clock: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress() as progress:
        for step in range(1, 41):
            clock.time += 60 if step % 10 == 0 else 0.1
            progress.show(report(step))
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all("  10.0 steps/s  " in line for line in lines)
    assert lines[-1].startswith("step 40/60  10.0 steps/s  2 s left")


def test_slow_steps_are_told_in_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress() as progress:
        progress.show(report(STEPS, seconds=2.5))
    assert "  2.5 s/step  0 s left" in capsys.readouterr().out


@pytest.mark.parametrize("first", [1, 31])
def test_the_mean_loss_is_that_of_the_loss_curve(
    first: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a run that was resumed too, whose log has what came before."""
    log = tmp_path / "log.jsonl"
    lines = [json.dumps(asdict(report(step))) for step in range(1, first + 3)]
    log.write_text("\n".join([*lines, "[]", '{"loss": 3}', '{"step": 4, "lo']), "utf-8")
    with TrainingProgress(log) as progress:
        for step in range(first, STEPS + 1):
            progress.show(report(step))
    mean = smoothed(LOSSES, STEPS // 20)[-1]
    assert f"mean loss {mean:.4f}" in capsys.readouterr().out


def test_the_first_mean_of_a_resumed_run_has_what_came_before(
    tmp_path: Path, clock: Any, terminal: io.StringIO
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(asdict(report(i + 1))) + "\n" for i in range(len(LOSSES))), "utf-8")
    with TrainingProgress(log) as progress:
        progress.show(report(10))
    assert f"mean loss {smoothed(LOSSES[:10], 3)[-1]:.4f}" in terminal.getvalue()


def test_encoding_shows_no_loss_and_the_end_says_that_samples_are_drawn(clock: Any, terminal: io.StringIO) -> None:
    with TrainingProgress() as progress:
        clock.time += 2
        progress.encoding(4, 12)
    shown = terminal.getvalue()
    assert "4/12" in shown
    assert "2.0/s  4 s left" in shown
    assert "loss" not in shown
    with TrainingProgress() as progress:
        progress.show(report(STEPS))
    assert "drawing samples" in terminal.getvalue()


@pytest.mark.parametrize(
    ("step", "said"), [(0, "stopping after the next step"), (3, "stopping after this step"), (STEPS, "ending after")]
)
def test_the_first_signal_is_answered_at_once(step: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    for number, again in ((signal.SIGINT, "; press Ctrl-C again to stop at once\n"), (signal.SIGTERM, "\n")):
        with TrainingProgress() as progress, StopSignals(progress.stopping) as signals:
            if step:
                progress.show(report(step))
            capsys.readouterr()
            before = set(threading.enumerate())
            os.kill(os.getpid(), number)
            assert signals.received == number
            for thread in set(threading.enumerate()) - before:
                thread.join()
        answered = capsys.readouterr().out
        assert answered.startswith(said)
        assert answered.endswith(again)
        assert ("Ctrl-C" in answered) == (number == signal.SIGINT)


def test_the_end_of_a_run_names_what_is_there_and_quotes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "my run"
    run.mkdir()
    (run / "adapter.safetensors").write_bytes(b"0" * 2048)
    config = load_config("tiny-style", 'data.trigger=a "b" $c', "model.base=/my base", "training.average=tail")
    print_run(run, config)
    said = capsys.readouterr().out
    for name in ("validation.png", "adapter-tail", "adapters", "loss.png", "samples"):
        assert name not in said
    for name in ("validation.png", "adapter-tail.safetensors", "loss.png"):
        (run / name).touch()
    for name in ("adapters", "samples"):
        (run / name).mkdir()
    print_run(run, config)
    said = capsys.readouterr().out
    for name in ("validation.png", "adapter-tail.safetensors", "adapters", "loss.png", "samples"):
        assert f"  {run / name}\n" in said
    (command,) = (line.removeprefix("Next: ") for line in said.splitlines() if line.startswith("Next: "))
    adapter, prompt = str(run / "adapter.safetensors"), 'your prompt, in a "b" $c style'
    assert shlex.split(command) == ["sd-lora", "preview", adapter, "--base", "/my base", "--prompt", prompt]
    compile("\n".join(line.strip() for line in said.split("installed):")[1].splitlines()), "snippet", "exec")


def test_the_end_of_the_demo_quotes_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = tmp_path / "my demo" / "run" / "adapter.safetensors"
    adapter.parent.mkdir(parents=True)
    adapter.touch()
    print_demo(tmp_path / "my demo", [])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("Next: "))
    assert shlex.split(line)[3] == str(adapter)


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("tiny", "import sd_lora\nfrom diffusers import DiffusionPipeline\n\npipe = DiffusionPipeline.from_pretrained("
                 "sd_lora.tiny_base_path())\n"),
        ("sd15", 'from_pretrained("path/to/sd15", torch_dtype=torch.float16).to("cuda")\n'),
        ("owner/name", 'from_pretrained("owner/name", torch_dtype=torch.float16).to("cuda")\n'),
    ],
)  # fmt: skip
def test_the_model_card_opens_the_base(base: str, said: str) -> None:
    keys = ("ss_output_name", "sdlora.trigger", "sdlora.family", "modelspec.trigger_phrase", "sdlora.variant",
            "ss_num_train_images", "ss_steps", "sdlora.version", "ss_network_dim", "ss_learning_rate",
            "modelspec.resolution", "modelspec.prediction_type")  # fmt: skip
    facts = {"sdlora.base": base, "sdlora.family": "sd"}
    adapter: Any = SimpleNamespace(
        metadata=dict.fromkeys(keys, "x") | facts, weights={"unet.x": SimpleNamespace(rank=4)}, variant="lora"
    )
    card = model_card(adapter)
    assert said in card
    compile(card.split("```python\n")[1].split("```")[0], "card", "exec")
