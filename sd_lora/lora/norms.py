"""How much layers change their targets: the norms of ΔW, without making it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from sd_lora.lora.layers import LoraLayer


@torch.no_grad()
def delta_norms(layers: Sequence[LoraLayer]) -> list[float]:
    """The Frobenius norm of each layer's `product`, by Gram matrices (rank, rank): ‖up @ down‖² is the sum of
    (upᵀ up) ∘ (down downᵀ)."""
    if not layers:
        return []
    squares = []
    for layer in layers:
        up, down = layer.up.weight.float().flatten(1), layer.down.weight.float().flatten(1)
        squares.append(((up.T @ up) * (down @ down.T)).sum().clamp_min(0))
    roots = torch.stack(squares).sqrt().tolist()
    return [root * layer.scaling for root, layer in zip(roots, layers, strict=True)]


@torch.no_grad()
def cap_norms(layers: Sequence[LoraLayer], most: float) -> int:
    """Scale the weights of every layer whose norm is above `most` (> 0) so that it has not, up and down alike, and
    return how many there were."""
    capped = 0
    for layer, norm in zip(layers, delta_norms(layers), strict=True):
        if most < norm < math.inf:
            factor = math.sqrt(most * (1 - 1e-5) / norm)  # a little less, lest rounding has it scaled again and again
            layer.up.weight.mul_(factor)
            layer.down.weight.mul_(factor)
            capped += 1
    return capped
