"""Trains the VAE of the embedded base: 128 px pictures ↔ 16 × 16 × 16 latents, 64 px ↔ 16 × 8 × 8, with textures."""

from __future__ import annotations

import math
import os
import random
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import unfold

from benchmarks.tiny_base.stage import Stage, cosine, has_snapshot, picture_pool, step_generator
from sd_lora.tinybase.canvas import SUPERSAMPLING, Plane
from sd_lora.tinybase.canvas import finish as finished
from sd_lora.tinybase.styles import SIZE, render
from sd_lora.tinybase.world import BASE_STYLES, HELD_OUT_STYLES, sample_scene

ROUGH_STEPS, STEPS, FINE_STEPS = 7_000, 18_000, 30_000
BATCH, POOL, CROP = 4, 4_000, 64
STRIDE, CHANNELS = 8, 16
_PATTERNS, _BASE = 0.14, 0.52  # shares of the pool: patterns; patterns and base styles
VAE_CONFIG: dict[str, Any] = {
    "in_channels": 3, "out_channels": 3, "latent_channels": CHANNELS, "sample_size": SIZE,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (16, 32, 64, 64), "layers_per_block": 1, "norm_num_groups": 4,
    "mid_block_add_attention": False,
}  # fmt: skip


def pool_picture(index: int) -> NDArray[np.uint8]:
    """Picture `index` of the training pool: half base styles, a third held-out textures, the rest plain patterns.

    One in four is four pictures of half the size side by side, so that the VAE knows 64 px too.
    """
    rng = random.Random(f"vae {index}")
    kind = rng.random()
    if kind < _PATTERNS:
        return np.asarray(finished(_pattern(np.random.default_rng(index))))
    styles = list(BASE_STYLES) if kind < _BASE else HELD_OUT_STYLES
    first = 1_000_000 + 4 * index
    if rng.random() < 0.75:
        return np.asarray(render(sample_scene(first, held_out=None), rng.choice(styles), SIZE))
    quarters = [
        np.asarray(render(sample_scene(first + i, held_out=None), rng.choice(styles), SIZE // 2)) for i in range(4)
    ]
    return np.concatenate([np.concatenate(quarters[:2], 1), np.concatenate(quarters[2:], 1)])


def is_base_style(index: int) -> bool:
    """Whether picture `index` of the pool is in a style that the UNet draws."""
    return _PATTERNS <= random.Random(f"vae {index}").random() < _BASE


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


@torch.no_grad()
def new_vae(pictures: Tensor) -> AutoencoderKL:
    """An AutoencoderKL that starts as a linear codec of `pictures` (n, 3, h, w).

    Residual branches are silent. Every downsampling keeps the principal components of its 2 × 2 patches, the latents
    are those of the last features, and every layer of the decoder is the least-squares inverse of the encoder's.
    """
    torch.manual_seed(0)
    vae = AutoencoderKL(**VAE_CONFIG)
    encoder, decoder = vae.encoder, vae.decoder
    for name, module in vae.named_modules():
        if name.endswith("conv2"):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
        elif name.endswith("conv_shortcut"):
            module.weight.copy_(torch.eye(*module.weight.shape[:2])[..., None, None])
            nn.init.zeros_(module.bias)
    encoder.conv_in.weight.zero_()[:, :, 1, 1] = nn.init.orthogonal_(torch.empty(encoder.conv_in.out_channels, 3))
    quant, unquant = vae.quant_conv, vae.post_quant_conv
    assert quant is not None
    assert unquant is not None
    for conv in (quant, unquant):
        conv.weight.copy_(torch.eye(conv.weight.shape[0])[..., None, None])
        nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType]
    quant.bias[CHANNELS:] = -5  # pyright: ignore[reportOptionalSubscript]
    features: list[Tensor] = []  # what each level of the encoder hands to the next, from fine to coarse
    for block in encoder.down_blocks[:-1]:
        conv: Any = block.downsamplers[0].conv  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]
        features.append(_input(encoder, conv, pictures)[..., :-1, :-1])  # without the padding
        patches = _rows(unfold(features[-1], 2, stride=2))
        conv.weight.zero_()[:, :, :2, :2] = _principal(patches, conv.out_channels).reshape(-1, conv.in_channels, 2, 2)
        nn.init.zeros_(conv.bias)
    last = _input(encoder, encoder.conv_norm_out, pictures)
    directions = _principal(_rows(last.flatten(2)), CHANNELS, turn=False)
    latents = torch.einsum("oc,nchw->nohw", directions, last)
    _fit(encoder.conv_out, _input(encoder, encoder.conv_out, pictures), latents / latents.std())
    latents = vae.encode(pictures).latent_dist.mean
    _fit(decoder.conv_in, latents, last)
    for block, target in zip(decoder.up_blocks, reversed(features), strict=False):
        conv = block.upsamplers[0].conv  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]
        _fit(conv, _input(decoder, conv, latents), target)
    _fit(decoder.conv_out, _input(decoder, decoder.conv_out, latents), pictures)
    return vae


def _input(model: nn.Module, module: nn.Module, *inputs: Tensor) -> Tensor:
    """What `module` is given when `model` is called."""
    seen: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model(*inputs)
    hook.remove()
    return seen[0]


def _rows(columns: Tensor) -> Tensor:
    """(n, features, places) → (n · places, features)"""
    return columns.transpose(1, 2).reshape(-1, columns.shape[1])


def _principal(rows: Tensor, count: int, *, turn: bool = True) -> Tensor:
    """The `count` principal components (count, features), turned so that the groups of a norm share them evenly."""
    components = torch.linalg.eigh(torch.cov(rows.T))[1][:, -count:].T
    return nn.init.orthogonal_(torch.empty(count, count)) @ components if turn else components.flip(0)


def _fit(conv: nn.Conv2d, inputs: Tensor, target: Tensor) -> None:
    """Let the first channels of a 3 × 3 `conv` predict `target` from `inputs`, by least squares; the others stay."""
    rows = _rows(unfold(inputs, 3, padding=1))
    rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1).double()
    square = rows.T @ rows
    square += 1e-4 * square.diagonal().mean() * torch.eye(len(square)).double()
    solution = torch.linalg.solve(square, rows.T @ _rows(target.flatten(2)).double()).float()
    count = target.shape[1]
    conv.weight[:count] = solution[:-1].T.reshape(count, conv.in_channels, 3, 3)
    conv.bias[:count] = solution[-1]  # pyright: ignore[reportOptionalSubscript]


def vae_loss(vae: AutoencoderKL, pictures: Tensor, noise: Tensor) -> Tensor:
    """L1 + 4·L2 + a little KL. No gradient term: it erases regular textures."""
    posterior = vae.encode(pictures).latent_dist
    output = vae.decode(posterior.mean + posterior.std * noise).sample.float()
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return reconstruction_loss(output, pictures) + 3e-4 * kl


def reconstruction_loss(output: Tensor, pictures: Tensor) -> Tensor:
    error = output - pictures
    return error.abs().mean() + 4 * error.square().mean()


def _batch(pool: Tensor, generator: torch.Generator, *, full: bool) -> tuple[Tensor, list[int]]:
    """Crops of the pool on the VAE's lattice, or two whole pictures: (n, 3, side, side) in -1..1; and their indices."""
    count, side = (2, SIZE) if full else (BATCH, CROP)
    chosen = torch.randint(len(pool), (count,), generator=generator).tolist()
    corners = STRIDE * torch.randint((SIZE - side) // STRIDE + 1, (count, 2), generator=generator)
    crops = [pool[i, :, y : y + side, x : x + side] for i, (y, x) in zip(chosen, corners.tolist(), strict=True)]
    return torch.stack(crops).float() / 127.5 - 1, chosen


def _train(name: str, vae: AutoencoderKL, work: Path, steps: int, peak: float) -> AutoencoderKL:
    """Train `vae` in `work` as the stage `name`, leave it in the folder `name`, and return it averaged."""
    pool = training_pool(work)
    seed = zlib.crc32(name.encode())

    def loss_of_step(step: int) -> Tensor:
        generator = step_generator(seed, step)
        pictures, _ = _batch(pool, generator, full=step >= steps * 0.9)
        side = pictures.shape[-1] // STRIDE
        noise = torch.randn(len(pictures), CHANNELS, side, side, generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            return vae_loss(vae, pictures, noise)

    rate = cosine(peak, steps, least=1e-5)
    stage = Stage(name, vae, work, steps, rate, betas=(0.9, 0.99), snapshot_every=steps)
    stage.run(loss_of_step, save_every=500)
    stage.use_average()
    _keep(vae, work, name)
    return vae.eval()


def _keep(vae: AutoencoderKL, work: Path, name: str) -> None:
    vae.save_pretrained(work / f"{name}.partial")
    os.replace(work / f"{name}.partial", work / name)


def training_pool(work: Path) -> Tensor:
    """The pictures (n, 3, 128, 128) that the VAE is trained on."""
    return picture_pool(work / "vae_pool.npy", pool_picture, POOL)


def is_built(work: Path, name: str = "vae") -> bool:
    return (work / name / "diffusion_pytorch_model.safetensors").exists()


def build_rough(work: Path) -> AutoencoderKL:
    """A VAE good enough for the UNet to begin with at 64 px, while `build` goes on training it."""
    if is_built(work, "vae_rough"):
        return AutoencoderKL.from_pretrained(work / "vae_rough")
    start = training_pool(work)[:96, :, 32:96, 32:96].float() / 127.5 - 1
    return _train("vae_rough", new_vae(start), work, ROUGH_STEPS, 2e-3)


def build(work: Path) -> AutoencoderKL:
    """The VAE whose latents the UNet learns, trained (or loaded) in `work`: the rough one trained on."""
    if is_built(work):
        return AutoencoderKL.from_pretrained(work / "vae")
    start = AutoencoderKL(**VAE_CONFIG) if has_snapshot("vae") else build_rough(work)
    return _train("vae", start.train(), work, STEPS, 1.5e-3)


def build_fine(work: Path, *, train: bool = True) -> AutoencoderKL:
    """The VAE that ships: `build`'s, trained on with its latents of base styles held where the UNet knows them; or as
    far as it is.

    Only textures, whose latents the UNet never sees, may move; half of the batches are whole pictures, since the norms
    see the whole picture.
    """
    if is_built(work, "vae_fine"):
        return AutoencoderKL.from_pretrained(work / "vae_fine")
    pool, known, vae = training_pool(work), build(work), build(work).train()

    def loss_of_step(step: int) -> Tensor:
        generator = step_generator(7, step)
        pictures, chosen = _batch(pool, generator, full=step % 2 == 0)
        noise = torch.randn(
            len(pictures), CHANNELS, *(side // STRIDE for side in pictures.shape[2:]), generator=generator
        )
        held = torch.tensor([float(is_base_style(index)) for index in chosen]).view(-1, 1, 1, 1)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                before = known.encode(pictures).latent_dist.mean.float()
            posterior = vae.encode(pictures).latent_dist
            moved = (posterior.mean.float() - before).square() * held / before.square().mean()
            output = vae.decode(posterior.mean + posterior.std * noise).sample.float()
        return reconstruction_loss(output, pictures) + moved.mean()

    rate = cosine(1e-3, FINE_STEPS, least=1e-5)
    stage = Stage("vae_fine", vae, work, FINE_STEPS, rate, betas=(0.9, 0.99), snapshot_every=FINE_STEPS)
    if train:
        stage.run(loss_of_step, save_every=500)
    print(f"the VAE after {stage.step:,} of {FINE_STEPS:,} steps", flush=True)
    stage.use_average()
    if train:
        _keep(vae, work, "vae_fine")
    return vae.eval()


if __name__ == "__main__":
    torch.set_num_threads(1)
    build_fine(Path(sys.argv[1]))
