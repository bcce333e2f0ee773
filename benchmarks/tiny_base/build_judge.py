"""Trains the judge on the renderer's pictures in every style.

    python -m benchmarks.tiny_base.build_judge WORK

Trains (or finishes training), writes the shipped weights, and prints the judge's errors style by style.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from benchmarks.tiny_base.stage import Stage, cosine, picture_pool, step_generator
from sd_lora.tinybase.judge import ANSWERS, SIDE, WEIGHTS, Judge, recognised, truth
from sd_lora.tinybase.styles import SIZE, STYLES, render
from sd_lora.tinybase.world import COLOURLESS_STYLES, Scene, sample_scene

STEPS, BATCH, POOL = 4_000, 64, 24_000
_FIRST_SEED, _TEST_SEED = 3_000_000, 4_000_000


def _style(index: int) -> str:
    return random.Random(f"judge {index}").choice(list(STYLES))


def _scene(index: int) -> Scene:
    return sample_scene(_FIRST_SEED + index, held_out=None, pair=index % 2 == 0)


def _picture(index: int) -> NDArray[np.uint8]:
    """One in three is drawn large and reduced: textures are then finer than at the judge's size."""
    picture = render(_scene(index), _style(index), SIZE if index % 3 == 0 else SIDE)
    return np.asarray(picture.reduce(picture.width // SIDE))


def _labels(index: int) -> list[int]:
    """Answers to all questions; -1 for the colours in a style that shows none."""
    answers = [options.index(word) for options, word in zip(ANSWERS, truth(_scene(index)), strict=True)]
    if _style(index) in COLOURLESS_STYLES:
        answers[1] = answers[3] = -1
    return answers


def _changed(pictures: Tensor, g: torch.Generator) -> Tensor:
    """Blurred, re-lit, tinted, noisy and shifted: generated pictures are a little off, and the judge must not care."""
    count = len(pictures)
    if torch.rand((), generator=g) < 0.4:
        side = int(torch.randint(28, 60, (), generator=g))
        pictures = interpolate(interpolate(pictures, side, mode="area"), SIDE, mode="bilinear")
    pictures = pictures * (1 + 0.1 * torch.randn(count, 1, 1, 1, generator=g))
    pictures = pictures + 0.08 * torch.randn(count, 3, 1, 1, generator=g)
    patches = 0.12 * torch.randn(count, 3, 8, 8, generator=g)
    pictures = pictures + interpolate(patches, SIDE, mode="bilinear")
    pictures = pictures + 0.05 * torch.randn(pictures.shape, generator=g)
    shift = torch.randint(-4, 5, (2,), generator=g).tolist()
    return torch.nn.functional.pad(pictures, (4, 4, 4, 4), mode="replicate")[
        ..., 4 + shift[0] : 4 + shift[0] + SIDE, 4 + shift[1] : 4 + shift[1] + SIDE
    ]


def build(work: Path) -> Judge:
    """Train in `work` and write the shipped weights (float16)."""
    pool = picture_pool(work / "judge_pool.npy", _picture, POOL)
    labels = torch.tensor([_labels(i) for i in range(POOL)])
    torch.manual_seed(5)
    judge = Judge()

    def loss_of_step(step: int) -> Tensor:
        g = step_generator(5, step)
        chosen = torch.randint(POOL, (BATCH,), generator=g)
        logits = judge(_changed(pool[chosen].float() / 127.5 - 1, g))
        losses = [cross_entropy(row, labels[chosen, i], ignore_index=-1) for i, row in enumerate(logits)]
        return torch.stack(losses).sum()

    stage = Stage("judge", judge, work, STEPS, cosine(2e-3, STEPS), ema=0.99)
    stage.run(loss_of_step)
    stage.use_average()
    half = {k: v.half() if v.is_floating_point() else v for k, v in judge.state_dict().items()}
    save_file({k: v.contiguous() for k, v in half.items() if v.ndim}, WEIGHTS)
    return judge.eval()


def print_errors(judge: Judge, count: int = 200) -> None:
    """The judge's errors in percent on `count` pictures a style, half of them pairs, that it was not trained on."""
    scenes = [sample_scene(_TEST_SEED + i, held_out=None, pair=i % 2 == 0) for i in range(count)]
    print("errors in %      " + "  ".join(f"{name:>13}" for name in _HEADINGS))
    for style in STYLES:
        shares = recognised(judge, [render(scene, style) for scene in scenes], scenes)
        print(f"{style:<15}  " + "  ".join(f"{100 * (1 - shares[name]):13.1f}" for name in _HEADINGS), flush=True)


_HEADINGS = ("subject", "colour", "background", "light", "second", "second_colour", "pair")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    torch.set_num_threads(1)
    print_errors(build(parser.parse_args().work))


if __name__ == "__main__":
    main()
