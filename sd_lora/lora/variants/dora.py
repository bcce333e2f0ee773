"""DoRA (arXiv 2402.09353): W' = magnitude · (W + ΔW) / ‖W + ΔW‖, a norm and a magnitude for each output row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, ClassVar

from sd_lora.lora.variants.lora import Lora
from sd_lora.lora.variants.variant import Array, Shapes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sd_lora.lora.layers import Layer


class Dora(Lora):
    """What LoRA has, and `magnitude` (out,)."""

    name = "dora"
    title = "DoRA"
    keys: ClassVar = {
        "kohya": {**Lora.keys["kohya"], "magnitude": "dora_scale"},
        "diffusers": {**Lora.keys["diffusers"], "magnitude": "lora_magnitude_vector"},
    }
    can_add = can_cut = can_cap_norm = False
    needs_base = True
    diffusers_reads_kohya = False
    note = (
        "a DoRA adapter acts exactly in diffusers only, from the export: other programs define its magnitude "
        "differently, kohya's scripts ignore it; lora.variant=lora acts the same everywhere"
    )
    clients = (
        ("distorts", ("diffusers",), "DoRA magnitudes, which it drops", lambda p: p.layout == "kohya" or p.is_text),
        ("distorts", ("sd-scripts",), "DoRA magnitudes, which it ignores", lambda _: True),
        ("distorts", ("ComfyUI", "AUTOMATIC1111", "Forge", "InvokeAI"),
         "DoRA magnitudes by output row, which it reads differently",  # always in PEFT; by column kohya's are (1, in)
         lambda p: p.layout == "diffusers" or p.shapes["magnitude"][:1] != (1,)),
    )  # fmt: skip

    def problem(self, shapes: Shapes, layout: str) -> str:
        rows, shape = shapes["up"][:1], shapes["magnitude"]
        if problem := super().problem(shapes, layout):
            return problem
        if (prod(shape),) != rows:
            return f"has a magnitude of shape {shape} for {rows[0]} outputs"
        if len(shape) > 1 and rows[0] not in shape[:2]:
            return f"has a magnitude of shape {shape}"
        if len(shape) > 1 and layout == "kohya" and shape[0] != rows[0]:
            return "is a DoRA with a magnitude per input column, another definition than PEFT's per output row"
        return ""

    def fits(self, shapes: Shapes, shape: tuple[int, ...]) -> bool:
        return super().fits(shapes, shape) and shapes["magnitude"] == shape[:1]

    def delta(self, tensors: Mapping[str, Tensor], scaling: float, weight: Tensor) -> Tensor:
        rows = (-1,) + (1,) * (weight.ndim - 1)
        changed = weight + super().delta(tensors, scaling, weight)
        return self.gain(tensors, scaling, weight).view(rows) * changed - weight

    def gain(self, tensors: Mapping[str, Tensor], scaling: float, weight: Tensor) -> Tensor:
        """magnitude / ‖W + ΔW‖ (out,). As in section 4.3 of the paper, no gradient flows through the norm."""
        import torch

        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
            # A row of zeros has magnitude 0 and norm 0: it stays a row of zeros.
            norms = row_norms(weight + super().delta(tensors, scaling, weight)).clamp_min(
                torch.finfo(weight.dtype).tiny
            )
        return tensors["magnitude"] / norms

    def in_file(self, tensors: Mapping[str, Tensor], layout: str) -> Mapping[str, Tensor]:
        sides = tensors["down"].ndim
        shape = (-1, *[1] * (sides - 1)) if layout == "kohya" else (1, -1, 1, 1) if sides == 4 else (-1,)
        return {**tensors, "magnitude": tensors["magnitude"].view(shape)}

    def in_memory(self, tensors: Mapping[str, Array]) -> dict[str, Array]:
        return {**tensors, "magnitude": tensors["magnitude"].flatten()}

    def layers(self) -> dict[type[nn.Module], Callable[[nn.Module, int, float], Layer]]:
        from torch import nn

        from sd_lora.lora.dora import DoraConv2d, DoraLinear

        return {nn.Linear: DoraLinear, nn.Conv2d: DoraConv2d}


def row_norms(weight: Tensor) -> Tensor:
    """The L2 norm of every output row of `weight` (out, …) → (out,)."""
    import torch

    return torch.linalg.vector_norm(weight.flatten(1), dim=1)
