"""Attention that keeps its probabilities: the same outputs and gradients, and only where it is chosen."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

from sd_lora.models.fast import attention as fast_attention
from sd_lora.models.fast import ways
from sd_lora.models.fast.attention import (
    KeptAttention,
    keep_no_probabilities,
    keep_probabilities,
    plain_attentions,
    ways_of,
)
from sd_lora.models.fast.ways import Choices


@pytest.fixture(autouse=True)
def _small_ones_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_attention, "LEAST_CHANNELS", 12)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keeping is chosen for all shapes; an entry for each backward pass."""
    passes: list[str] = []
    right = fast_attention.attention_gradients

    def watched(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        passes.append("backward")
        return right(*tensors)

    monkeypatch.setattr(ways, "fastest", lambda _: "kept")
    monkeypatch.setattr(fast_attention, "attention_gradients", watched)
    return passes


def attention(**options: object) -> Attention:
    return Attention(12, heads=3, dim_head=4, **options).requires_grad_(False)  # type: ignore[arg-type]


def results(layer: Attention, x: Tensor, states: Tensor | None, mask: Tensor | None = None) -> list[Tensor]:
    inputs = [tensor.clone().requires_grad_() for tensor in (x, states) if tensor is not None]
    output = layer(*inputs, attention_mask=mask)
    output.mul(torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
    return [output.detach(), *(tensor.grad for tensor in inputs if tensor.grad is not None)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("across", [False, True])
def test_it_is_the_attention(dtype: torch.dtype, across: bool, kept: list[str]) -> None:
    layer = attention(cross_attention_dim=8 if across else None).to(dtype)
    x, states = torch.randn(2, 5, 12).to(dtype), torch.randn(2, 7, 8).to(dtype) if across else None
    expected = results(layer, x, states)
    keep_probabilities(layer, Choices())
    off = 1e-5 if dtype is torch.float32 else 0.03
    torch.testing.assert_close(results(layer, x, states), expected, rtol=off, atol=off)
    assert kept.pop() == "backward"
    keep_no_probabilities(layer)
    assert type(layer.processor) is AttnProcessor2_0
    torch.testing.assert_close(results(layer, x, states), expected, rtol=0, atol=0)
    assert not kept


def test_autocast_does_not_change_it(kept: list[str]) -> None:
    layer, x = attention().to(torch.bfloat16), torch.randn(2, 5, 12)
    keep_probabilities(layer, Choices())
    with torch.autocast("cpu", torch.bfloat16):
        output, gradient = results(layer, x, None)
    assert kept
    assert (output.dtype, gradient.dtype) == (torch.bfloat16, torch.float32)


def test_masks_drawn_pictures_and_many_places_are_computed_plainly(
    kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x, mask = attention(), torch.randn(2, 5, 12), torch.zeros(6, 5, 5)
    mask[:, :, 2] = -1e4
    expected = results(layer, x, None, mask)
    keep_probabilities(layer, Choices())
    torch.testing.assert_close(results(layer, x, None, mask), expected)
    with torch.no_grad():
        layer(x)
    monkeypatch.setattr(fast_attention, "MOST_BYTES", 2 * 3 * 5 * 5 * 4 - 1)
    results(layer, x, None)
    assert not kept
    monkeypatch.setattr(fast_attention, "MOST_BYTES", 2 * 3 * 5 * 5 * 4)
    results(layer, x, None)
    assert kept


def test_other_attention_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({"norm_num_groups": 3}, {"residual_connection": True}, {"qk_norm": "layer_norm"}):
        assert not plain_attentions(attention(**options))
    layer = attention()
    assert plain_attentions(layer) == [layer]
    keep_probabilities(layer, Choices())
    assert isinstance(layer.processor, KeptAttention)
    monkeypatch.setattr(fast_attention, "LEAST_CHANNELS", 13)
    assert not plain_attentions(attention())


def test_both_ways_give_the_same() -> None:
    plain, other = (way() for way in ways_of(*(torch.randn(2, 3, n, 4) for n in (5, 7, 7))).values())
    assert len(plain) == 4
    torch.testing.assert_close(other, plain)
