"""Convolutions of a frozen model, on few pixels as one matrix product.

A 3 × 3 convolution of 1,280 channels on 2 × 2 pixels is 15 million weights for four places: what it costs is to read
them, which a matrix product does several times faster than oneDNN's convolution. Where that is so is timed, for each
shape and direction, when a shape is first trained on. The weight is used as it is in memory: channels last, it already
is the matrix, so no second copy is kept. Plain convolutions like that order too, where the pixels are in it: they would
copy the weight at each call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_input

from sd_lora.models.fast.products import has_onednn, onednn_product
from sd_lora.models.fast.ways import PLAIN, Choices, Way

#: places (pictures × pixels) of an output above which a product never paid where it was measured
MOST_PLACES = 1024
#: weights of a convolution below which reading them is not what it costs
LEAST_WEIGHTS = 2**18

#: computes rows (n, in) times a matrix (out, in), plus a bias
Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]
PRODUCTS: dict[str, Product] = {"product": functional.linear, "oneDNN product": onednn_product}


class SmallConvolution:
    """Stands in for `nn.Conv2d._conv_forward` of a frozen `conv`."""

    def __init__(self, conv: nn.Conv2d, choices: Choices) -> None:
        self._conv, self._choices = conv, choices

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        conv = self._conv
        if weight is conv.weight and (x.requires_grad or not torch.is_grad_enabled()):
            if torch.is_autocast_enabled(x.device.type):
                x = x.to(torch.get_autocast_dtype(x.device.type))
            product = PRODUCTS.get(self._way(x)) if x.dtype is weight.dtype else None
            if product is not None:
                return _Product.apply(x, weight, bias, (conv.stride[0], conv.padding[0]), product)
        return nn.Conv2d._conv_forward(conv, x, weight, bias)

    def _way(self, x: Tensor) -> str:
        """How the output for `x` is computed fastest."""
        conv, stride = self._conv, self._conv.stride[0]
        if x.shape[0] * x.shape[2] * x.shape[3] > MOST_PLACES * stride**2:
            return PLAIN
        kernel = f"{conv.out_channels} {conv.kernel_size[0]} {stride} {conv.padding[0]}"
        shape = f"convolution {'x'.join(map(str, x.shape))} to {kernel} {x.dtype}"
        return self._choices.way(shape, lambda: ways_of(conv, x.detach()))


def large_convolutions(model: nn.Module) -> list[nn.Conv2d]:
    """The frozen convolutions of `model` that a product can compute and that have enough weights for it to pay."""
    return [module for module in model.modules() if isinstance(module, nn.Conv2d) and _fits(module)]


def speed_up_convolutions(model: nn.Module, choices: Choices) -> None:
    """Have the large convolutions of `model` computed as `choices` say, which grow with the shapes that are met."""
    for conv in large_convolutions(model):
        conv.weight.data = conv.weight.data.contiguous(memory_format=torch.channels_last)
        conv._conv_forward = SmallConvolution(conv, choices)  # type: ignore[method-assign]


def slow_down_convolutions(model: nn.Module) -> None:
    """Undo `speed_up_convolutions`."""
    for module in model.modules():
        if isinstance(module.__dict__.pop("_conv_forward", None), SmallConvolution):
            assert isinstance(module.weight, Tensor)
            module.weight.data = module.weight.data.contiguous()


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
    """A convolution whose weight and bias are frozen; `geometry` is its stride and its padding."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[int, int], product: Product
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.geometry, ctx.product = x.shape, geometry, product
        return output_by_product(x, weight, bias, geometry, product)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        found = gradient_by_product(gradient, weight, ctx.shape, ctx.geometry, ctx.product)
        return found, None, None, None, None


def output_by_product(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: tuple[int, int], product: Product = functional.linear
) -> Tensor:
    """The convolution of `x` (n, in, h, w) with a square kernel (out, in, k, k): (n, out, h', w'), channels last."""
    (stride, padding), size = geometry, weight.shape[2]
    padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    patches = padded.unfold(1, size, stride).unfold(2, size, stride)  # n, h', w', in, k, k
    rows = patches.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)
    output = product(rows, _matrix(weight), bias)
    return output.view(*patches.shape[:3], -1).permute(0, 3, 1, 2)


def gradient_by_product(
    gradient: Tensor,
    weight: Tensor,
    shape: tuple[int, ...],
    geometry: tuple[int, int],
    product: Product = functional.linear,
) -> Tensor:
    """The gradient (n, in, h, w) = `shape` of the input, from that of the output (n, out, h', w')."""
    (images, channels, height, width), (stride, padding), size = shape, geometry, weight.shape[2]
    gradient = gradient.permute(0, 2, 3, 1)
    down, across = gradient.shape[1:3]
    rows = product(gradient.flatten(0, 2), _matrix(weight).t(), None).view(images, down, across, size, size, channels)
    if size == 1 and stride == 1:
        return rows.view(images, height, width, channels).permute(0, 3, 1, 2)
    padded = (images, height + 2 * padding, width + 2 * padding, channels)
    total = gradient.new_zeros(padded, dtype=torch.float32)  # nine roundings to bfloat16 would be seen
    for i in range(size):
        for j in range(size):
            total[:, i : i + stride * down : stride, j : j + stride * across : stride] += rows[:, :, :, i, j]
    return total[:, padding : padding + height, padding : padding + width].permute(0, 3, 1, 2).to(gradient.dtype)


def _matrix(weight: Tensor) -> Tensor:
    """(out, in, k, k) → (out, k · k · in): of a weight that is channels last in memory, a view."""
    return weight.permute(0, 2, 3, 1).flatten(1)


def ways_of(conv: nn.Conv2d, x: Tensor) -> dict[str, Way]:
    """The ways to compute the output of `conv` for `x` (n, in, h, w), and the gradient of `x` from some gradient."""
    weight, bias, geometry = conv.weight.detach(), conv.bias, (conv.stride[0], int(conv.padding[0]))
    plain = nn.Conv2d._conv_forward
    with torch.no_grad():
        sizes = plain(conv, x, weight, bias).shape
    gradient = torch.randn(sizes, generator=torch.Generator().manual_seed(0)).to(x.dtype)
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    ways: dict[str, Way] = {
        PLAIN: lambda: (plain(conv, x, weight, bias), conv2d_input(x.shape, weight, gradient, *geometry))
    }
    for name, product in PRODUCTS.items():
        if product is not onednn_product or (has_onednn() and x.dtype is torch.float32):
            ways[name] = lambda product=product: (
                output_by_product(x, weight, bias, geometry, product),
                gradient_by_product(gradient, weight, x.shape, geometry, product),
            )
    return ways
