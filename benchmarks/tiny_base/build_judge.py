"""Trains the judge on the renderer's pictures in every style."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from benchmarks.tiny_base.stage import Stage, cosine, picture_pool, step_generator
from sd_lora.tinybase.judge import ANSWERS, QUESTIONS, WEIGHTS, Judge
from sd_lora.tinybase.styles import STYLES, render
from sd_lora.tinybase.world import COLOURLESS_STYLES, sample_scene

STEPS, BATCH, POOL = 2_500, 64, 24_000
_FIRST_SEED = 3_000_000


def _style(index: int) -> str:
    return random.Random(f"judge {index}").choice(list(STYLES))


def _picture(index: int) -> NDArray[np.uint8]:
    return np.asarray(render(sample_scene(_FIRST_SEED + index, held_out=None), _style(index)))


def _labels(index: int) -> list[int]:
    """Answers to the three questions; -1 for the colour in a style that shows none."""
    scene = sample_scene(_FIRST_SEED + index, held_out=None)
    answers = [options.index(getattr(scene, q)) for q, options in zip(QUESTIONS, ANSWERS, strict=True)]
    return [answers[0], -1 if _style(index) in COLOURLESS_STYLES else answers[1], answers[2]]


def build(work: Path) -> Judge:
    """Train in `work` and write the shipped weights (float16)."""
    pool = picture_pool(work / "judge_pool.npy", _picture, POOL)
    labels = torch.tensor([_labels(i) for i in range(POOL)])
    torch.manual_seed(5)
    judge = Judge()

    def loss_of_step(step: int) -> Tensor:
        g = step_generator(5, step)
        chosen = torch.randint(POOL, (BATCH,), generator=g)
        pictures = pool[chosen].float() / 127.5 - 1
        # Generated pictures are softer and a little off in brightness: the judge must not care.
        if torch.rand((), generator=g) < 0.4:
            side = int(torch.randint(28, 60, (), generator=g))
            pictures = interpolate(interpolate(pictures, side, mode="area"), 64, mode="bilinear")
        pictures = pictures * (1 + 0.1 * torch.randn(BATCH, 1, 1, 1, generator=g))
        pictures = pictures + 0.08 * torch.randn(BATCH, 3, 1, 1, generator=g)
        pictures = pictures + 0.05 * torch.randn(pictures.shape, generator=g)
        shift = torch.randint(-4, 5, (2,), generator=g).tolist()
        logits = judge(pictures.roll(shift, (2, 3)))
        losses = [cross_entropy(row, labels[chosen, i], ignore_index=-1) for i, row in enumerate(logits)]
        return torch.stack(losses).sum()

    stage = Stage("judge", judge, work, STEPS, cosine(2e-3, STEPS), ema=0.99)
    stage.run(loss_of_step)
    stage.use_average()
    half = {k: v.half() if v.is_floating_point() else v for k, v in judge.state_dict().items()}
    save_file({k: v.contiguous() for k, v in half.items() if v.ndim}, WEIGHTS)
    return judge.eval()
