"""Attention of a UNet that keeps its probabilities for the backward pass, where that is faster on a processor.

torch's own attention computes them again to save memory: in bfloat16 that took two to three times as long on up to
1,024 places. Where keeping pays is timed, for each shape, when a shape is first trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sd_lora.models.fast.ways import PLAIN, Choices, Way

#: channels of an attention below which it is not what a step costs
LEAST_CHANNELS = 256
#: the most bytes of probabilities that a layer may keep
MOST_BYTES = 32 * 2**20
_KEPT = "kept"


class KeptAttention:
    """Stands in for diffusers' processor of an attention layer without masks and norms of its own."""

    def __init__(self, plain: Any, choices: Choices) -> None:
        self.plain, self._choices = plain, choices

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        if attention_mask is not None:
            return self.plain(attn, hidden_states, encoder_hidden_states, attention_mask)
        states = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        projected = attn.to_q(hidden_states), attn.to_k(states), attn.to_v(states)
        query, key, value = (part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in projected)
        attended = self._attend(query, key, value).transpose(1, 2).flatten(2)
        for module in attn.to_out:
            attended = module(attended)
        return attended

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        shape = f"attention {'x'.join(map(str, query.shape))} on {key.shape[2]} {query.dtype}"
        small = query.shape[:3].numel() * key.shape[2] * query.element_size() <= MOST_BYTES
        ways = lambda: ways_of(query.detach(), key.detach(), value.detach())  # noqa: E731
        if torch.is_grad_enabled() and small and self._choices.way(shape, ways) == _KEPT:
            return _Kept.apply(query, key, value)
        return functional.scaled_dot_product_attention(query, key, value)


def plain_attentions(model: nn.Module) -> list[Any]:
    """The wide attention layers of `model` on a processor that compute what `KeptAttention` does."""
    from diffusers.models.attention_processor import Attention, AttnProcessor2_0

    return [
        module
        for module in model.modules()
        if type(module) is Attention
        and type(module.processor) is AttnProcessor2_0
        and module.to_q.weight.device.type == "cpu"
        and module.inner_dim >= LEAST_CHANNELS
        and not (module.residual_connection or module.norm_cross)
        and module.rescale_output_factor == 1
        and all(part is None for part in (module.spatial_norm, module.group_norm, module.norm_q, module.norm_k))
    ]


def keep_probabilities(model: nn.Module, choices: Choices) -> None:
    """Have the attention of `model` computed as `choices` say, which grow with the shapes that are met."""
    for attention in plain_attentions(model):
        attention.processor = KeptAttention(attention.processor, choices)


def keep_no_probabilities(model: nn.Module) -> None:
    """Undo `keep_probabilities`."""
    for module in model.modules():
        if isinstance(processor := getattr(module, "processor", None), KeptAttention):
            module.processor = processor.plain


class _Kept(torch.autograd.Function):
    """softmax(query · keyᵀ / √d) · value, for (n, heads, places, d)."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scaling = query.shape[-1] ** -0.5
        with torch.autocast("cpu", enabled=False):
            probabilities = torch.softmax((query * scaling) @ key.transpose(-1, -2), -1)
            ctx.save_for_backward(query, key, value, probabilities)
            return probabilities @ value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        return attention_gradients(gradient, *ctx.saved_tensors)


def attention_gradients(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, probabilities: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `query`, `key` and `value` from that of the output, all (n, heads, places, d)."""
    scaling = query.shape[-1] ** -0.5
    of_probabilities = gradient @ value.transpose(-1, -2)
    scores = torch._softmax_backward_data(of_probabilities, probabilities, -1, probabilities.dtype)
    return (
        scores @ key * scaling,
        scores.transpose(-1, -2) @ (query * scaling),
        probabilities.transpose(-1, -2) @ gradient,
    )


def ways_of(query: Tensor, key: Tensor, value: Tensor) -> dict[str, Way]:
    """The ways to compute attention, and its gradients from some gradient."""
    gradient = torch.randn(query.shape, generator=torch.Generator().manual_seed(0)).to(query.dtype)

    def run(attend: Callable[..., Tensor]) -> list[Tensor]:
        inputs = [tensor.clone().requires_grad_() for tensor in (query, key, value)]
        with torch.enable_grad(), torch.autocast("cpu", enabled=False):
            output = attend(*inputs)
            return [output.detach(), *torch.autograd.grad(output, inputs, gradient)]

    return {PLAIN: lambda: run(functional.scaled_dot_product_attention), _KEPT: lambda: run(_Kept.apply)}
