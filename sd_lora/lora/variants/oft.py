"""OFT (arXiv 2306.07280) and BOFT (arXiv 2311.06243): the output channels are rotated in blocks, W' = R W; read,
previewed and fused, not trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sd_lora.lora.variants.variant import Array, Shapes, Variant

if TYPE_CHECKING:
    from torch import Tensor


class Oft(Variant):
    """`blocks` (count, size, size), or (stages, count, size, size) for BOFT, of which R is made by Cayley's formula;
    `rescale` (out, 1…) multiplies the rows afterwards; `limit` is the largest norm of the blocks' skew part, 0: any."""

    name = "oft"
    title = "OFT"
    keys: Mapping[str, Mapping[str, str]] = {"kohya": {"blocks": "oft_blocks", "rescale": "rescale"}, "diffusers": {}}
    optional = frozenset({"rescale"})
    is_trained = False
    needs_base = True
    diffusers_reads_kohya = False

    def problem(self, shapes: Shapes, layout: str) -> str:  # noqa: ARG002
        blocks = shapes["blocks"]
        if len(blocks) not in (3, 4) or blocks[-1] != blocks[-2] or 0 in blocks:
            return f"has blocks of shape {blocks}"
        if "rescale" in shapes and shapes["rescale"][:1] != (blocks[-3] * blocks[-1],):
            return f"has a rescale of shape {shapes['rescale']} for {blocks[-3] * blocks[-1]} outputs"
        return ""

    def is_scaled(self, shapes: Shapes) -> bool:  # noqa: ARG002
        return False

    def rank(self, shapes: Shapes) -> int:  # noqa: ARG002
        return 1

    def shape(self, shapes: Shapes) -> tuple[int, ...]:
        return (shapes["blocks"][-3] * shapes["blocks"][-1], 1)

    def fits(self, shapes: Shapes, shape: tuple[int, ...]) -> bool:
        return len(shape) >= 2 and shape[0] == self.shape(shapes)[0]

    def product(self, tensors: Mapping[str, Array]) -> Array:
        return tensors["blocks"]

    def delta(self, tensors: Mapping[str, Tensor], scaling: float, weight: Tensor) -> Tensor:  # noqa: ARG002
        rotations = _rotations(tensors["blocks"], tensors.get("limit"))
        rows = weight.flatten(1)
        if rotations.ndim == 3:
            count, size, _ = rotations.shape
            turned = (rotations.mT @ rows.view(count, size, -1)).reshape(rows.shape)
        else:
            turned = rows
            for stage, rotation in enumerate(rotations):
                turned = _mixed(turned, rotation, 2**stage * rotation.shape[-1] // 2)
        if "rescale" in tensors:
            turned = turned * tensors["rescale"].reshape(-1, 1)
        return (turned - rows).view(weight.shape)

    def in_memory(self, tensors: Mapping[str, Array], layout: str, alpha: float | None = None) -> dict[str, Array]:  # noqa: ARG002
        """Alpha is no scale here, but the largest norm for each output channel."""
        outputs = self.shape({role: tuple(tensor.shape) for role, tensor in tensors.items()})[0]
        limit = {"limit": tensors["blocks"].reshape(-1)[0] * 0 + alpha * outputs} if alpha else {}
        return {**tensors, **limit}


def _rotations(blocks: Tensor, limit: Tensor | None) -> Tensor:
    """(I + Q)(I − Q)⁻¹ of the skew part Q of each block."""
    import torch

    skew = blocks - blocks.mT
    if limit is not None and (norm := torch.linalg.vector_norm(skew)) > limit:
        skew = skew * (limit / norm)
    identity = torch.eye(blocks.shape[-1], dtype=blocks.dtype, device=blocks.device)
    return (identity + skew) @ torch.linalg.inv(identity - skew)


def _mixed(rows: Tensor, rotation: Tensor, reach: int) -> Tensor:
    """One stage of BOFT's butterfly: `rotation` (count, size, size) turns rows that lie `reach` apart."""
    size, width = rotation.shape[-1], rows.shape[1]
    apart = rows.reshape(-1, 2, reach, width).transpose(1, 2).reshape(-1, size, width)
    return (rotation @ apart).reshape(-1, reach, 2, width).transpose(1, 2).reshape(rows.shape)
