"""DoRA (arXiv 2402.09353): W' = magnitude · (W + ΔW) / ‖W + ΔW‖, a norm and a magnitude for each output row.

Files of other programs may have them for each input column instead, and beside the tensors of another variant.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from sd_lora.errors import AdapterError
from sd_lora.lora.variants.lora import Lora
from sd_lora.lora.variants.variant import Array, Shapes, Variant

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sd_lora.lora.layers import Layer

_PLAIN = "make plain LoRA of it first with sd-lora resize --rank N --base BASE"
_LAYOUT_ENDINGS = {"kohya": "dora_scale", "diffusers": "lora_magnitude_vector"}


class Dora(Variant):
    """What `inner` has, and `magnitude`: (out,), or (1, in) for each input column."""

    can_add = can_cut = can_cap_norm = False
    needs_base = True
    diffusers_reads_kohya = False
    note = (
        "a DoRA adapter acts exactly in diffusers only, from the export, and there in the UNet only: other programs "
        "define its magnitude differently, kohya's scripts ignore it; lora.variant=lora acts the same everywhere"
    )
    clients = (
        ("distorts", ("diffusers",), "DoRA magnitudes, which it drops", lambda p: p.layout == "kohya" or p.is_text),
        ("distorts", ("sd-scripts",), "DoRA magnitudes, which it ignores", lambda _: True),
        ("distorts", ("ComfyUI", "AUTOMATIC1111", "Forge", "InvokeAI"),
         "DoRA magnitudes by output row, which it reads differently",  # always in PEFT; by column kohya's are (1, in)
         lambda p: p.layout == "diffusers" or p.shapes["magnitude"][:1] != (1,)),
    )  # fmt: skip

    def __init__(self, inner: Variant | None = None) -> None:
        self.inner_row = inner or Lora()
        is_plain = isinstance(self.inner_row, Lora)
        self.name = "dora" if is_plain else f"{self.inner_row.name}-dora"
        self.title = "DoRA" if is_plain else f"{self.inner_row.title} with magnitudes (DoRA)"
        self.keys = {
            layout: {**endings, "magnitude": _LAYOUT_ENDINGS[layout]} for layout, endings in self.inner_row.keys.items()
        }
        self.is_trained = self.is_judged = self.has_up_and_ranks = is_plain
        self.optional = self.inner_row.optional
        self.network_module, self.algorithm = self.inner_row.network_module, self.inner_row.algorithm
        self.scaled_role, self.never_zero = self.inner_row.scaled_role, self.inner_row.never_zero

    def missing(self, roles: Collection[str]) -> list[str]:
        lacking = self.inner_row.missing(set(roles) - {"magnitude"})
        return lacking if "magnitude" in roles else [*lacking, "magnitude"]

    def problem(self, shapes: Shapes, layout: str) -> str:
        if problem := self.inner_row.problem(_without(shapes), layout):
            return problem
        shape, (rows, columns) = shapes["magnitude"], self.shape(shapes)[:2]
        by_row = prod(shape) == rows and (
            len(shape) == 1 or (rows in shape[:2] and (layout != "kohya" or shape[0] == rows))
        )
        by_column = (
            layout == "kohya"
            and len(shape) > 1
            and shape[0] == 1
            and prod(shape) == shape[1]
            and columns % shape[1] == 0
        )
        return (
            "" if by_row or by_column else f"has a magnitude of shape {shape} for {rows} outputs and {columns} inputs"
        )

    def only_read(self, shapes: Shapes) -> str:
        by_column = f"{self.title} with magnitudes by input column" if len(shapes["magnitude"]) > 1 else ""
        return super().only_read(shapes) or by_column

    def is_scaled(self, shapes: Shapes) -> bool:
        return self.inner_row.is_scaled(_without(shapes))

    def rank(self, shapes: Shapes) -> int:
        return self.inner_row.rank(_without(shapes))

    def shape(self, shapes: Shapes) -> tuple[int, ...]:
        return self.inner_row.shape(_without(shapes))

    def fits(self, shapes: Shapes, shape: tuple[int, ...]) -> bool:
        return self.inner_row.fits(_without(shapes), shape) and shapes["magnitude"] in (shape[:1], (1, *shape[1:2]))

    def product(self, tensors: Mapping[str, Array]) -> Array:
        return self.inner_row.product(_without(tensors))

    def inner(self, one: Mapping[str, Array], other: Mapping[str, Array]) -> Array:
        return self.inner_row.inner(_without(one), _without(other))

    def delta(self, tensors: Mapping[str, Tensor], scaling: float, weight: Tensor) -> Tensor:
        change = self.inner_row.delta(_without(tensors), scaling, weight).reshape(weight.shape)
        magnitude = tensors["magnitude"]
        places = (-1,) if magnitude.ndim == 1 else (1, -1)
        gain = self.gain(tensors, scaling, weight).view(places + (1,) * (weight.ndim - len(places)))
        return gain * (weight + change) - weight

    def gain(self, tensors: Mapping[str, Tensor], scaling: float, weight: Tensor) -> Tensor:
        """magnitude / ‖W + ΔW‖ (out,), or (in,). As in section 4.3 of the paper, no gradient flows through the norm."""
        import torch

        magnitude = tensors["magnitude"]
        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
            # A row of zeros has magnitude 0 and norm 0: it stays a row of zeros.
            changed = weight + self.inner_row.delta(_without(tensors), scaling, weight).reshape(weight.shape)
            norms = row_norms(changed if magnitude.ndim == 1 else changed.transpose(0, 1))
        return magnitude.flatten() / norms.clamp_min(torch.finfo(weight.dtype).tiny)

    def scaled(self, tensors: Mapping[str, Array], factor: float) -> dict[str, Array]:
        return {**tensors, **self.inner_row.scaled(_without(tensors), factor)}

    def fitted(self, tensors: Mapping[str, Array], shape: tuple[int, ...]) -> dict[str, Array]:
        return {**tensors, **self.inner_row.fitted(_without(tensors), shape)}

    def balanced(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {**tensors, **self.inner_row.balanced(_without(tensors))}

    def in_file(self, tensors: Mapping[str, Tensor], layout: str) -> Mapping[str, Tensor]:
        sides, magnitude = tensors["down"].ndim, tensors["magnitude"]
        if layout == "kohya":
            places = (-1,) if magnitude.ndim == 1 else (1, -1)
            shape: tuple[int, ...] = places + (1,) * (sides - len(places))
        elif magnitude.ndim == 1:
            shape = (1, -1, 1, 1) if sides == 4 else (-1,)
        else:
            raise AdapterError(f"diffusers' keys have no place for magnitudes by input column; {_PLAIN}")
        return {**tensors, "magnitude": magnitude.view(shape)}

    def in_memory(self, tensors: Mapping[str, Array], layout: str, alpha: float | None = None) -> dict[str, Array]:
        magnitude, inner = tensors["magnitude"], self.inner_row.in_memory(_without(tensors), layout, alpha)
        shape = tuple(magnitude.shape)
        rows = self.inner_row.shape({role: tuple(tensor.shape) for role, tensor in inner.items()})[0]
        by_row = len(shape) == 1 or layout != "kohya" or (shape[0] == prod(shape) == rows)
        return {**inner, "magnitude": magnitude.reshape((-1,) if by_row else (1, -1))}

    def layers(self, factor: int = 0) -> dict[type[nn.Module], Callable[[nn.Module, int, float], Layer]]:
        if not self.is_trained:
            return super().layers(factor)
        from torch import nn

        from sd_lora.lora.dora import DoraConv2d, DoraLinear

        return {nn.Linear: DoraLinear, nn.Conv2d: DoraConv2d}


def _without(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {role: part for role, part in parts.items() if role != "magnitude"}


def row_norms(weight: Tensor) -> Tensor:
    """The L2 norm of every output row of `weight` (out, …) → (out,)."""
    import torch

    return torch.linalg.vector_norm(weight.flatten(1), dim=1)
