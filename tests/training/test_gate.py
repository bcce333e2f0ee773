"""The gradient gate: what does not give the plain gradients is not used, whatever the loss says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sd_lora.training.gate import MOST_OFF, Gate, Technique, difference


class Toy:
    """A frozen layer with a LoRA of two matrices, of which the second is zero at the start; `scales` tampers with the
    gradients that flow to the first and the second."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        torch.manual_seed(0)
        self.base, self.x = torch.randn(8, 8, dtype=dtype), torch.randn(4, 8)
        self.parameters = {"a": nn.Parameter(torch.randn(2, 8)), "b": nn.Parameter(torch.zeros(8, 2))}
        self.scales = {"a": 1.0, "b": 1.0}
        self.fails = False

    def loss(self) -> Tensor:
        if self.fails:
            raise ValueError("no such kernel\nmore of it")
        a, b = (Tampered.apply(self.parameters[name], self.scales[name]) for name in ("a", "b"))
        dtype = self.base.dtype
        return (self.x.to(dtype) @ (self.base + b.to(dtype) @ a.to(dtype))).float().square().mean()

    def scaling(self, name: str, factor: float) -> Technique:
        return Technique(f"{name} times {factor}", lambda: self.scale(name, factor), lambda: self.scale(name, 1.0))

    def scale(self, name: str, factor: float) -> None:
        self.scales[name] = factor

    def failing(self) -> Technique:
        def switch(on: bool) -> Callable[[], None]:
            return lambda: setattr(self, "fails", on)

        return Technique("a missing kernel", switch(True), switch(False))


class Tampered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale  # type: ignore[attr-defined]
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient * ctx.scale, None  # type: ignore[attr-defined]


def gate(toy: Toy, *, exact: bool = True) -> Gate:
    return Gate(toy.parameters, toy.loss, exact=exact)


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("factor", [-1.0, 0.0, 1.001, 1 + 2 * MOST_OFF, float("nan"), float("inf")])
def test_a_wrong_gradient_is_caught_though_the_loss_is_right(name: str, factor: float) -> None:
    toy = Toy()
    plain = toy.loss()
    verdict = gate(toy).choose([toy.scaling(name, factor)])
    assert verdict.used == ()
    assert len(verdict.notes) == 1
    assert f"{name} times {factor}: not used, because the gradient of {name} is" in verdict.notes[0]
    assert toy.scales == {"a": 1.0, "b": 1.0}
    assert torch.equal(toy.loss(), plain)


@pytest.mark.parametrize("factor", [1.0, 1 + MOST_OFF / 2])
def test_a_right_one_is_used(factor: float) -> None:
    toy = Toy()
    verdict = gate(toy).choose([toy.scaling("a", factor)])
    assert verdict.used == (f"a times {factor}",)
    assert verdict.notes == ()
    assert toy.scales["a"] == factor


def test_of_several_those_that_are_right_are_used_on_top_of_each_other() -> None:
    toy = Toy()
    techniques = [toy.scaling("a", 1.00001), toy.scaling("b", -1.0), toy.failing()]
    verdict = gate(toy).choose(techniques)
    assert verdict.used == ("a times 1.00001",)
    assert [note.partition(":")[0] for note in verdict.notes] == ["b times -1.0", "a missing kernel"]
    assert "it failed with ValueError (no such kernel)" in verdict.notes[1]
    assert toy.scales == {"a": 1.00001, "b": 1.0}
    assert not toy.fails


def test_two_that_pass_alone_but_not_together_are_not_both_used() -> None:
    toy = Toy()
    techniques = [toy.scaling("a", 1 + 0.9 * MOST_OFF), toy.scaling("b", 1 + 0.9 * MOST_OFF)]
    assert len(gate(toy).choose(techniques).used) == 2
    toy = Toy()
    first, second = toy.scaling("a", 1 + 0.9 * MOST_OFF), toy.scaling("a", 1 + 0.9 * MOST_OFF)

    def add() -> None:
        toy.scales["a"] += 0.9 * MOST_OFF

    verdict = gate(toy).choose([first, Technique("more of it", add, lambda: None)])
    assert verdict.used == (first.name,)
    assert second.name == first.name


def test_lower_precision_is_judged_by_direction() -> None:
    toy = Toy(torch.bfloat16)
    assert gate(toy, exact=False).choose([toy.scaling("a", 1.01)]).used
    for factor in (-1.0, 0.0, float("nan")):
        toy = Toy(torch.bfloat16)
        assert not gate(toy, exact=False).choose([toy.scaling("b", factor)]).used


def test_nothing_is_left_behind() -> None:
    toy = Toy()
    before = {name: parameter.detach().clone() for name, parameter in toy.parameters.items()}
    state = torch.get_rng_state()
    gate(toy).choose([toy.scaling("a", -1.0)])
    for name, parameter in toy.parameters.items():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None
    assert torch.equal(torch.get_rng_state(), state)


def test_gradients_that_are_not_finite_are_known() -> None:
    toy = Toy()
    assert gate(toy).is_finite
    toy.scales["a"] = float("inf")
    assert not gate(toy).is_finite


def test_difference_names_the_worst() -> None:
    plain = {"a": torch.ones(4), "b": torch.full((4,), 2.0), "tiny": torch.full((4,), 1e-9)}
    fast = {"a": torch.ones(4) * 1.0001, "b": torch.full((4,), 2.1), "tiny": torch.full((4,), 2e-9)}
    off, name = difference(plain, fast, exact=True)
    assert name == "b"
    assert off == pytest.approx(0.05 / MOST_OFF, rel=1e-4)
    assert difference(plain, {"a": torch.ones(4)}, exact=True) == (float("inf"), "b")
    assert difference(plain, plain, exact=True)[0] == 0
