"""Convolutions of a frozen model on few pixels, as one matrix product.

A 3 × 3 convolution of 1,280 channels on 2 × 2 pixels is 15 million weights for four places: what it costs is to read
them, which a matrix product does several times faster than oneDNN's convolution. Where that is so is timed, for each
shape and direction, when a shape is first trained on. The weight is used as it is in memory: channels last, it already
is the matrix, so no second copy is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input

#: places (pictures × pixels) of an output above which a product never paid where it was measured
MOST_PLACES = 1024
#: weights of a convolution below which reading them is not what it costs
LEAST_WEIGHTS = 2**18
#: how many times each way is timed at most, and the seconds after which it is not timed again
_TRIES, _TRY_SECONDS = 5, 0.02
#: by how much results may differ, as a share of their length: in float32, and in lower precision
_MOST_OFF, _MOST_OFF_LOW = 1e-4, 2e-2
#: a product must be faster by this share, or the plain way stays: timings are noisy
_GAIN = 0.05


@dataclass
class Choices:
    """For each shape whether a product computes it; `new` is True once a shape was timed that was not known."""

    known: dict[str, bool] = field(default_factory=dict)
    new: bool = False


class SmallConvolution:
    """Stands in for `nn.Conv2d._conv_forward` of a frozen `conv`."""

    def __init__(self, conv: nn.Conv2d, choices: Choices) -> None:
        self._conv, self._choices = conv, choices

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        conv = self._conv
        if weight is conv.weight and (x.requires_grad or not torch.is_grad_enabled()):
            if torch.is_autocast_enabled(x.device.type):
                x = x.to(torch.get_autocast_dtype(x.device.type))
            if x.dtype is weight.dtype and self._pays(x):
                return _Product.apply(x, weight, bias, conv.stride[0], conv.padding[0])
        return nn.Conv2d._conv_forward(conv, x, weight, bias)

    def _pays(self, x: Tensor) -> bool:
        """Whether a product is faster for `x`."""
        conv, stride = self._conv, self._conv.stride[0]
        if x.shape[0] * x.shape[2] * x.shape[3] > MOST_PLACES * stride**2:
            return False
        kernel = f"{conv.out_channels} {conv.kernel_size[0]} {stride} {conv.padding[0]}"
        key, known = f"{'x'.join(map(str, x.shape))} to {kernel} {x.dtype}", self._choices.known
        if key not in known:
            if not torch.is_grad_enabled():  # pictures that are drawn on the way may be of any shape
                return False
            known[key], self._choices.new = is_product_faster(conv, x.detach()), True
        if known[key] and not conv.weight.is_contiguous(memory_format=torch.channels_last):
            conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)
        return known[key]


def large_convolutions(model: nn.Module) -> list[nn.Conv2d]:
    """The frozen convolutions of `model` that a product can compute and that have enough weights for it to pay."""
    return [module for module in model.modules() if isinstance(module, nn.Conv2d) and _fits(module)]


def speed_up_convolutions(model: nn.Module, choices: Choices) -> None:
    """Have the large convolutions of `model` computed as `choices` say, which grow with the shapes that are met."""
    for conv in large_convolutions(model):
        conv._conv_forward = SmallConvolution(conv, choices)  # type: ignore[method-assign]


def slow_down_convolutions(model: nn.Module) -> None:
    """Undo `speed_up_convolutions`."""
    for module in model.modules():
        if isinstance(module.__dict__.pop("_conv_forward", None), SmallConvolution):
            assert isinstance(module.weight, Tensor)
            module.weight.data = module.weight.data.contiguous()  # channels last, each plain call would copy it


def _fits(conv: nn.Conv2d) -> bool:
    return (
        conv.kernel_size in ((1, 1), (3, 3))
        and conv.groups == 1
        and conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and conv.stride[0] == conv.stride[1]
        and conv.padding in ((0, 0), (1, 1))
        and conv.weight.device.type == "cpu"
        and not conv.weight.requires_grad
        and conv.weight.numel() >= LEAST_WEIGHTS
    )


class _Product(torch.autograd.Function):
    """A convolution whose weight and bias are frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.geometry = x.shape, (stride, padding)
        return output_by_product(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        return gradient_by_product(gradient, weight, ctx.shape, *ctx.geometry), None, None, None, None


def output_by_product(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """The convolution of `x` (n, in, h, w) with a square kernel (out, in, k, k): (n, out, h', w'), channels last."""
    size = weight.shape[2]
    padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    patches = padded.unfold(1, size, stride).unfold(2, size, stride)  # n, h', w', in, k, k
    rows = patches.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)
    output = functional.linear(rows, _matrix(weight), bias)
    return output.view(*patches.shape[:3], -1).permute(0, 3, 1, 2)


def gradient_by_product(gradient: Tensor, weight: Tensor, shape: tuple[int, ...], stride: int, padding: int) -> Tensor:
    """The gradient (n, in, h, w) = `shape` of the input, from that of the output (n, out, h', w')."""
    (images, channels, height, width), size = shape, weight.shape[2]
    gradient = gradient.permute(0, 2, 3, 1)
    down, across = gradient.shape[1:3]
    rows = (gradient.flatten(0, 2) @ _matrix(weight)).view(images, down, across, size, size, channels)
    padded = (images, height + 2 * padding, width + 2 * padding, channels)
    total = gradient.new_zeros(padded, dtype=torch.float32)  # nine roundings to bfloat16 would be seen
    for i in range(size):
        for j in range(size):
            total[:, i : i + stride * down : stride, j : j + stride * across : stride] += rows[:, :, :, i, j]
    return total[:, padding : padding + height, padding : padding + width].permute(0, 3, 1, 2).to(gradient.dtype)


def _matrix(weight: Tensor) -> Tensor:
    """(out, in, k, k) → (out, k · k · in): of a weight that is channels last in memory, a view."""
    return weight.permute(0, 2, 3, 1).flatten(1)


@torch.no_grad()
def is_product_faster(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether a product computes the output of `conv` for `x` and the gradient faster, by timing both, and the same."""
    weight, bias, geometry = conv.weight.detach(), conv.bias, (conv.stride[0], int(conv.padding[0]))
    last = weight.contiguous(memory_format=torch.channels_last)
    output = nn.Conv2d._conv_forward(conv, x, weight, bias)
    gradient = torch.randn(output.shape, generator=torch.Generator().manual_seed(0), dtype=output.dtype)
    plain, expected = _timed(
        partial(nn.Conv2d._conv_forward, conv, x, weight, bias),
        partial(conv2d_input, x.shape, weight, gradient, *geometry),
    )
    product, found = _timed(
        partial(output_by_product, x, last, bias, *geometry),
        partial(gradient_by_product, gradient, last, x.shape, *geometry),
    )
    most = _MOST_OFF if x.dtype is torch.float32 else _MOST_OFF_LOW
    same = all(float((b - a).norm()) <= most * float(a.norm()) for a, b in zip(expected, found, strict=True))
    return same and product < plain * (1 - _GAIN)


def _timed(*both: Callable[[], Tensor]) -> tuple[float, list[Tensor]]:
    """The least seconds of a few times, as the first call of a shape may be slow (what is slow itself is timed once),
    and the results."""
    began, best, tries, results = time.perf_counter(), float("inf"), 0, list[Tensor]()
    while not tries or (tries < _TRIES and time.perf_counter() - began < _TRY_SECONDS):
        started = time.perf_counter()
        results = [compute() for compute in both]
        best, tries = min(best, time.perf_counter() - started), tries + 1
    return best, results
