"""Weights of one module for tests."""

from __future__ import annotations

from torch import Tensor

from sd_lora.lora.weights import Weights


def weights_of(down: Tensor, up: Tensor, alpha: float, magnitude: Tensor | None = None) -> Weights:
    """A LoRA, or with a `magnitude` a DoRA."""
    if magnitude is None:
        return Weights("lora", {"down": down, "up": up}, alpha)
    return Weights("dora", {"down": down, "up": up, "magnitude": magnitude}, alpha)
