"""What styles are made with: colours of paper and ink, mixing, and marks that repeat on the lattice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sd_lora.tinybase.canvas import Layers, Plane

#: Layers → the picture (h, w, 3), supersampled, in 0..1.
Style = Callable[[Layers], Plane]


def rgb(*values: int) -> Plane:
    return np.array(values, dtype=np.float32) / np.float32(255)


def mix(weight: Plane, inside: Plane, outside: Plane) -> Plane:
    """`inside` where `weight` (h, w) is 1, `outside` where it is 0; both broadcast to (h, w, 3)."""
    weight = weight[..., None]
    return weight * inside + (1 - weight) * outside


def ridges(position: Plane, period: float = 4) -> Plane:
    """A triangle wave over `position` in pixels: 1 at the lattice lines, 0 half way between."""
    return np.abs((position % period) / period - 0.5) * 2


def contrast(plane: Plane, amount: float, middle: float = 0.5) -> Plane:
    return np.clip((plane - middle) * amount + middle, 0, 1)
