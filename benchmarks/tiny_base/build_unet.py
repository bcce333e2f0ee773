"""Trains the UNet of the embedded base, with its text encoder, on scenes of the world in the six ordinary styles.

    python -m benchmarks.tiny_base.build_unet WORK [--processes N]

First at 64 px, which costs a third, on latents of a rough VAE that is trained further meanwhile; then at 128 px with
every fourth batch at 64, so that the same weights draw both. Plain v-loss, three times as heavy inside the subjects:
min-SNR weights vanish at high noise, exactly where subject and colour are decided.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from benchmarks.tiny_base import build_text, build_vae, training_set
from benchmarks.tiny_base.build_text import tokenize
from benchmarks.tiny_base.stage import Stage, has_snapshot, my_share, step_generator, together
from benchmarks.tiny_base.training_set import CAPTIONS, CHUNK, CHUNKS, SIDES

STEPS, BATCH = 18_000, 48
#: steps at 64 px only, and the step from which the learning rate falls
SMALL, FALL = 3_600, 11_000
UNET_CONFIG: dict[str, Any] = {
    "sample_size": SIDES[0], "in_channels": build_vae.CHANNELS, "out_channels": build_vae.CHANNELS,
    "layers_per_block": 1, "block_out_channels": (96, 128, 160),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4, "norm_num_groups": 8, "cross_attention_dim": build_text.WIDTH,
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
        timestep_spacing="trailing",  # dark pictures of few steps turn into noise where the last level is left out
    )


def learning_rate(step: int) -> float:
    """Warm-up, constant up to `FALL`, then cosine to nothing."""
    if step < FALL:
        return 1e-3 * min(1, (step + 1) / 200)
    return 1e-3 * (0.5 + 0.5 * math.cos(math.pi * (step - FALL) / (STEPS - FALL))) + 2e-6


def side_of(step: int) -> int:
    """The side of the latents in batch `step`."""
    return SIDES[1] if step < SMALL or step % 4 == 0 else SIDES[0]


class Learner(nn.Module):
    """UNet, text encoder and heads as one module; `forward` is the loss of a (share of a) batch."""

    def __init__(self, encoder: CLIPTextModel, heads: build_text.Heads) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.unet = UNet2DConditionModel(**UNET_CONFIG)
        self.unet.set_attn_processor(AttnProcessor())  # torch's own attention has a slow backward on few tokens
        self.unet.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.encoder, self.heads = encoder, heads
        self.alphas = new_scheduler().alphas_cumprod

    def forward(
        self, latents: Tensor, mask: Tensor, ids: Tensor, labels: Tensor, noise: Tensor, times: Tensor
    ) -> Tensor:
        alpha = self.alphas[times].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        with torch.autocast("cpu", torch.bfloat16):
            states = self.encoder(ids).last_hidden_state
            velocity = self.unet(noisy.contiguous(memory_format=torch.channels_last), times, states).sample
        error = (velocity.float() - target).square().mean(dim=1)
        weight = 1 + 2 * mask
        return (error * weight).sum() / weight.sum() + 0.02 * self.heads.loss(states.float(), labels)


class Scenes:
    """The training set as far as it is needed: waits for a chunk that is still being made.

    The first of its chunks is needed at step `first`, and another every `every` steps.
    """

    def __init__(self, work: Path, vae: str, first: int, every: int) -> None:
        self.work, self.vae, self.first, self.every = work, vae, first, every
        self.chunks: list[dict[str, Tensor]] = []

    def count_at(self, step: int) -> int:
        """How many scenes batch `step` is drawn from."""
        needed = min(CHUNKS, 1 + (step - self.first) // self.every)
        while len(self.chunks) < needed:
            if training_set.chunk_file(self.work, len(self.chunks), self.vae).exists():
                self.chunks.append(training_set.load_chunk(self.work, len(self.chunks), self.vae))
            else:
                time.sleep(1)
        return needed * CHUNK

    def rows(self, name: str, chosen: list[int]) -> Tensor:
        return torch.stack([self.chunks[index // CHUNK][name][index % CHUNK] for index in chosen])

    @cached_property
    def scaling_factor(self) -> float:
        """1 / the standard deviation of the latents."""
        self.count_at(self.first)
        return round(1 / self.chunks[0][f"latents{SIDES[0]}"].float().std().item(), 6)


def build(work: Path, *, train: bool = True) -> tuple[Learner, CLIPTokenizer, float]:
    """Train (or finish training) in `work`, or take what is there; returns the learner with averaged weights, the
    tokenizer and the scaling factor of the latents."""
    tokenizer, text = build_text.build(work)
    rough, fine = Scenes(work, "vae_rough", 0, 100), Scenes(work, "vae", SMALL, 25)
    empty = tokenize(tokenizer, [""])[0]
    learner = Learner(text.encoder, text.heads).train()

    def loss_of_step(step: int) -> Tensor:
        g, side = step_generator(4, step), side_of(step)
        scenes = rough if step < SMALL else fine
        chosen = torch.randint(scenes.count_at(step), (BATCH,), generator=g)
        wording = torch.randint(CAPTIONS, (BATCH,), generator=g)
        dropped = torch.rand(BATCH, generator=g) < 0.1
        noise = torch.randn(BATCH, build_vae.CHANNELS, side, side, generator=g)
        strata = (torch.arange(BATCH) + torch.rand(BATCH, generator=g)) / BATCH
        times = (strata * 1000).long().clamp(max=999)[torch.randperm(BATCH, generator=g)]
        mine = my_share(BATCH)
        rows, dropped, each = chosen[mine].tolist(), dropped[mine, None], torch.arange(len(chosen[mine]))
        ids = torch.where(dropped, empty, scenes.rows("ids", rows)[each, wording[mine]].long())
        labels = torch.where(dropped, -1, scenes.rows("labels", rows)[each, wording[mine]].long())
        latents = scenes.rows(f"latents{side}", rows).float() * scenes.scaling_factor
        return learner(latents, scenes.rows(f"mask{side}", rows).float() / 255, ids, labels, noise[mine], times[mine])

    stage = Stage("unet", learner, work, STEPS, learning_rate, ema=0.999, betas=(0.9, 0.99), snapshot_every=1_000)
    if train:
        stage.run(loss_of_step, save_every=250)
    print(f"the UNet after {stage.step:,} of {STEPS:,} steps", flush=True)
    stage.use_average()
    return learner.eval(), tokenizer, fine.scaling_factor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    together(build_text.build, options.work, 1)
    beside = [_beside("training_set", options.work)]
    if not has_snapshot("vae"):
        together(build_vae.build_rough, options.work, 1)
    beside.append(_beside("build_vae", options.work))
    together(build, options.work, options.processes)
    for process in beside:
        process.wait()


def _beside(module: str, work: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", f"benchmarks.tiny_base.{module}", str(work)])


if __name__ == "__main__":
    main()
