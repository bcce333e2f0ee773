"""The LoRA mechanism in pure torch: plan targets, create layers, inject, set strength, eject, fuse."""

from sd_lora.lora.dora import DoraConv2d, DoraLinear
from sd_lora.lora.inject import eject, fuse, inject, set_strength
from sd_lora.lora.layers import LoraConv2d, LoraLayer, LoraLinear, Strength
from sd_lora.lora.norms import cap_norms, delta_norms
from sd_lora.lora.targets import Target, plan_targets
from sd_lora.lora.variants import VARIANTS, new_layer

__all__ = [
    "VARIANTS",
    "DoraConv2d",
    "DoraLinear",
    "LoraConv2d",
    "LoraLayer",
    "LoraLinear",
    "Strength",
    "Target",
    "cap_norms",
    "delta_norms",
    "eject",
    "fuse",
    "inject",
    "new_layer",
    "plan_targets",
    "set_strength",
]
