"""Decompose and recombine products up @ down: singular values without a full ΔW, and ranks by energy.

A module's change ΔW (out, in · kernel) is kept as its singular triplets; all of it is float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sd_lora.lora.weights import Weights

#: singular values below this share of the largest are rounding, not content
_NOISE = 1e-9


@dataclass(frozen=True)
class Triplets:
    """ΔW = u · diag(values) · v: `u` (out, r), `values` (r,) falling, `v` (r, in · kernel); `down` is (in, kernel…)."""

    u: Tensor
    values: Tensor
    v: Tensor
    down: tuple[int, ...]

    @property
    def energy(self) -> float:
        """‖ΔW‖², the sum of the squared singular values."""
        return float(self.values.square().sum())

    def rank_for(self, energy: float) -> int:
        """The lowest rank, at least 1, that keeps the share `energy` of the squared singular values."""
        real = max(1, int((self.values > _NOISE * self.values[0]).sum()))
        shares = self.values[:real].square().cumsum(0)
        # Half a rounding step of slack, or a share of 1 could never be reached.
        return min(int((shares < energy * shares[-1] * (1 - 1e-15)).sum()) + 1, real)

    def lost(self, rank: int) -> float:
        """‖ΔW − its best approximation of `rank`‖ / ‖ΔW‖; 0 for a ΔW of zeros."""
        return float((self.values[rank:].square().sum() / self.values.square().sum().clamp_min(1e-300)).sqrt())

    def weights(self, rank: int, alpha: float) -> Weights:
        """The first `rank` triplets as float32 factors that share the singular values evenly, scaled by `alpha`."""
        rank = min(rank, len(self.values))
        root = (self.values[:rank] * (rank / alpha)).sqrt()
        # a down of zeros is what damaged files have: where nothing changes, up is zero
        anything = torch.eye(rank, self.v.shape[1], dtype=self.v.dtype)
        down, up = torch.where(root[:, None] > 0, root[:, None] * self.v[:rank], anything), self.u[:, :rank] * root
        kernel = self.down[1:]
        factors = {
            "down": down.reshape(rank, *self.down).float().contiguous(),
            "up": up.reshape(len(up), rank, *(1 for _ in kernel)).float().contiguous(),
        }
        return Weights("lora", factors, alpha)


def triplets_of(weights: Weights) -> Triplets:
    """The singular triplets of a module's ΔW, by QR of its factors: the cost grows with the rank squared."""
    up, down = (weights.tensors[role].flatten(1).double() for role in ("up", "down"))
    q_up, r_up = torch.linalg.qr(up)
    q_down, r_down = torch.linalg.qr(down.T)
    u, values, v = torch.linalg.svd(r_up @ r_down.T * weights.scaling, full_matrices=False)
    return Triplets(q_up @ u, values, v @ q_down.T, weights.shape[1:])


def triplets_of_matrix(change: Tensor) -> Triplets:
    """The singular triplets of a full ΔW (out, in, kernel…), from the eigenvectors of its smaller Gram matrix.

    Exact up to float64's rounding of the Gram matrix, which hides singular values below 1e-8 of the largest, and
    faster than an SVD in float64: seven times for the 3 × 3 convs of SDXL (1280 × 11520), little for square matrices.
    """
    matrix = change.flatten(1).double()
    wide = matrix.shape[0] <= matrix.shape[1]
    tall = matrix if wide else matrix.T
    _, vectors = torch.linalg.eigh(tall @ tall.T)
    left = vectors.flip(1)  # the largest first
    scaled = left.T @ tall  # rows: value · right vector
    values = torch.linalg.vector_norm(scaled, dim=1)
    right = scaled / values.clamp_min(1e-300)[:, None]
    values, order = values.sort(descending=True)
    left, right = left[:, order], right[order]
    u, v = (left, right) if wide else (right.T, left.T)
    return Triplets(u, values, v, tuple(change.shape[1:]))


def concatenated(weights: Sequence[Weights], factors: Sequence[float]) -> Weights:
    """Σ factor · ΔW as one module whose rank is the sum of the ranks: exact up to a rounding of `up`.

    Its alpha is the sum of the alphas, so that a single adapter at factor 1 comes out bit for bit.
    """
    alpha, rank = sum(w.alpha for w in weights), sum(w.rank for w in weights)
    ups = []
    for w, factor in zip(weights, factors, strict=True):
        scale = factor * (w.alpha / w.rank) / (alpha / rank)
        up = w.tensors["up"]
        ups.append(up if scale == 1 else (up.double() * scale).float())
    downs = torch.cat([w.tensors["down"] for w in weights])
    return Weights("lora", {"down": downs, "up": torch.cat(ups, dim=1)}, alpha)
