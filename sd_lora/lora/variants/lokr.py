"""LoKr (LyCORIS, arXiv 2309.14859): ΔW = alpha / rank · w1 ⊗ w2, a Kronecker product of two matrices,
either of which may be low-rank."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from math import prod
from typing import TYPE_CHECKING

from sd_lora.lora.variants.loha import with_core
from sd_lora.lora.variants.variant import MAX_RANK, Array, Shapes, Variant

if TYPE_CHECKING:
    from torch import Tensor

_ENDINGS = {
    role: role for role in ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
}


class Lokr(Variant):
    """`lokr_w1` (a, c), or `lokr_w1_a` (a, rank) and `lokr_w1_b` (rank, c); `lokr_w2` (b, d, kernel…), or `lokr_w2_a`
    (b, rank) and `lokr_w2_b` (rank, d · kernel), for convs with a core `lokr_t2` as in LoHa. The weight is
    (a · b, c · d, kernel…)."""

    name = "lokr"
    title = "LoKr"
    keys: Mapping[str, Mapping[str, str]] = {"kohya": _ENDINGS, "diffusers": _ENDINGS}
    optional = frozenset(_ENDINGS)
    network_module = "lycoris.kohya"
    algorithm = "lokr"
    takes_factor = True
    never_zero = ("lokr_w1", "lokr_w1_a", "lokr_w1_b")
    diffusers_reads_kohya = diffusers_reads_export = False
    note = "LoKr is not read by diffusers, and not by every other program; sd-lora resize makes plain LoRA of it"

    def missing(self, roles: Collection[str]) -> list[str]:
        lacking = []
        for factor in ("lokr_w1", "lokr_w2"):
            pair = {f"{factor}_a", f"{factor}_b"}
            if factor not in roles:
                lacking += sorted(pair - set(roles)) if pair & set(roles) else [factor]
        return lacking

    def problem(self, shapes: Shapes, layout: str) -> str:  # noqa: ARG002
        for factor in ("lokr_w1", "lokr_w2"):
            if factor in shapes and f"{factor}_a" in shapes:
                return f"has {factor} both complete and in two parts"
            a, b, core = (
                shapes.get(f"{factor}_a"),
                shapes.get(f"{factor}_b"),
                shapes.get("lokr_t2") if factor == "lokr_w2" else None,
            )
            if a and b and (len(a) != 2 or len(b) < 2 or a[0 if core else 1] != b[0] or 0 in a + b):
                return f"has shapes {a} and {b}, which cannot be multiplied"
            if core and (not b or core[:2] != (b[0], b[0]) or 0 in core):
                return f"has a core of shape {core}, which does not go with {b}"
        whole = [shapes[factor] for factor in ("lokr_w1", "lokr_w2") if factor in shapes]
        if odd := next((shape for shape in whole if len(shape) not in (2, 4) or 0 in shape), None):
            return f"has a factor of shape {odd}"
        rank = self.rank(shapes)
        return f"has rank {rank}, more than {MAX_RANK}" if rank > MAX_RANK else ""

    def is_scaled(self, shapes: Shapes) -> bool:
        return "lokr_w1_b" in shapes or "lokr_w2_b" in shapes

    def rank(self, shapes: Shapes) -> int:
        return next((shapes[role][0] for role in ("lokr_w1_b", "lokr_w2_b") if role in shapes), 1)

    def shape(self, shapes: Shapes) -> tuple[int, ...]:
        rows, columns = (
            shapes["lokr_w1"][:2] if "lokr_w1" in shapes else (shapes["lokr_w1_a"][0], shapes["lokr_w1_b"][1])
        )
        if "lokr_w2" in shapes:
            inner = shapes["lokr_w2"]
        elif "lokr_t2" in shapes:
            inner = (shapes["lokr_w2_a"][1], shapes["lokr_w2_b"][1], *shapes["lokr_t2"][2:])
        else:
            inner = (shapes["lokr_w2_a"][0], *shapes["lokr_w2_b"][1:])
        return rows * inner[0], columns * inner[1], *inner[2:]

    def product(self, tensors: Mapping[str, Array]) -> Array:
        shape = self.shape({role: tuple(tensor.shape) for role, tensor in tensors.items()})
        one, two = (
            tensors[n] if n in tensors else with_core(tensors[f"{n}_a"], tensors[f"{n}_b"], core)
            for n, core in (("lokr_w1", None), ("lokr_w2", tensors.get("lokr_t2")))
        )
        one, two = one.reshape(len(one), -1), two.reshape(len(two), -1)
        return (one[:, None, :, None] * two[None, :, None, :]).reshape(shape)

    def scaled(self, tensors: Mapping[str, Array], factor: float) -> dict[str, Array]:
        role = "lokr_w1" if "lokr_w1" in tensors else "lokr_w1_a"
        return {**tensors, role: tensors[role] * factor}

    def start(self, shape: tuple[int, ...], rank: int, factor: int = 0) -> dict[str, Tensor]:
        """As LyCORIS starts one: `lokr_w1` complete, `lokr_w2` in two parts if that is smaller, and zero. `factor`: a
        side of `lokr_w1`, where it divides the weight's; 0: both factors as equal as possible."""
        import torch

        (a, b), (c, d), kernel = _split(shape[0], factor), _split(shape[1], factor), prod(shape[2:])
        one = torch.nn.init.kaiming_uniform_(torch.empty(a, c), a=math.sqrt(5))
        if rank >= max(b, d) / 2:
            return {"lokr_w1": one, "lokr_w2": torch.zeros(b, d, *shape[2:])}
        two_a = torch.nn.init.kaiming_uniform_(torch.empty(b, rank), a=math.sqrt(5))
        return {"lokr_w1": one, "lokr_w2_a": two_a, "lokr_w2_b": torch.zeros(rank, d * kernel)}


def _split(size: int, factor: int) -> tuple[int, int]:
    """`size` as a product of two, the smaller first: `factor` and the rest if that divides it, else the two nearest to
    each other of which the smaller is at most `factor`."""
    if factor > 0 and size % factor == 0:
        return min(factor, size // factor), max(factor, size // factor)
    most = min(math.isqrt(size), factor or size)
    small = next(n for n in range(most, 0, -1) if size % n == 0)
    return small, size // small
