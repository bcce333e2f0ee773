"""What is measured on pixels: copies of references, diversity over seeds, drift of the layout, and burn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, pad

from sd_lora.evaluation.probe import pixels

#: pictures are kept at this side, so that they can be shifted, and compared at half of it: detail does not matter
_COARSE = 32
_SIDE = 64
#: by how many of its pixels a reference is shifted
_SHIFTS = range(-2, 3)


def coarse(images: Sequence[Image.Image]) -> Tensor:
    """What is left of pictures without their detail: (n, 3, 32, 32) in 0..1."""
    return adaptive_avg_pool2d(pixels(images, _SIDE), _COARSE)


def likeness(first: Tensor, second: Tensor) -> Tensor:
    """The correlation of each picture of `first` with each of `second`, both from `coarse`: (n, m)."""
    return _unit(avg_pool2d(first, 2)) @ _unit(avg_pool2d(second, 2)).T


def copy_threshold(references: Tensor) -> float:
    """The likeness from which a picture is a copy: halfway between that of the two references that are most alike, and
    sameness. Chance alone puts a picture of the same kind as near to a reference as two of those are to each other."""
    alike = _likeness_of_views(references, references)
    return (float(alike.fill_diagonal_(-1).max()) + 1) / 2


def nearest_reference(pictures: Tensor, references: Tensor) -> tuple[Tensor, Tensor]:
    """For each picture the highest likeness (n,) to a reference, mirrored or shifted a little, and which one (n,)."""
    best = _likeness_of_views(pictures, references).max(dim=1)
    return best.values, best.indices


def _likeness_of_views(pictures: Tensor, references: Tensor) -> Tensor:
    """The likeness (n, m) to the references as they are, mirrored, and shifted by a sixteenth of their side at most."""
    margin = max(_SHIFTS)
    padded = [pad(each, (margin,) * 4, mode="replicate") for each in (references, references.flip(3))]
    starts = [margin + shift for shift in _SHIFTS]
    views = [each[..., y : y + _COARSE, x : x + _COARSE] for each in padded for y in starts for x in starts]
    return torch.stack([likeness(pictures, view) for view in views]).amax(dim=0)


def diversity(pictures: Tensor) -> float:
    """How different pictures (seeds, 3, 32, 32) of one prompt are: the mean of 1 − correlation over pairs."""
    alike = likeness(pictures, pictures)
    count = len(pictures)
    return float((count * count - alike.sum()) / (count * (count - 1)))


def layout_kept(first: Tensor, second: Tensor) -> Tensor:
    """The correlation (n,) of the luminance of two drawings of the same prompts, picture by picture."""
    grey = [_unit(each.mean(dim=1, keepdim=True)) for each in (first, second)]
    return (grey[0] * grey[1]).sum(dim=1)


def saturation(images: Sequence[Image.Image]) -> Tensor:
    """The mean difference (n,) of the strongest and the weakest colour, 0..1."""
    planes = pixels(images, _SIDE)
    return (planes.amax(dim=1) - planes.amin(dim=1)).mean(dim=(1, 2))


def detail(images: Sequence[Image.Image], side: int) -> Tensor:
    """The mean energy (n,) of what pictures of `side` pixels lose when halved and doubled again."""
    planes = pixels(images, side)
    smooth = avg_pool2d(planes, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return (planes[..., : smooth.shape[2], : smooth.shape[3]] - smooth).square().mean(dim=(1, 2, 3))


def _unit(pictures: Tensor) -> Tensor:
    """Each picture as a vector without its mean, of length 1."""
    flat = pictures.flatten(1)
    flat = flat - flat.mean(dim=1, keepdim=True)
    return flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-6)
