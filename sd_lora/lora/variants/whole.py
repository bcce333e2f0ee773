"""Changes that are kept complete or by channel, as LyCORIS writes them: read, previewed and fused, not trained."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from sd_lora.lora.variants.variant import Array, Shapes, Variant

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sd_lora.lora.layers import Layer


class Full(Variant):
    """`diff`, added to the weight in its own shape, and `bias`, added to the bias; either may be missing."""

    name = "full"
    title = "full weight differences"
    keys: Mapping[str, Mapping[str, str]] = {"kohya": {"diff": "diff", "bias": "diff_b"}, "diffusers": {}}
    optional = frozenset({"diff", "bias"})
    never_zero = ("diff",)
    is_trained = False
    diffusers_reads_kohya = False

    def missing(self, roles: Collection[str]) -> list[str]:
        return [] if set(roles) & set(self.roles) else [self.roles[0]]

    def problem(self, shapes: Shapes, layout: str) -> str:  # noqa: ARG002
        diff, bias = (shapes.get(role) for role in self.roles)
        if (diff and len(diff) not in (1, 2, 4)) or (bias and len(bias) != 1) or 0 in (*(diff or ()), *(bias or ())):
            return f"has shapes {diff} and {bias}, which are of no weight and bias"
        return f"has {diff[0]} rows and a bias of {bias[0]}" if diff and bias and diff[0] != bias[0] else ""

    def is_scaled(self, shapes: Shapes) -> bool:  # noqa: ARG002
        return False

    def rank(self, shapes: Shapes) -> int:  # noqa: ARG002
        return 1

    def shape(self, shapes: Shapes) -> tuple[int, ...]:
        return next(shapes[role] for role in self.roles if role in shapes)

    def fits(self, shapes: Shapes, shape: tuple[int, ...]) -> bool:
        return super().fits(shapes, shape) if self.roles[0] in shapes else self.shape(shapes) == shape[:1]

    def product(self, tensors: Mapping[str, Array]) -> Array:
        """Of a bias alone, the bias."""
        return next(tensors[role] for role in self.roles if role in tensors)

    def delta(self, tensors: Mapping[str, Tensor], scaling: float, weight: Tensor) -> Tensor:
        return super().delta(tensors, scaling, weight) if self.roles[0] in tensors else weight.float() * 0

    def delta_bias(self, tensors: Mapping[str, Tensor]) -> Tensor | None:
        return tensors.get(self.roles[1])

    def layers(self, factor: int = 0) -> dict[type[nn.Module], Callable[[nn.Module, int, float], Layer]]:
        from torch import nn

        return super().layers(factor) | dict.fromkeys((nn.LayerNorm, nn.GroupNorm), self._fresh(factor))


class Norm(Full):
    """`scale` and `shift` (channels,), added to a normalisation's weight and bias."""

    name = "norm"
    title = "norm weights"
    keys: Mapping[str, Mapping[str, str]] = {"kohya": {"scale": "w_norm", "shift": "b_norm"}, "diffusers": {}}
    optional = frozenset({"scale", "shift"})
    never_zero = ()

    def layers(self, factor: int = 0) -> dict[type[nn.Module], Callable[[nn.Module, int, float], Layer]]:
        from torch import nn

        return dict.fromkeys((nn.LayerNorm, nn.GroupNorm), self._fresh(factor))


class Ia3(Variant):
    """(IA)³ (arXiv 2205.05638): ΔW = gain · W; `gain` is (out, 1), or (1, in) if it is of the inputs."""

    name = "ia3"
    title = "(IA)³"
    keys: Mapping[str, Mapping[str, str]] = {"kohya": {"gain": "weight", "on_input": "on_input"}, "diffusers": {}}
    is_trained = False
    needs_base = True
    diffusers_reads_kohya = False

    def missing(self, roles: Collection[str]) -> list[str]:
        return [] if set(roles) == {"gain"} else super().missing(roles)

    def problem(self, shapes: Shapes, layout: str) -> str:  # noqa: ARG002
        sides = [side for side in shapes["gain"] if side != 1]
        odd = len(sides) > 1 or 0 in shapes["gain"] or shapes.get("on_input", ()) not in ((), (1,))
        return f"has a gain of shape {shapes['gain']}" if odd else ""

    def is_scaled(self, shapes: Shapes) -> bool:  # noqa: ARG002
        return False

    def rank(self, shapes: Shapes) -> int:  # noqa: ARG002
        return 1

    def shape(self, shapes: Shapes) -> tuple[int, ...]:
        return shapes["gain"]

    def fits(self, shapes: Shapes, shape: tuple[int, ...]) -> bool:
        return len(shape) >= 2 and all(mine in (1, side) for mine, side in zip(shapes["gain"], shape, strict=False))

    def product(self, tensors: Mapping[str, Array]) -> Array:
        return tensors["gain"]

    def delta(self, tensors: Mapping[str, Tensor], scaling: float, weight: Tensor) -> Tensor:  # noqa: ARG002
        gain = tensors["gain"]
        return weight * gain.reshape(*gain.shape, *(1 for _ in weight.shape[2:]))

    def in_memory(self, tensors: Mapping[str, Array], layout: str, alpha: float | None = None) -> dict[str, Array]:  # noqa: ARG002
        if "on_input" not in tensors:
            return dict(tensors)
        return {"gain": tensors["gain"].reshape((1, -1) if float(tensors["on_input"].reshape(-1)[0]) else (-1, 1))}
