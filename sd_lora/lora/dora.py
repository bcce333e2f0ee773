"""DoRA layers (arXiv 2402.09353): W' = magnitude · (W + ΔW) / ‖W + ΔW‖, a norm and a magnitude for each output row.

They compute what PEFT's do. Ours are linear in the strength besides: output + strength · (W' x − W x).
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from sd_lora.lora.layers import LoraConv2d, LoraLayer, LoraLinear


class DoraLayer(LoraLayer):
    """What both module types share: a LoRA layer and `magnitude` (out,), float32, at first the norms of W's rows."""

    magnitude: nn.Parameter

    def change(self, x: Tensor, target: nn.Module, output: Tensor) -> Tensor:
        weight, bias = target.weight, target.bias
        assert isinstance(weight, Tensor)
        rows = (1, -1, 1, 1) if weight.ndim == 4 else (-1,)  # the place of the output rows in `output`
        own = output - bias.view(rows) if isinstance(bias, Tensor) else output
        gain = self._gain(weight).view(rows)
        return (gain - 1) * own + gain * super().change(x, target, output)

    def delta_weight(self, weight: Tensor) -> Tensor:
        base = weight.to(self.magnitude.device, torch.float32)
        rows = (-1,) + (1,) * (weight.ndim - 1)
        return self._gain(weight).view(rows) * (base + super().delta_weight(weight)) - base

    def tensors(self) -> dict[str, Tensor]:
        return {**super().tensors(), "magnitude": self.magnitude.detach()}

    def load_tensors(self, down: Tensor, up: Tensor, magnitude: Tensor | None = None) -> None:
        super().load_tensors(down, up, magnitude)
        with torch.no_grad():
            self.magnitude.copy_(magnitude)  # pyright: ignore[reportArgumentType]

    def _gain(self, weight: Tensor) -> Tensor:
        """magnitude / ‖W + ΔW‖ (out,). As in section 4.3 of the paper, no gradient flows through the norm."""
        device = self.magnitude.device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            base = weight.to(device, torch.float32)
            # A row of zeros has magnitude 0 and norm 0: it stays a row of zeros.
            norms = row_norms(base + super().delta_weight(weight)).clamp_min(torch.finfo(torch.float32).tiny)
        return self.magnitude / norms

    def _start(self, module: nn.Linear | nn.Conv2d) -> Self:
        super()._start(module)
        self.magnitude = nn.Parameter(row_norms(module.weight.detach().float()))
        return self


class DoraLinear(DoraLayer, LoraLinear):
    """For `nn.Linear`: (batch, …, in) → (batch, …, out)."""


class DoraConv2d(DoraLayer, LoraConv2d):
    """For `nn.Conv2d`: the norm of an output row is taken over its whole kernel."""


def row_norms(weight: Tensor) -> Tensor:
    """The L2 norm of every output row of `weight` (out, …) → (out,)."""
    return torch.linalg.vector_norm(weight.flatten(1), dim=1)
