"""Linear layers of a frozen model in float32, computed by oneDNN where that is faster."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sd_lora.models.fast.products import has_onednn, onednn_product
from sd_lora.models.fast.ways import PLAIN, Choices, Way

#: weights of a layer, and multiply-adds, below which calling another kernel takes longer than it saves
LEAST_WEIGHTS, LEAST_WORK = 2**16, 2**22
_ONEDNN = "oneDNN"


class FrozenLinear:
    """Stands in for the `forward` of a frozen `linear`."""

    def __init__(self, linear: nn.Linear, choices: Choices) -> None:
        self._linear, self._choices = linear, choices

    def __call__(self, input: Tensor) -> Tensor:  # named as in nn.Linear.forward
        linear, weight = self._linear, self._linear.weight
        rows = input.shape[:-1].numel()
        shape = f"linear {rows} of {linear.in_features} to {linear.out_features}"
        if (
            input.dtype is torch.float32 is weight.dtype
            and not torch.is_autocast_enabled("cpu")
            and rows * weight.numel() >= LEAST_WORK
            and self._choices.way(shape, lambda: ways_of(linear, input.detach())) == _ONEDNN
        ):
            return _Product.apply(input, weight, linear.bias)
        return functional.linear(input, weight, linear.bias)


def frozen_linears(model: nn.Module) -> list[nn.Linear]:
    """The larger linear layers of `model` that oneDNN can compute; none where this build of torch lacks it."""
    if not has_onednn():
        return []
    return [module for module in model.modules() if isinstance(module, nn.Linear) and _fits(module)]


def speed_up_linears(model: nn.Module, choices: Choices) -> None:
    """Have the frozen linear layers of `model` computed as `choices` say, which grow with the shapes that are met."""
    for linear in frozen_linears(model):
        linear.forward = FrozenLinear(linear, choices)  # type: ignore[method-assign]


def slow_down_linears(model: nn.Module) -> None:
    """Undo `speed_up_linears`."""
    for module in model.modules():
        if isinstance(module.__dict__.get("forward"), FrozenLinear):
            del module.__dict__["forward"]


def ways_of(linear: nn.Linear, x: Tensor) -> dict[str, Way]:
    """The ways to compute the output of `linear` for `x` (…, in), and the gradient of `x` from some gradient."""
    weight, bias = linear.weight.detach(), linear.bias
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn((*x.shape[:-1], linear.out_features), generator=generator)
    return {
        PLAIN: lambda: (functional.linear(x, weight, bias), gradient @ weight),
        _ONEDNN: lambda: (onednn_product(x, weight, bias), onednn_product(gradient, weight.t())),
    }


def _fits(linear: nn.Linear) -> bool:
    return (
        type(linear) is nn.Linear
        and type(linear.weight) is nn.Parameter  # not quantized
        and linear.weight.device.type == "cpu"
        and linear.weight.dtype is torch.float32
        and linear.weight.is_contiguous()
        and not linear.weight.requires_grad
        and linear.weight.numel() >= LEAST_WEIGHTS
    )


class _Product(torch.autograd.Function):
    """A linear layer whose weight and bias are frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return onednn_product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        return onednn_product(gradient, weight.t()), None, None
