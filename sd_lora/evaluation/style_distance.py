"""How far two sets of pictures are apart in style: sliced Wasserstein-1 distance of their colour patches.

No network is needed. Patches of 7 × 7 pixels at three scales, once as they are (colours) and once with each patch's
mean removed (marks), projected on fixed random directions; per direction the distance of the sorted projections
(Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, unfold

_PATCH, _DIRECTIONS, _SCALES = 7, 96, 3


def style_distance(first: Sequence[Image.Image], second: Sequence[Image.Image]) -> float:
    """Distance of two sets of equally large pictures; 0 = the same patches. In units of pixel values (0..1)."""
    a, b = _stack(first), _stack(second)
    total = 0.0
    for scale in range(_SCALES):
        if scale:
            a, b = avg_pool2d(a, 2), avg_pool2d(b, 2)
        for centred in (False, True):
            total += _sliced(_patches(a, centred), _patches(b, centred), seed=2 * scale + centred)
    return total / (2 * _SCALES)


def share_closed(base: float, adapted: float, floor: float) -> float:
    """(d₀ − d) / (d₀ − floor): 0 = as far as the base, 1 = as near as the references are to one another."""
    return (base - adapted) / (base - floor)


def _stack(images: Sequence[Image.Image]) -> Tensor:
    arrays = np.stack([np.asarray(image.convert("RGB"), dtype=np.float32) / 255 for image in images])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2)


def _patches(pictures: Tensor, centred: bool) -> Tensor:
    """All patches (count, 3 · 49), every second pixel."""
    patches = unfold(pictures, _PATCH, stride=2).transpose(1, 2).reshape(-1, 3, _PATCH * _PATCH)
    if centred:
        patches = patches - patches.mean(dim=2, keepdim=True)
    return patches.reshape(len(patches), -1)


def _sliced(first: Tensor, second: Tensor, seed: int) -> float:
    directions = torch.randn(first.shape[1], _DIRECTIONS, generator=torch.Generator().manual_seed(seed))
    directions = directions / directions.norm(dim=0)
    levels = torch.linspace(0.005, 0.995, 200)
    return (_levels(first @ directions, levels) - _levels(second @ directions, levels)).abs().mean().item()


def _levels(projected: Tensor, levels: Tensor) -> Tensor:
    """Quantiles per direction: sets of different sizes become comparable."""
    ordered = projected.sort(dim=0).values
    return ordered[(levels * (len(ordered) - 1)).round().long()]
