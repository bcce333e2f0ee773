"""LoRA (arXiv 2106.09685): ΔW = alpha / rank · up @ down; for convs up is 1 × 1, the form called LoCon."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sd_lora.lora.variants.variant import MAX_RANK, Array, Shapes, Variant

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sd_lora.lora.layers import Layer


class Lora(Variant):
    """`down` (rank, in, …) and `up` (out, rank, …). Convs of other programs may have a core `mid` (rank, rank,
    kernel…) between 1 × 1 ones, which is multiplied into `down` when it is read."""

    name = "lora"
    title = "LoRA"
    keys: Mapping[str, Mapping[str, str]] = {
        "kohya": {"down": "lora_down.weight", "up": "lora_up.weight", "mid": "lora_mid.weight"},
        "diffusers": {"down": "lora_A.weight", "up": "lora_B.weight"},
    }
    optional = frozenset({"mid"})
    never_zero = ("down",)
    is_judged = has_up_and_ranks = True
    can_add = can_cut = can_cap_norm = True

    def problem(self, shapes: Shapes, layout: str) -> str:  # noqa: ARG002
        down, up = shapes["down"], shapes["up"]
        layered = len(down) in (2, 4) and len(up) in (2, 4) and 0 not in down + up
        if not layered or up[1] != down[0] or any(side != 1 for side in up[2:]):
            return f"has shapes {down} and {up}, which cannot be multiplied"
        mid = shapes.get("mid")
        if mid and (len(mid) != 4 or mid[:2] != (down[0], down[0]) or 0 in mid or any(side != 1 for side in down[2:])):
            return f"has a core of shape {mid} between {down} and {up}"
        return f"has rank {down[0]}, more than {MAX_RANK}" if down[0] > MAX_RANK else ""

    def rank(self, shapes: Shapes) -> int:
        return shapes["down"][0]

    def shape(self, shapes: Shapes) -> tuple[int, ...]:
        return (shapes["up"][0], *shapes["down"][1:])

    def product(self, tensors: Mapping[str, Array]) -> Array:
        up, down = _matrices(tensors)
        return (up @ down).reshape(len(up), *tensors["down"].shape[1:])

    def inner(self, one: Mapping[str, Array], other: Mapping[str, Array]) -> Array:
        """From Gram matrices (rank, rank), without the products."""
        (up, down), (other_up, other_down) = _matrices(one), _matrices(other)
        return ((up.T @ other_up) * (down @ other_down.T)).sum()

    def fitted(self, tensors: Mapping[str, Array], shape: tuple[int, ...]) -> dict[str, Array]:
        rank, ones = len(tensors["down"]), (1,) * len(shape[2:])
        parts = {"down": (rank, *shape[1:]), "up": (shape[0], rank, *ones)}
        return {**tensors, **{role: tensors[role].reshape(part) for role, part in parts.items()}}

    def balanced(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same change with values of one size in both tensors; by a power of two, so that no bit is lost."""
        sizes = {role: float(tensors[role].abs().max()) for role in ("down", "up")}
        if not all(sizes.values()):
            return dict(tensors)
        factor = 2.0 ** round(math.log2(sizes["down"] / sizes["up"]) / 2)
        return {**tensors, "down": tensors["down"] / factor, "up": tensors["up"] * factor}

    def in_memory(self, tensors: Mapping[str, Array], layout: str, alpha: float | None = None) -> dict[str, Array]:  # noqa: ARG002
        """A core is multiplied into `down`, which changes nothing: down'[r, i, …] = Σ core[r, s, …] · down[s, i]."""
        mid, down = tensors.get("mid"), tensors["down"]
        if mid is None:  # a kernel of ones may be left out of one of them
            ones = (1,) * max(len(down.shape) - 2, 0)
            return {"up": tensors["up"].reshape(-1, len(down), *ones), "down": down}
        rank, kernel = len(down), tuple(mid.shape[2:])
        along = mid.reshape(rank, rank, -1).swapaxes(1, 2) @ down.reshape(rank, -1)  # (rank, kernel, in)
        return {
            "up": tensors["up"].reshape(-1, rank, *(1 for _ in kernel)),
            "down": along.swapaxes(1, 2).reshape(rank, down.shape[1], *kernel),
        }

    def layers(self, factor: int = 0) -> dict[type[nn.Module], Callable[[nn.Module, int, float], Layer]]:  # noqa: ARG002
        from torch import nn

        from sd_lora.lora.layers import LoraConv2d, LoraLinear

        return {nn.Linear: LoraLinear, nn.Conv2d: LoraConv2d}


def _matrices(tensors: Mapping[str, Array]) -> tuple[Array, Array]:
    up, down = tensors["up"], tensors["down"]
    return up.reshape(len(up), -1), down.reshape(len(down), -1)
