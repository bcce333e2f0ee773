"""DoRA layers: they compute what PEFT's do, and are linear in the strength: output + strength · (W' x − W x)."""

from __future__ import annotations

from torch import Tensor, nn

from sd_lora.lora.layers import Layer, LoraConv2d, LoraLayer, LoraLinear
from sd_lora.lora.variants.dora import Dora, row_norms


class DoraLayer(LoraLayer):
    """What both module types share: a LoRA layer and `magnitude` (out,), float32, at first the norms of W's rows."""

    variant = "dora"
    magnitude: nn.Parameter

    def change(self, x: Tensor, target: nn.Module, output: Tensor) -> Tensor:
        weight, bias = target.weight, target.bias
        assert isinstance(weight, Tensor)
        rows = (1, -1, 1, 1) if weight.ndim == 4 else (-1,)  # where the output rows are in `output`
        product = output - bias.view(rows) if isinstance(bias, Tensor) else output
        gain = Dora().gain(*self._with(weight)).view(rows)
        return (gain - 1) * product + gain * super().change(x, target, output)

    change_of_each = Layer.change_of_each  # not all of the change is in the ranks

    def _start(self, target: nn.Linear | nn.Conv2d) -> None:
        super()._start(target)
        self.magnitude = nn.Parameter(row_norms(target.weight.detach().float()))


class DoraLinear(DoraLayer, LoraLinear):
    """For `nn.Linear`: (batch, …, in) → (batch, …, out)."""


class DoraConv2d(DoraLayer, LoraConv2d):
    """For `nn.Conv2d`: the norm of an output row is taken over its whole kernel."""
