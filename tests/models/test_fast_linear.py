"""Frozen linear layers by oneDNN: the same outputs and gradients, and only where they are chosen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sd_lora.models.fast import linear as fast_linear
from sd_lora.models.fast import ways
from sd_lora.models.fast.linear import frozen_linears, slow_down_linears, speed_up_linears, ways_of
from sd_lora.models.fast.products import has_onednn, onednn_product
from sd_lora.models.fast.ways import Choices

pytestmark = pytest.mark.skipif(not has_onednn(), reason="this build of torch has no product of oneDNN")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """oneDNN is chosen for all shapes; the shapes of what it multiplies."""
    seen: list[tuple[int, ...]] = []

    def watched(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        seen.append(tuple(x.shape))
        return onednn_product(x, weight, bias)

    monkeypatch.setattr(fast_linear, "LEAST_WORK", 1)
    monkeypatch.setattr(fast_linear, "LEAST_WEIGHTS", 1)
    monkeypatch.setattr(ways, "fastest", lambda _: "oneDNN")
    monkeypatch.setattr(fast_linear, "onednn_product", watched)
    return seen


def frozen(*, bias: bool = True) -> nn.Linear:
    return nn.Linear(6, 10, bias=bias).requires_grad_(False)


def output_and_gradient(linear: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    output = linear(x)
    output.mul(torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    assert x.grad is not None
    return output.detach(), x.grad


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 6), (3, 6), (2, 5, 6), (2, 3, 4, 6)])
def test_it_is_the_linear_layer(shape: tuple[int, ...], bias: bool, calls: list[tuple[int, ...]]) -> None:
    linear, x = frozen(bias=bias), torch.randn(shape)
    expected = output_and_gradient(linear, x)
    speed_up_linears(linear, Choices())
    torch.testing.assert_close(output_and_gradient(linear, x), expected, rtol=1e-5, atol=1e-5)
    assert calls == [shape, (*shape[:-1], 10)]
    across = x.transpose(0, -2) if len(shape) > 2 else x  # not contiguous
    torch.testing.assert_close(linear(across), nn.functional.linear(across, linear.weight, linear.bias))
    calls.clear()
    slow_down_linears(linear)
    torch.testing.assert_close(output_and_gradient(linear, x), expected, rtol=0, atol=0)
    assert not calls


@pytest.mark.usefixtures("calls")
def test_hooks_still_add_their_layers() -> None:
    linear, x = frozen(), torch.randn(3, 6)
    linear.register_forward_hook(lambda *called: called[-1] + 1)
    expected = linear(x)
    speed_up_linears(linear, Choices())
    torch.testing.assert_close(linear(x), expected)
    torch.testing.assert_close(linear(input=x), expected)
    assert list(linear.state_dict()) == ["weight", "bias"]


def test_what_it_cannot_compute_is_left_alone(calls: list[tuple[int, ...]]) -> None:
    class Other(nn.Linear):
        pass

    assert frozen_linears(frozen())
    others = [nn.Linear(6, 6).to(torch.bfloat16), Other(6, 6), nn.Conv2d(6, 6, 1)]
    assert not frozen_linears(nn.ModuleList(others).requires_grad_(False))
    assert not frozen_linears(nn.Linear(6, 6))  # its own weight is trained
    linear = frozen()
    speed_up_linears(linear, Choices())
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(torch.randn(2, 6)).dtype is torch.bfloat16
    assert not calls


def test_little_work_is_computed_plainly(calls: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    linear, choices = frozen(), Choices()
    monkeypatch.setattr(fast_linear, "LEAST_WORK", 3 * 60)
    speed_up_linears(linear, choices)
    linear(torch.randn(2, 6))
    assert not calls
    linear(torch.randn(3, 6))
    assert calls
    monkeypatch.setattr(fast_linear, "LEAST_WEIGHTS", 61)
    assert not frozen_linears(linear)


def test_both_ways_give_the_same() -> None:
    plain, other = (way() for way in ways_of(frozen(), torch.randn(2, 5, 6)).values())
    torch.testing.assert_close(other, plain)


def test_a_weight_in_any_order_is_multiplied() -> None:
    x, weight = torch.randn(4, 6), torch.randn(20, 12)[::2, ::2]
    torch.testing.assert_close(onednn_product(x, weight), x @ weight.t())


def test_processors_that_onednn_has_no_kernels_for_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_linear, "LEAST_WEIGHTS", 1)
    assert frozen_linears(frozen())
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert not frozen_linears(frozen())
