"""The table of layers: variant × type of the target module."""

from __future__ import annotations

from torch import nn

from sd_lora.errors import AdapterError, nearest
from sd_lora.lora.dora import DoraConv2d, DoraLinear
from sd_lora.lora.layers import LoraConv2d, LoraLayer, LoraLinear

VARIANTS: dict[str, dict[type[nn.Module], type[LoraLayer]]] = {
    "lora": {nn.Linear: LoraLinear, nn.Conv2d: LoraConv2d},
    "dora": {nn.Linear: DoraLinear, nn.Conv2d: DoraConv2d},
}


def new_layer(module: nn.Module, rank: int, alpha: float, variant: str = "lora") -> LoraLayer:
    """A fresh layer of `variant` for `module`. Raises AdapterError for a variant that does not exist."""
    if variant not in VARIANTS:
        raise AdapterError(f'there is no variant "{variant}"; {nearest(variant, VARIANTS)}')
    return VARIANTS[variant][type(module)].from_target(module, rank, alpha)
