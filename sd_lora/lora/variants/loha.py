"""LoHa (arXiv 2108.06098): ΔW = alpha / rank · (w1_a @ w1_b) ∘ (w2_a @ w2_b), two products multiplied by element."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod
from typing import TYPE_CHECKING

from sd_lora.lora.variants.variant import MAX_RANK, Array, Shapes, Variant

if TYPE_CHECKING:
    from torch import Tensor

_ENDINGS = {role: f"hada_{role}" for role in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")}


class Loha(Variant):
    """`w1_a`, `w2_a` (out, rank) and `w1_b`, `w2_b` (rank, in · kernel). Convs of other programs may have cores `t1`,
    `t2` (rank, rank, kernel…) between them; then `w1_a`, `w2_a` are (rank, out) and `w1_b`, `w2_b` are (rank, in)."""

    name = "loha"
    title = "LoHa"
    keys: Mapping[str, Mapping[str, str]] = {"kohya": _ENDINGS, "diffusers": _ENDINGS}
    optional = frozenset({"t1", "t2"})
    network_module = "lycoris.kohya"
    algorithm = "loha"
    diffusers_reads_kohya = diffusers_reads_export = False
    scaled_role = "w1_a"
    never_zero = ("w1_b", "w2_b")
    note = "LoHa is not read by diffusers, and not by every other program; sd-lora resize makes plain LoRA of it"

    def missing(self, roles: Collection[str]) -> list[str]:
        lone = {"t1": "t2", "t2": "t1"}
        return sorted({*super().missing(roles), *(lone[role] for role in roles if role in lone)} - set(roles))

    def problem(self, shapes: Shapes, layout: str) -> str:  # noqa: ARG002
        one, two = ((shapes[f"w{n}_a"], shapes[f"w{n}_b"]) for n in "12")
        matrices = [len(shape) == 2 and 0 not in shape for shape in (*one, *two)]
        rank = self.rank(shapes)
        across = 0 if "t1" in shapes else 1
        if not all(matrices) or one != two or one[0][across] != rank or shapes.get("t1") != shapes.get("t2"):
            return f"has shapes {one[0]} and {one[1]}, {two[0]} and {two[1]}, which cannot be multiplied"
        if "t1" in shapes and (shapes["t1"][:2] != (rank, rank) or 0 in shapes["t1"]):
            return f"has a core of shape {shapes['t1']} for rank {rank}"
        return f"has rank {rank}, more than {MAX_RANK}" if rank > MAX_RANK else ""

    def rank(self, shapes: Shapes) -> int:
        return shapes["w1_b"][0]

    def shape(self, shapes: Shapes) -> tuple[int, ...]:
        if "t1" in shapes:
            return (shapes["w1_a"][1], shapes["w1_b"][1], *shapes["t1"][2:])
        return shapes["w1_a"][0], shapes["w1_b"][1]

    def product(self, tensors: Mapping[str, Array]) -> Array:
        one, two = (with_core(tensors[f"w{n}_a"], tensors[f"w{n}_b"], tensors.get(f"t{n}")) for n in "12")
        return one * two

    def start(self, shape: tuple[int, ...], rank: int) -> dict[str, Tensor]:
        """As LyCORIS starts one: of the four only `w2_a` is zero."""
        import torch

        inputs = prod(shape[1:])
        return {
            "w1_a": torch.randn(shape[0], rank) * 0.1,
            "w1_b": torch.randn(rank, inputs),
            "w2_a": torch.zeros(shape[0], rank),
            "w2_b": torch.randn(rank, inputs),
        }


def with_core(a: Array, b: Array, core: Array | None) -> Array:
    """`a` (out, rank) @ `b` (rank, in…) → (out, in); or with a `core` (rank, rank, kernel…), `a` (rank, out) and `b`
    (rank, in), Σ core[i, j] a[i] b[j] → (out, in, kernel…)."""
    if core is None:
        return a @ b.reshape(len(b), -1)
    rank, kernel = len(a), tuple(core.shape[2:])
    rows = (a.T @ core.reshape(rank, -1)).reshape(a.shape[1], rank, -1)
    return (rows.swapaxes(1, 2) @ b).swapaxes(1, 2).reshape(a.shape[1], b.shape[1], *kernel)
