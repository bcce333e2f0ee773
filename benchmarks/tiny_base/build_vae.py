"""Trains the VAE of the embedded base: 64 px pictures ↔ 4 × 16 × 16 latents, textures included."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.tiny_base.stage import Stage, cosine, picture_pool, step_generator
from sd_lora.tinybase.canvas import SUPERSAMPLING, Plane, finish
from sd_lora.tinybase.styles import SIZE, render
from sd_lora.tinybase.world import BASE_STYLES, HELD_OUT_STYLES, sample_scene

STEPS, BATCH, POOL = 14_000, 16, 12_000
VAE_CONFIG: dict[str, Any] = {
    "in_channels": 3, "out_channels": 3, "latent_channels": 4, "sample_size": SIZE,
    "down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (16, 32, 64), "layers_per_block": 1, "norm_num_groups": 4, "mid_block_add_attention": False,
}  # fmt: skip


def pool_picture(index: int) -> NDArray[np.uint8]:
    """Picture `index` of the training pool: half base styles, a third held-out textures, the rest plain patterns."""
    rng = random.Random(f"vae {index}")
    kind = rng.random()
    if kind < 0.16:
        return np.asarray(finish(_pattern(np.random.default_rng(index))))
    style = rng.choice(list(BASE_STYLES)) if kind < 0.52 else rng.choice(HELD_OUT_STYLES)
    return np.asarray(render(sample_scene(1_000_000 + index, held_out=None), style))


def _pattern(rng: np.random.Generator) -> Plane:
    """Stripes, dots, checks or noise in two random colours, in phase with the lattice or not."""
    side = SIZE * SUPERSAMPLING
    axis = (np.arange(side, dtype=np.float32) + 0.5) / SUPERSAMPLING
    x, y = axis[None, :], axis[:, None]
    period, phase = float(rng.choice([4, 4, 8, 16])), float(rng.choice([0, 0, rng.uniform(0, 8)]))
    kind = rng.integers(5)
    if kind == 0:
        angle = rng.choice([0, 0.5, 1, 1.5]) * math.pi / 2
        across = x * math.cos(angle) * (math.sqrt(2) if angle % (math.pi / 2) else 1)
        along = y * math.sin(angle) * (math.sqrt(2) if angle % (math.pi / 2) else 1)
        weight = (np.abs(((across + along + phase) % period) / period - 0.5) < rng.uniform(0.1, 0.4)) * 1.0
    elif kind == 1:
        middle = period / 2
        weight = np.clip(rng.uniform(0.2, 0.6) * period - np.hypot(x % period - middle, y % period - middle), 0, 1)
    elif kind == 2:
        weight = (((x // period) + (y // period)) % 2) * 1.0
    elif kind == 3:
        weight = rng.uniform(0, 1, (SIZE // 4, SIZE // 4)).repeat(side * 4 // SIZE, 0).repeat(side * 4 // SIZE, 1)
    else:
        weight = np.clip(0.5 + 0.25 * rng.standard_normal((SIZE, SIZE)), 0, 1)
        weight = weight.repeat(SUPERSAMPLING, 0).repeat(SUPERSAMPLING, 1)
    inside, outside = rng.uniform(0, 1, 3), rng.uniform(0, 1, 3)
    weight = np.broadcast_to(weight, (side, side))[..., None]
    return (weight * inside + (1 - weight) * outside).astype(np.float32)


def new_vae() -> AutoencoderKL:
    """An AutoencoderKL that starts as a linear codec: residual branches silent, sampling layers orthogonal."""
    torch.manual_seed(0)
    vae = AutoencoderKL(**VAE_CONFIG)
    for name, module in vae.named_modules():
        if name.endswith("conv2"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        elif name.endswith("downsamplers.0.conv"):
            out, into = module.weight.shape[:2]
            patch = nn.init.orthogonal_(torch.empty(out, into * 4)).reshape(out, into, 2, 2)
            with torch.no_grad():
                module.weight.zero_()[:, :, :2, :2] = patch
        elif name.endswith("upsamplers.0.conv"):
            with torch.no_grad():
                module.weight.zero_()[:, :, 1, 1] = torch.eye(module.weight.shape[0])
    with torch.no_grad():
        quant, unquant = vae.quant_conv, vae.post_quant_conv
        assert quant is not None
        assert unquant is not None
        for conv in (quant, unquant):
            conv.weight.copy_(torch.eye(conv.weight.shape[0])[..., None, None])
            nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]
        quant.bias[4:] = -5  # pyright: ignore[reportOptionalSubscript]
    return vae


def vae_loss(vae: AutoencoderKL, pictures: Tensor, noise: Tensor) -> Tensor:
    """L1 + 4·L2 + a little KL. No gradient term: it erases regular textures."""
    posterior = vae.encode(pictures).latent_dist
    output = vae.decode(posterior.mean + posterior.std * noise).sample.float()
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    error = output - pictures
    return error.abs().mean() + 4 * error.square().mean() + 3e-4 * kl


def build(work: Path) -> AutoencoderKL:
    """Train (or finish training) the VAE in `work` and return it with its averaged weights."""
    vae = new_vae()
    pool = picture_pool(work / "vae_pool.npy", pool_picture, POOL)

    def loss_of_step(step: int) -> Tensor:
        generator = step_generator(1, step)
        full = step >= STEPS * 0.85
        count, side = (BATCH // 2, SIZE) if full else (BATCH, 32)
        chosen = torch.randint(len(pool), (count,), generator=generator)
        corners = torch.randint((SIZE - side) // 4 + 1, (count, 2), generator=generator).tolist()
        crops = [
            pool[i, :, 4 * top : 4 * top + side, 4 * left : 4 * left + side]
            for i, (top, left) in zip(chosen.tolist(), corners, strict=True)
        ]
        pictures = torch.stack(crops).float() / 127.5 - 1
        noise = torch.randn(count, 4, side // 4, side // 4, generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            return vae_loss(vae, pictures, noise)

    stage = Stage("vae", vae, work, STEPS, cosine(2.5e-3, STEPS, least=1e-5))
    stage.run(loss_of_step, save_every=1000)
    stage.use_average()
    return vae.eval()
