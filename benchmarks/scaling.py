"""How does a step grow with the rank, the resolution, the batch, what is computed again, and the number of images?

    python benchmarks/scaling.py WORK [--dtype float32] [--rounds 4] [--axes rank …] [--images 8 64 512] [--json FILE]

Stable Diffusion 1.5 with random weights of the published size, LoRA on the attention projections, computed as
`training.fast = "auto"` computes it: forward, backward, AdamW. One thing at a time differs from rank 8, 128 px and
batch 1; all take turns in one process, and the least CPU seconds of the rounds count, less the first. The number of
images is varied in runs of `sd_lora.train` on the embedded base, from one report to the next. WORK keeps the weights.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import machine, show
from step import TARGETS, load, random_base, turn

MIDDLE: dict[str, Any] = {"rank": 8, "px": 128, "batch": 1, "recomputed": False}
AXES: dict[str, tuple[Any, ...]] = {
    "rank": (4, 8, 16, 32, 64, 128), "px": (128, 192, 256), "batch": (1, 2, 4), "recomputed": (False, "ff", True),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--axes", nargs="+", default=list(AXES), choices=AXES)
    parser.add_argument("--images", type=int, nargs="*", default=[8, 64, 512])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.base = "sd15"
    points = [MIDDLE, *({**MIDDLE, axis: value} for axis in options.axes for value in AXES[axis])]
    points = [dict(point) for point in dict.fromkeys(tuple(point.items()) for point in points)]
    step, least = stepper(random_base(options), options.dtype), dict[int, float]()
    for turn_ in range(options.rounds):
        for index, point in enumerate(points):
            seconds = step(**point)
            if turn_:
                least[index] = min(least.get(index, seconds), seconds)
    rows = [
        {**point, "seconds": least[i], "times": least[i] / least[points.index(MIDDLE)]}
        for i, point in enumerate(points)
    ]
    show({**machine("torch", "diffusers"), "dtype": options.dtype}, rows, options.json)
    print()
    for images in options.images:
        print(f"{images} images, embedded base: {step_with(options.work, images):.3f} s a step", flush=True)


def stepper(base: Path, dtype: str) -> Callable[..., float]:
    """Takes a step of a rank, resolution and batch with a new adapter, and gives its CPU seconds."""
    import torch

    from sd_lora.lora.inject import eject, inject
    from sd_lora.lora.layers import LoraLinear
    from sd_lora.models.fast.allocation import keep_freed_memory
    from sd_lora.models.fast.ways import Choices
    from sd_lora.models.recompute import Recomputed, recompute
    from sd_lora.training.fast_path import faster_ways

    keep_freed_memory()
    precision = getattr(torch, dtype)
    unet = load(base, precision)
    modules = {name: m for name, m in unet.named_modules() if name.endswith(tuple(TARGETS["attn"]))}
    for technique in faster_ways(unet, Choices()):
        technique.on()

    def step(rank: int, px: int, batch: int, recomputed: Recomputed) -> float:
        recompute(unet, recomputed)
        layers = {name: LoraLinear(module, rank, rank) for name, module in modules.items()}
        inject(layers, modules)
        parameters = [parameter for layer in layers.values() for parameter in layer.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
        noisy, states = torch.randn(batch, 4, px // 8, px // 8), torch.randn(batch, 77, unet.config.cross_attention_dim)
        started = time.process_time()
        with torch.autocast("cpu", precision, enabled=precision is not torch.float32):
            predicted = unet(noisy, torch.full((batch,), 500), states, return_dict=False)[0]
        predicted.float().square().mean().backward()
        optimizer.step()
        seconds = time.process_time() - started
        eject(modules.values())
        return seconds

    return step


def step_with(work: Path, images: int, steps: int = 20) -> float:
    """The least CPU seconds of a step of a run with that many images."""
    script: list[Any] = [
        Path(__file__).with_name("step.py"),
        work,
        "--way=ours",
        "--base=tiny",
        "--size=64",
        "--batch=4",
    ]
    command = [sys.executable, *map(str, script), f"--images={images}", f"--steps={steps}"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    taken = [turn(process)[0] for _ in range(steps)]
    process.communicate()
    return min(taken[2:])


if __name__ == "__main__":
    main()
