"""GLoRA (arXiv 2306.07967): ΔW = alpha / rank · (W · a1 · a2 + b1 · b2); read, previewed and fused, not trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sd_lora.lora.variants.variant import MAX_RANK, Array, Shapes, Variant

if TYPE_CHECKING:
    from torch import Tensor


class Glora(Variant):
    """`a1` (in, rank), `a2` (rank, in), `b1` (out, rank) and `b2` (rank, in, kernel…)."""

    name = "glora"
    title = "GLoRA"
    keys: Mapping[str, Mapping[str, str]] = {
        "kohya": {role: f"{role}.weight" for role in ("a1", "a2", "b1", "b2")},
        "diffusers": {},
    }
    is_trained = False
    needs_base = True
    diffusers_reads_kohya = False

    def problem(self, shapes: Shapes, layout: str) -> str:  # noqa: ARG002
        if any(len(shape) not in (2, 4) or 0 in shape for shape in shapes.values()):
            return f"has shapes {', '.join(map(str, shapes.values()))}"
        if not _is_new(shapes) and not _is_old(shapes):
            return f"has shapes {', '.join(map(str, shapes.values()))}, which cannot be multiplied"
        return f"has rank {self.rank(shapes)}, more than {MAX_RANK}" if self.rank(shapes) > MAX_RANK else ""

    def rank(self, shapes: Shapes) -> int:
        return shapes["a1"][1] if _is_new(shapes) else shapes["a1"][0]

    def shape(self, shapes: Shapes) -> tuple[int, ...]:
        return (shapes["b1"][0], *shapes["b2"][1:])

    def product(self, tensors: Mapping[str, Array]) -> Array:
        """Without the part that depends on W."""
        b1, b2 = tensors["b1"], tensors["b2"]
        return (b1 @ b2.reshape(len(b2), -1)).reshape(len(b1), *b2.shape[1:])

    def delta(self, tensors: Mapping[str, Tensor], scaling: float, weight: Tensor) -> Tensor:
        inputs = weight.transpose(1, -1)  # the last axis of a linear layer's already
        of_weight = (inputs @ tensors["a1"] @ tensors["a2"]).transpose(1, -1)
        return (of_weight + self.product(tensors).reshape(weight.shape)) * scaling

    def in_memory(self, tensors: Mapping[str, Array], layout: str, alpha: float | None = None) -> dict[str, Array]:  # noqa: ARG002
        shapes = {role: tuple(tensor.shape) for role, tensor in tensors.items()}
        if not _is_new(shapes):  # as earlier versions of LyCORIS wrote it
            tensors = {
                role: tensors[other]
                for role, other in zip(("a1", "a2", "b1", "b2"), ("a2", "a1", "b2", "b1"), strict=True)
            }
        flat = {role: tensors[role].reshape(len(tensors[role]), -1) for role in ("a1", "a2", "b1")}
        return {**flat, "b2": tensors["b2"]}


def _is_new(shapes: Shapes) -> bool:
    return shapes["a1"][1] == shapes["a2"][0] == shapes["b1"][1] == shapes["b2"][0]


def _is_old(shapes: Shapes) -> bool:
    return shapes["a1"][0] == shapes["a2"][1] == shapes["b1"][0] == shapes["b2"][1]
