"""A stage of the rebuild that is interrupted and started again ends where an uninterrupted one would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import benchmarks.tiny_base.stage as stage_module
from benchmarks.tiny_base.stage import Stage, step_generator

pytestmark = pytest.mark.slow

STEPS = 12


class Interrupted(Exception):
    pass


def new_stage(work: Path, steps: int = STEPS) -> Stage:
    torch.manual_seed(0)
    return Stage("toy", nn.Linear(3, 2), work, steps, lambda step: 0.05 * (1 - step / STEPS), ema=0.9)


def loss_of(model: nn.Module, stop_at: int | None = None) -> Callable[[int], Tensor]:
    def loss(step: int) -> Tensor:
        if step == stop_at:
            raise Interrupted
        x = torch.randn(4, 3, generator=step_generator(1, step))
        return (model(x) - x[:, :2].flip(1)).square().mean()

    return loss


def finished(work: Path, stops: tuple[int, ...] = (), save_every: int = 2) -> Stage:
    work.mkdir(exist_ok=True)
    for stop in stops:
        stage = new_stage(work)
        with pytest.raises(Interrupted):
            stage.run(loss_of(stage.model, stop), save_every=save_every)
    stage = new_stage(work)
    stage.run(loss_of(stage.model), save_every=save_every)
    return stage


def assert_equal(one: Stage, other: Stage) -> None:
    for a, b in zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert one.ema.keys() == other.ema.keys()
    assert all(torch.equal(one.ema[key], other.ema[key]) for key in one.ema)
    assert one.losses == pytest.approx(other.losses, abs=2e-5)


@pytest.mark.parametrize("stops", [(7,), (2,), (3, 4, 9), (1, 11)])
def test_an_interrupted_stage_ends_as_an_uninterrupted_one(stops: tuple[int, ...], tmp_path: Path) -> None:
    assert_equal(finished(tmp_path / "cut", stops), finished(tmp_path / "whole"))


@pytest.mark.slow
def test_interrupting_is_felt_when_nothing_was_saved(tmp_path: Path) -> None:
    """The test above would pass for nothing if stages did not resume at all: this one says that they do."""
    finished(tmp_path / "a", (7,))
    stage = new_stage(tmp_path / "a")
    assert stage.step == STEPS
    assert len(stage.losses) == STEPS
    steps: list[int] = []
    stage.run(lambda step: steps.append(step) or torch.zeros(()))  # type: ignore[func-returns-value]
    assert steps == []


@pytest.mark.slow
def test_it_resumes_at_the_last_saved_step(tmp_path: Path) -> None:
    stage = new_stage(tmp_path)
    with pytest.raises(Interrupted):
        stage.run(loss_of(stage.model, 7), save_every=3)
    assert new_stage(tmp_path).step == 6
    assert [file.name for file in tmp_path.iterdir()] == ["toy.safetensors"]


def test_it_learns_and_averages(tmp_path: Path) -> None:
    stage = finished(tmp_path)
    assert sum(stage.losses[-3:]) < sum(stage.losses[:3])
    trained = {key: value.clone() for key, value in stage.model.state_dict().items()}
    stage.use_average()
    assert any(not torch.equal(value, trained[key]) for key, value in stage.model.state_dict().items())
    assert all(torch.equal(value, stage.ema[key]) for key, value in stage.model.state_dict().items())


def test_a_new_work_folder_goes_on_from_the_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "SNAPSHOTS", tmp_path / "kept")
    monkeypatch.setattr(stage_module, "_WARM_UP", 4)

    def snapshotting(work: Path) -> Stage:
        work.mkdir(exist_ok=True)
        torch.manual_seed(1)
        return Stage("toy", nn.Linear(3, 2), work, STEPS, lambda _: 0.05, ema=0.9, snapshot_every=8)

    first = snapshotting(tmp_path / "first")
    with pytest.raises(Interrupted):
        first.run(loss_of(first.model, 9), save_every=100)
    assert not list((tmp_path / "first").iterdir())
    second = snapshotting(tmp_path / "second")
    assert second.step == 8
    torch.testing.assert_close(second.model.weight.detach(), second.ema["weight"])
    assert not torch.equal(second.ema["weight"], nn.Linear(3, 2).weight)
    before = second.model.weight.detach().clone()
    with pytest.raises(Interrupted):
        second.run(loss_of(second.model, 9))
    assert 0 < (second.model.weight - before).abs().max().item() <= 0.05 / 4 + 1e-4  # the warm-up's first step of Adam
    second.run(loss_of(second.model))
    assert second.step == STEPS
    assert snapshotting(tmp_path / "third").step == STEPS  # the end is kept too


def test_step_generators_depend_on_seed_and_step() -> None:
    draws = [torch.rand(3, generator=step_generator(*pair)).tolist() for pair in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    assert draws[3] == torch.rand(3, generator=step_generator(1, 1)).tolist()
    assert len({tuple(draw) for draw in draws}) == 4


def test_a_build_learns_its_tokenizer_once(tmp_path, monkeypatch):
    from benchmarks.tiny_base import build_text

    monkeypatch.setattr(build_text, "STEPS", 1)
    monkeypatch.setattr(build_text, "SNAPSHOTS", tmp_path / "none")
    first, _ = build_text.build(tmp_path)
    monkeypatch.setattr(build_text, "new_tokenizer", lambda: pytest.fail("learnt again"))
    second, _ = build_text.build(tmp_path)
    assert first.get_vocab() == second.get_vocab()
    assert len(first) == 1403
