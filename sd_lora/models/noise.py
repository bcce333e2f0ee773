"""The noise that is mixed into latents, as a pure function of generators on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from sd_lora.config.schema import TrainingConfig


def draw_noise(count: int, shape: Sequence[int], config: TrainingConfig, generator: torch.Generator) -> Tensor:
    """Noise (count, c, h, w) for latents of `shape` (c, h, w).

    ``multires_noise`` adds coarser noises, and the sum has unit variance at every place again ("pyramid noise",
    J. Whitaker, wandb.ai/johnowhitaker/multires_noise, 2023). ``noise_offset`` adds a constant to each channel of each
    picture, after which the variance is 1 + offset² (N. Guttenberg, "Diffusion with Offset Noise", 2023,
    crosslabs.org/blog/diffusion-with-offset-noise).
    """
    noise = torch.randn(count, *shape, generator=generator)
    if config.multires_noise:
        noise = _with_coarser_noises(noise, config.multires_noise, generator)
    if config.noise_offset:
        noise = noise + config.noise_offset * torch.randn(count, shape[0], 1, 1, generator=generator)
    return noise


def _with_coarser_noises(noise: Tensor, discount: float, generator: torch.Generator) -> Tensor:
    """`noise` (n, c, h, w) plus noises of 1/2, 1/4, … of its size down to one value, upscaled and weighted by discount,
    discount², … (J. Whitaker, "Multi-Resolution Noise for Diffusion Model Training", a report on wandb, 2023); unit
    variance."""
    full = (noise.shape[2], noise.shape[3])
    size, weight, variance = full, 1.0, 1.0
    while max(size) > 1:
        size, weight = ((size[0] + 1) // 2, (size[1] + 1) // 2), weight * discount
        noise = noise + weight * _upscaled(torch.randn(*noise.shape[:2], *size, generator=generator), full)
        variance += weight**2
    return noise / variance**0.5


def _upscaled(noise: Tensor, size: tuple[int, int]) -> Tensor:
    """`noise` at a larger `size`, bilinear, with unit variance at every place: between its values, interpolation
    averages them, which would leave less."""
    rows, columns = (
        interpolate(torch.eye(old)[None], size=new, mode="linear")[0].square().sum(dim=0).sqrt()
        for old, new in zip(noise.shape[2:], size, strict=True)
    )
    return interpolate(noise, size=size, mode="bilinear") / (rows[:, None] * columns)
