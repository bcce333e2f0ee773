"""Trains the UNet of the embedded base, with its text encoder, on scenes of the world in the six ordinary styles.

    python -m benchmarks.tiny_base.build_unet WORK [--processes N]

Plain v-loss, three times as heavy inside the subject: min-SNR weights vanish at high noise, exactly where subject and
colour are decided.
"""

from __future__ import annotations

import argparse
import math
import os
import random
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from transformers import CLIPTextModel, CLIPTokenizer

from benchmarks.tiny_base import build_text, build_vae
from benchmarks.tiny_base.build_text import caption_labels, tokenize
from benchmarks.tiny_base.stage import Stage, step_generator
from sd_lora.tinybase.styles import render, render_mask
from sd_lora.tinybase.world import BASE_STYLES, sample_caption, sample_scene

STEPS, BATCH, SCENES, CAPTIONS = 6_500, 32, 32_000, 4
UNET_CONFIG: dict[str, Any] = {
    "sample_size": 16, "in_channels": 4, "out_channels": 4, "layers_per_block": 1, "block_out_channels": (64, 96, 96),
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": 4, "norm_num_groups": 8, "cross_attention_dim": 128,
}  # fmt: skip


def new_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def style_of(index: int) -> str:
    """The style of training scene `index`: half of them flat."""
    return random.Random(f"style {index}").choices(list(BASE_STYLES), (5, 1, 1, 1, 1, 1))[0]


def _pixels(index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    scene = sample_scene(index)
    return np.asarray(render(scene, style_of(index))), np.asarray(render_mask(scene).reduce(4))


def _pictures(work: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The training pictures (n, 64, 64, 3) and their subject masks (n, 16, 16), rendered once and kept in `work`."""
    file = work / "unet_pictures.npz"
    if not file.exists():
        with Pool() as workers:
            pictures, masks = zip(*workers.map(_pixels, range(SCENES), chunksize=200), strict=True)
        _save_arrays(file, pictures=np.stack(pictures), masks=np.stack(masks))
    with np.load(file) as arrays:
        return arrays["pictures"], arrays["masks"]


def _save_arrays(file: Path, **arrays: Any) -> None:
    partial = file.with_suffix(".partial.npz")
    np.savez(partial, **arrays)
    os.replace(partial, file)


def training_set(work: Path, vae: AutoencoderKL, tokenizer: CLIPTokenizer) -> dict[str, Tensor]:
    """Rendered, encoded, captioned once: latents (n, 4, 16, 16), mask (n, 16, 16), ids (n, 4, 32), labels (n, 4, 4)."""
    file = work / "unet_set.npz"
    if not file.exists():
        pictures, masks = _pictures(work)
        latents = []
        with torch.inference_mode():
            for start in range(0, SCENES, 64):
                batch = torch.from_numpy(pictures[start : start + 64]).permute(0, 3, 1, 2)
                latents.append(vae.encode(batch.float() / 127.5 - 1).latent_dist.mean)
        ids, labels = [], []
        for index in range(SCENES):
            scene, style = sample_scene(index), style_of(index)
            captions = [sample_caption(scene, style, index * CAPTIONS + i) for i in range(CAPTIONS)]
            ids.append(tokenize(tokenizer, captions))
            labels.append([caption_labels(scene, style, caption) for caption in captions])
        _save_arrays(
            file,
            latents=torch.cat(latents).numpy(),
            mask=masks,
            ids=torch.stack(ids).numpy().astype(np.int16),
            labels=np.array(labels, dtype=np.int8),
        )
    with np.load(file) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def learning_rate(step: int) -> float:
    """Warm-up, constant for 35 %, then cosine to nothing."""
    warm, hold = 150, int(STEPS * 0.35)
    if step < hold:
        return 1.2e-3 * min(1, (step + 1) / warm)
    return 1.2e-3 * (0.5 + 0.5 * math.cos(math.pi * (step - hold) / (STEPS - hold))) + 2e-6


class Learner(nn.Module):
    """UNet, text encoder and heads as one module; `forward` is the loss of a (share of a) batch."""

    def __init__(self, encoder: CLIPTextModel, heads: build_text.Heads, empty: Tensor) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.unet = UNet2DConditionModel(**UNET_CONFIG)
        self.encoder, self.heads = encoder, heads
        self.alphas = new_scheduler().alphas_cumprod
        self.empty = empty

    def forward(
        self, latents: Tensor, mask: Tensor, ids: Tensor, labels: Tensor, noise: Tensor, times: Tensor
    ) -> Tensor:
        states = self.encoder(ids).last_hidden_state
        alpha = self.alphas[times].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        error = (self.unet(noisy, times, states).sample - target).square().mean(dim=1)
        weight = 1 + 2 * mask
        return (error * weight).sum() / weight.sum() + 0.02 * self.heads.loss(states, labels)


def build(work: Path) -> tuple[Learner, AutoencoderKL, CLIPTokenizer]:
    """Train (or finish training) in `work`; returns the learner with averaged weights, the VAE and the tokenizer."""
    vae, (tokenizer, text) = build_vae.build(work), build_text.build(work)
    data = training_set(work, vae, tokenizer)
    factor = 1 / data["latents"].std()
    vae.register_to_config(scaling_factor=round(factor.item(), 6))
    empty = tokenize(tokenizer, [""])[0]
    learner = Learner(text.encoder, text.heads, empty).train()
    rank, world = (distributed.get_rank(), distributed.get_world_size()) if distributed.is_initialized() else (0, 1)

    def loss_of_step(step: int) -> Tensor:
        g = step_generator(4, step)
        chosen = torch.randint(SCENES, (BATCH,), generator=g)
        wording = torch.randint(CAPTIONS, (BATCH,), generator=g)
        dropped = torch.rand(BATCH, generator=g) < 0.1
        noise = torch.randn(BATCH, 4, 16, 16, generator=g)
        strata = (torch.arange(BATCH) + torch.rand(BATCH, generator=g)) / BATCH
        times = (strata * 1000).long().clamp(max=999)[torch.randperm(BATCH, generator=g)]
        ids = torch.where(dropped[:, None], empty, data["ids"][chosen, wording].long())
        labels = torch.where(dropped[:, None], -1, data["labels"][chosen, wording].long())
        mine = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
        chosen = chosen[mine]
        return learner(
            data["latents"][chosen] * factor,
            data["mask"][chosen].float() / 255,
            ids[mine],
            labels[mine],
            noise[mine],
            times[mine],
        )

    stage = Stage("unet", learner, work, STEPS, learning_rate, ema=0.999, betas=(0.9, 0.99))
    stage.run(loss_of_step, save_every=250)
    stage.use_average()
    return learner.eval(), vae, tokenizer


def _process(rank: int, world: int, work: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", f"file://{work.resolve()}/rendezvous-{os.getppid()}", rank=rank, world_size=world
    )
    build(work)
    distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    # Everything that must exist before processes share it is made by one of them.
    vae, (tokenizer, _) = build_vae.build(options.work), build_text.build(options.work)
    training_set(options.work, vae, tokenizer)
    if options.processes > 1:
        torch.multiprocessing.spawn(_process, (options.processes, options.work), nprocs=options.processes)
    else:
        build(options.work)


if __name__ == "__main__":
    main()
