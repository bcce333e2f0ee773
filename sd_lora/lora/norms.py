"""How much layers change their targets: the norms of ΔW, without making it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from sd_lora.lora.layers import Layer, LoraLayer
from sd_lora.lora.variants import VARIANTS


@torch.no_grad()
def delta_norms(layers: Sequence[Layer]) -> list[float]:
    """The Frobenius norm of each layer's change; of a DoRA, without its magnitude."""
    if not layers:
        return []
    weights = [(VARIANTS[layer.variant], layer.tensors()) for layer in layers]
    squares = torch.stack([row.inner(tensors, tensors).clamp_min(0) for row, tensors in weights])
    return [root * layer.scaling for root, layer in zip(squares.sqrt().tolist(), layers, strict=True)]


@torch.no_grad()
def cap_norms(layers: Sequence[Layer], most: float) -> int:
    """Scale the weights of every layer whose norm is above `most` (> 0) down to it; returns how many there were."""
    capped = 0
    for layer, norm in zip(layers, delta_norms(layers), strict=True):
        if most < norm < math.inf:
            assert isinstance(layer, LoraLayer)
            layer.scale(most * (1 - 1e-5) / norm)  # a little less, or rounding would make the next call scale it again
            capped += 1
    return capped
