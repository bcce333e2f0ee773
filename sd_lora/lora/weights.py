"""`Weights`: what an adapter has for one module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sd_lora.lora.variants import VARIANTS

if TYPE_CHECKING:
    from sd_lora.lora.variants.variant import Variant


@dataclass(frozen=True)
class Weights:
    """`tensors` by role, all of numpy or all of torch, whose meaning the row of `variant` knows; `alpha` scales the
    change by alpha / rank."""

    variant: str
    tensors: dict[str, Any]
    alpha: float

    @property
    def row(self) -> Variant:
        return VARIANTS[self.variant]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {role: tuple(tensor.shape) for role, tensor in self.tensors.items()}

    @property
    def rank(self) -> int:
        return self.row.rank(self.shapes)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight that is changed."""
        return self.row.shape(self.shapes)

    @property
    def scaling(self) -> float:
        return self.alpha / self.rank

    def inner(self, other: Weights) -> float:
        """The sum of this change times the `other`, element by element, at strength 1 and in float64."""
        return float(self.row.inner(_double(self), _double(other))) * self.scaling * other.scaling

    @property
    def squared_norm(self) -> float:
        """‖ΔW‖² at strength 1; of a DoRA, without its magnitude."""
        return max(0.0, self.inner(self))

    def squared_difference(self, other: Weights) -> float:
        """‖ΔW − the other's ΔW‖²."""
        return max(0.0, self.inner(self) - 2 * self.inner(other) + other.inner(other))


def _double(weights: Weights) -> dict[str, Any]:
    """In float64 on the CPU, of either library."""
    return {
        role: tensor.detach().double().cpu() if hasattr(tensor, "detach") else tensor.astype("float64")
        for role, tensor in weights.tensors.items()
    }
