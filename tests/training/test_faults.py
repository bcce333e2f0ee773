"""Numbers that are none, memory that is full, signals: how a run ends, and what of it is kept."""

from __future__ import annotations

import os
import random
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import STEPS, body_of, config_of, go, resumed, valid_steps, write_images
from torch import Tensor

from sd_lora.data.encoded import Batch, EncodedSet
from sd_lora.errors import TrainingStopped
from sd_lora.lora.norms import delta_norms
from sd_lora.models.objectives import Objective
from sd_lora.runs.folder import RunFolder
from sd_lora.training import loop as loop_module
from sd_lora.training.averages import Average
from sd_lora.training.checkpoints import Checkpoints
from sd_lora.training.loop import Trainer
from sd_lora.training.memory import OutOfMemory
from sd_lora.training.preparation import prepare
from sd_lora.training.run import run_training
from sd_lora.training.stopping import RunInterrupted, StopSignals

Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("faults") / "images")


def nth(call: Callable[..., Any], when: Callable[[int], bool], change: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, whose results are changed at those of its calls (from 1) that `when` picks."""
    count = [0]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        count[0] += 1
        result = call(*args, **kwargs)
        return change(result) if when(count[0]) else result

    return wrapped


class BadGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, value: float) -> Tensor:
        ctx.value = value
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient * ctx.value, None


def bad_latents(patch: Patch, step: int, value: float) -> None:
    def spoil(batch: Batch) -> Batch:
        latents = batch.latents.clone()
        latents[0, 0, 0, 0] = value
        return Batch(latents, batch.conditioning, batch.captions, batch.names, batch.weights)

    patch.setattr(EncodedSet, "batch", nth(EncodedSet.batch, lambda n: n == step, spoil))


def bad_loss(patch: Patch, step: int, value: float) -> None:
    patch.setattr(Objective, "losses", nth(Objective.losses, lambda n: n == step, lambda losses: losses * value))


def bad_gradient(patch: Patch, step: int, value: float) -> None:
    change = lambda losses: BadGradient.apply(losses, value)  # noqa: E731
    patch.setattr(Objective, "losses", nth(Objective.losses, lambda n: n == step, change))


def bad_rate(patch: Patch, step: int, value: float) -> None:
    patch.setattr(loop_module, "rate_share", nth(loop_module.rate_share, lambda n: n == step, lambda _: value))


def bad_average(patch: Patch, step: int, value: float) -> None:
    plain, count = Average.update, [0]

    def update(self: Average, number: int) -> None:
        plain(self, number)
        count[0] += 1
        if count[0] == step:
            next(iter(self.tensors.values())).view(-1)[0] = value

    patch.setattr(Average, "update", update)


FAULTS = {"latents": bad_latents, "loss": bad_loss, "gradient": bad_gradient, "rate": bad_rate, "average": bad_average}


def assert_no_bad_byte(run: Path) -> None:
    for file in run.rglob("*.safetensors"):
        from safetensors.torch import load_file

        assert all(bool(torch.isfinite(tensor).all()) for tensor in load_file(file).values()), file


def at_the_start_and_later() -> Iterator[Any]:
    """Each fault in the first step and in a later one, once as NaN and once as infinity."""
    for number, fault in enumerate(FAULTS):
        values = (float("nan"), float("inf")) if number % 2 else (float("inf"), float("nan"))
        for step, value in zip((1, (4, STEPS)[number % 2]), values, strict=True):
            yield pytest.param(fault, step, value, marks=() if (fault, step) == ("loss", STEPS) else pytest.mark.slow)


@pytest.mark.parametrize(("fault", "step", "value"), at_the_start_and_later())
def test_a_number_that_is_none_stops_the_run_and_the_last_good_state_is_kept(
    fault: str, step: int, value: float, random_sd_folder: Path, images: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    run = tmp_path / "run"
    more = ("training.average=ema",) if fault == "average" else ()
    config = config_of(random_sd_folder, images, run, "training.checkpoint_every=4", "data.flip=false", *more)
    with monkeypatch.context() as patch:
        FAULTS[fault](patch, step, value)
        with pytest.raises(TrainingStopped) as caught:
            go(config)
    message = str(caught.value)
    assert caught.value.exit_code == 6
    assert "is NaN or infinite" in message
    assert "\n" not in message
    assert_no_bad_byte(run)
    assert not (run / "adapter.safetensors").exists()
    kept = valid_steps(Checkpoints(run / "checkpoints", 2))
    good = step - 1
    if fault in ("latents", "loss", "gradient"):
        assert kept[-1:] == ([good] if good else [])
        assert ".png" in message  # the images of the step
    else:  # seen when the state is next to be saved, or when the weights are no numbers: what is on disk stays
        assert all(number <= good for number in kept)
    assert (f"step {kept[-1]} is kept" if kept else "nothing was kept") in message
    resumed(run)  # the fault is gone: from the last good state to the end
    assert (run / "adapter.safetensors").exists()
    assert_no_bad_byte(run)


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_an_image_whose_latents_are_no_numbers_is_named(
    value: float, random_sd_folder: Path, images: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    config = config_of(random_sd_folder, images, tmp_path / "run")
    run = prepare(config)
    encode = nth(run.family.encode_images, lambda n: n == 2, lambda latents: latents * value)
    monkeypatch.setattr(run.family, "encode_images", encode)
    with pytest.raises(TrainingStopped) as caught:
        run_training(run)
    assert "1.png" in str(caught.value)
    assert caught.value.exit_code == 6


# ---- memory

KINDS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"),
    "python": MemoryError(),
}


class Full:
    """Memory that is full at some of the calls of the denoiser, or whenever more than `most` images are computed."""

    def __init__(self, patch: Patch, error: BaseException, when: Callable[[int, int], bool]) -> None:
        self.calls, self.sizes = 0, list[int]()
        plain = Objective.losses

        def losses(objective: Objective, prediction: Tensor, *rest: Any) -> Tensor:
            self.calls += 1
            self.sizes.append(len(prediction))
            if when(self.calls, len(prediction)):
                raise error
            return plain(objective, prediction, *rest)

        patch.setattr(Objective, "losses", losses)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "step"), [("cuda", 1), ("cpu", 3), ("python", STEPS)])
def test_a_step_that_does_not_fit_is_tried_once_more_in_the_leanest_way(
    kind: str, step: int, random_sd_folder: Path, images: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    one_size = "data.buckets=false"
    full = Full(monkeypatch, KINDS[kind], lambda call, size: call >= step and size > 1)
    reports = go(config_of(random_sd_folder, images, tmp_path / "run", one_size))
    assert [report.step for report in reports] == list(range(1, STEPS + 1))
    assert full.sizes[: step - 1] == [2] * (step - 1)
    assert full.sizes[step:] == [1] * (2 * (STEPS - step + 1))
    assert any("memory" in alarm for alarm in reports[step - 1].alarms)
    if step == 1:
        monkeypatch.undo()
        go(config_of(random_sd_folder, images, tmp_path / "lean", "training.micro_batch=1", one_size,
                     "training.gradient_checkpointing=true"))  # fmt: skip
        assert body_of(tmp_path / "run" / "adapter.safetensors") == body_of(tmp_path / "lean" / "adapter.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "step"), [("cuda", 1), ("cpu", 4), ("python", STEPS)])
def test_what_does_not_fit_at_all_ends_with_the_figures_and_can_be_resumed(
    kind: str, step: int, random_sd_folder: Path, images: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        Full(patch, KINDS[kind], lambda call, _: call >= step)
        with pytest.raises(OutOfMemory, match=rf"step {step} does not fit .* GB .* GB free") as caught:
            go(config_of(random_sd_folder, images, run, "data.buckets=false", "training.checkpoint_every=2"))
    assert caught.value.exit_code == 5
    assert valid_steps(Checkpoints(run / "checkpoints", 2))[-1:] == ([step - 1] if step > 1 else [])
    reports = resumed(run)
    assert reports[0].step == step


@pytest.mark.slow
def test_another_error_is_not_taken_for_full_memory(
    random_sd_folder: Path, images: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    full = Full(monkeypatch, RuntimeError("mat1 and mat2 shapes cannot be multiplied"), lambda call, _: call == 2)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        go(config_of(random_sd_folder, images, tmp_path / "run", "data.buckets=false"))
    assert full.calls == 2


# ---- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_kept_and_the_second_acts(number: signal.Signals) -> None:
    heard = list[int]()
    before = signal.signal(number, lambda n, _: heard.append(n))
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), number)
            assert signals.received == number
            assert not heard
            os.kill(os.getpid(), number)
            assert heard == [number]
        with StopSignals() as signals:
            pass
        os.kill(os.getpid(), number)
        assert heard == [number, number]
        assert not signals.received
    finally:
        signal.signal(number, before)


def test_other_threads_do_not_touch_the_handlers() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def enter() -> None:
        with StopSignals() as signals:
            assert signals.received == 0
            assert signal.getsignal(signal.SIGTERM) is before

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_signals_at_random_times_save_and_the_run_ends_the_same(
    random_sd_folder: Path, images: Path, tmp_path: Path
) -> None:
    """Fifteen of them, at any moment of a step, of a save or of a drawing."""
    steps, dice, round_, codes = 20, random.Random(0), 0, list[tuple[int, int]]()
    plain = ("training.checkpoint_every=4", "preview.every=10", f"training.steps={steps}")
    go(config_of(random_sd_folder, images, tmp_path / "whole", *plain))
    while len(codes) < 15:
        run = tmp_path / f"run-{round_}"
        config, again = config_of(random_sd_folder, images, run, *plain), False
        while not (run / "diffusers" / "README.md").exists():
            number = dice.choice([signal.SIGINT, signal.SIGTERM])
            with StopSignals() as signals, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                prepared = prepare(config, resumed=again)
                timer = threading.Timer(dice.uniform(0, 0.5), os.kill, (os.getpid(), number))
                if len(codes) < 15:
                    timer.start()
                try:
                    run_training(prepared, stop=lambda signals=signals: signals.received)
                except RunInterrupted as error:
                    codes.append((error.exit_code, number))
                timer.cancel()
                if timer.ident:
                    timer.join()
            config, again = RunFolder(run).read_config(), True
        assert body_of(run / "adapter.safetensors") == body_of(tmp_path / "whole" / "adapter.safetensors")
        round_ += 1
    assert all(code == 128 + number for code, number in codes)


# ---- samples


@pytest.mark.slow
def test_a_sample_that_cannot_be_drawn_ends_nothing(
    random_sd_folder: Path, images: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("no picture today")

    monkeypatch.setattr("sd_lora.preview.previewer.Previewer.grid", broken)
    notes = list[str]()
    run = prepare(config_of(random_sd_folder, images, tmp_path / "run", "preview.every=3"))
    run_training(run, on_note=notes.append)
    assert [note for note in notes if "no picture today" in note]
    assert (tmp_path / "run" / "adapter.safetensors").exists()
    assert (tmp_path / "run" / "diffusers" / "README.md").exists()
    assert not (tmp_path / "run" / "adapter.png").exists()


# ---- alarms


def alarms(config: Any) -> list[str]:
    notes = list[str]()
    run_training(prepare(config), on_note=notes.append)
    return notes


@pytest.mark.slow
def test_an_adapter_that_learns_nothing_is_told(
    random_sd_folder: Path, images: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    longer = "training.steps=60"
    assert not alarms(config_of(random_sd_folder, images, tmp_path / "well", longer, "optimizer.learning_rate=1e-4"))
    monkeypatch.setattr(loop_module, "rate_share", lambda *_: 0.0)
    found = alarms(config_of(random_sd_folder, images, tmp_path / "run", longer, "optimizer.weight_decay=0"))
    assert [note for note in found if "still changes nothing" in note]
    assert len(found) == 1


@pytest.mark.slow
def test_an_adapter_that_outgrows_the_base_is_told_once(random_sd_folder: Path, images: Path, tmp_path: Path) -> None:
    fast = ("training.steps=40", "optimizer.learning_rate=0.3")
    found = alarms(config_of(random_sd_folder, images, tmp_path / "run", *fast))
    assert len([note for note in found if "times their own weights" in note]) == 1


@pytest.mark.slow
def test_the_cap_on_norms_holds(random_sd_folder: Path, images: Path, tmp_path: Path) -> None:
    most = list[float]()
    plain = Trainer._update

    def update(self: Trainer, *step: Any) -> None:
        plain(self, *step)
        most.append(max(delta_norms(list(self._trained.layers.values()))))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_update", update)
        go(config_of(random_sd_folder, images, tmp_path / "run", "optimizer.max_norm=0.05"))
    assert max(most) <= 0.05 * (1 + 1e-5)
    assert max(most) > 0.04
