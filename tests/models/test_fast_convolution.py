"""Convolutions as matrix products: the same outputs and gradients, and only where they are chosen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sd_lora.models.fast import convolution, ways
from sd_lora.models.fast.convolution import (
    MOST_PLACES,
    PRODUCTS,
    large_convolutions,
    slow_down_convolutions,
    speed_up_convolutions,
)
from sd_lora.models.fast.ways import PLAIN, Choices

#: kernel, stride, padding, bias, images, height, width
GEOMETRIES = [
    (3, 1, 1, True, 1, 4, 4), (3, 1, 1, False, 3, 5, 7), (3, 2, 1, True, 2, 8, 8), (3, 2, 1, True, 1, 7, 5),
    (3, 1, 0, True, 2, 6, 6), (3, 2, 0, True, 1, 9, 8), (1, 1, 0, True, 2, 4, 6), (1, 2, 0, False, 1, 8, 8),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _small_ones_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "LEAST_WEIGHTS", 1)


@pytest.fixture(params=PRODUCTS)
def chosen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A product is chosen for all; the calls of products."""
    calls: list[str] = []
    plain = convolution.output_by_product

    def watched(*arguments: object) -> Tensor:
        calls.append("product")
        return plain(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ways, "fastest", lambda _: request.param)
    monkeypatch.setattr(convolution, "output_by_product", watched)
    return calls


def frozen(kernel: int = 3, stride: int = 1, padding: int = 1, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(6, 10, kernel, stride, padding, bias=bias).requires_grad_(False)


def output_and_gradient(conv: nn.Conv2d, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    output = conv(x)
    output.mul(torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    assert x.grad is not None
    return output.detach(), x.grad


@pytest.mark.parametrize(("kernel", "stride", "padding", "bias", "images", "height", "width"), GEOMETRIES)
def test_a_product_is_the_convolution(
    kernel: int, stride: int, padding: int, bias: bool, images: int, height: int, width: int, chosen: list[str]
) -> None:
    conv = frozen(kernel, stride, padding, bias=bias)
    for x in (torch.randn(images, 6, height, width), torch.randn(images, height, width, 6).permute(0, 3, 1, 2)):
        expected = output_and_gradient(conv, x)
        assert not chosen
        speed_up_convolutions(conv, Choices())
        found = output_and_gradient(conv, x)
        assert chosen.pop() == "product"
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        slow_down_convolutions(conv)
        torch.testing.assert_close(output_and_gradient(conv, x), expected, rtol=0, atol=1e-6)
        chosen.clear()


def test_the_weight_is_used_as_it_lies_in_memory() -> None:
    weight = torch.randn(10, 6, 3, 3).contiguous(memory_format=torch.channels_last)
    assert convolution._matrix(weight).data_ptr() == weight.data_ptr()


@pytest.mark.usefixtures("chosen")
def test_a_weight_that_a_product_reads_is_kept_once_and_channels_last() -> None:
    conv = frozen()
    before = conv.weight.clone()
    speed_up_convolutions(conv, Choices())
    output_and_gradient(conv, torch.randn(1, 6, 4, 4))
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(conv.weight, before)
    slow_down_convolutions(conv)
    assert conv.weight.is_contiguous()


def test_autocast_gives_a_product_its_dtype(chosen: list[str]) -> None:
    conv = frozen().to(torch.bfloat16)
    x = torch.randn(1, 6, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        expected = output_and_gradient(conv, x)
        speed_up_convolutions(conv, Choices())
        output, gradient = output_and_gradient(conv, x)
    assert chosen
    assert output.dtype is torch.bfloat16
    assert gradient.dtype is torch.float32
    torch.testing.assert_close((output, gradient), expected, rtol=0.03, atol=0.03)


def test_what_a_product_cannot_compute_is_left_alone() -> None:
    model = nn.ModuleList([
        nn.Conv2d(6, 6, 5), nn.Conv2d(6, 6, 3, groups=2), nn.Conv2d(6, 6, 3, dilation=2),
        nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect"), nn.Conv2d(6, 6, 3, (1, 2)), nn.Conv2d(6, 6, 3, 1, 2),
        nn.Conv2d(6, 6, (1, 3)), nn.Linear(6, 6),
    ])  # fmt: skip
    assert not large_convolutions(model.requires_grad_(False))
    assert not large_convolutions(nn.Conv2d(6, 6, 3))  # its own weight is trained
    assert large_convolutions(frozen())


def test_small_weights_many_places_and_drawn_pictures_are_computed_plainly(
    chosen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    conv, choices = frozen(), Choices()
    speed_up_convolutions(conv, choices)
    output_and_gradient(conv, torch.randn(MOST_PLACES // 16 + 1, 6, 4, 4))
    with torch.no_grad():
        conv(torch.randn(1, 6, 4, 4))
    assert not chosen
    assert not choices.known
    monkeypatch.setattr(convolution, "LEAST_WEIGHTS", conv.weight.numel() + 1)
    assert not large_convolutions(conv)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stride", [1, 2])
def test_all_ways_give_the_same(dtype: torch.dtype, stride: int) -> None:
    conv = frozen(stride=stride).to(dtype)
    speed_up_convolutions(conv, Choices())
    plain, *others = (way() for way in convolution.ways_of(conv, torch.randn(2, 6, 4, 4, dtype=dtype)).values())
    assert others
    for found in others:
        torch.testing.assert_close(found, plain, rtol=0.03, atol=1e-5 if dtype is torch.float32 else 0.03)


@pytest.mark.parametrize("part", ["output_by_product", "gradient_by_product"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_that_is_wrong_for_a_shape_is_not_chosen(
    part: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(10**6, 0, -1))
    monkeypatch.setattr(ways, "_clock", lambda: -(next(seconds) ** 0.5))  # each call seems faster than the last
    conv, x = frozen().to(dtype), torch.randn(1, 6, 4, 4, dtype=dtype)
    right = getattr(convolution, part)
    monkeypatch.setattr(convolution, part, lambda *arguments: right(*arguments).roll(1, 3))
    assert ways.fastest(convolution.ways_of(conv, x)) == PLAIN
