"""How much faster a sweep of strengths is than as many single pictures, and what an adapter costs that is fused.

    python benchmarks/sweep.py [--base sd15] [--size 0] [--steps 25] [--rounds 5] [--strengths 0.2,0.4] [--json FILE]

``sd15`` has random weights in the published sizes of Stable Diffusion 1.5. What is compared runs in turn, each round in
another order, so that the machine's load falls on each alike: the sweep, one call of `Previewer.grid`, which draws the
base model beside the strengths; as many calls as strengths, each with a previewer of its own, which do so too; pictures
at the strengths alone, each drawn by the pipeline with the adapter injected. All read the adapter's file. Figures are
medians over the rounds of wall time and of this process's CPU time; `times` are of each round's ratio to the first.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from full_size import write
from measuring import machine, show

from sd_lora import Adapter, Previewer, load_base
from sd_lora.config.schema import PreviewConfig
from sd_lora.lora.targets import plan_targets
from sd_lora.models.opening import family_of_pipe

PROMPT = "a red house on a green hill"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", choices=["tiny", "sd15"], default="tiny")
    parser.add_argument("--size", type=int, default=0, help="side in pixels; 0: the base model's own")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--strengths", default="0.2,0.4,0.6,0.8,1", help="none of them 0")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    strengths = [float(text) for text in options.strengths.split(",")]
    facts = machine("torch", "diffusers")
    with tempfile.TemporaryDirectory() as work:
        base = "tiny" if options.base == "tiny" else Path(work) / "base"
        if base != "tiny":
            write("sd15-float32", base)
        pipe, _ = load_base(base)
        pipe.to("cuda" if torch.cuda.is_available() else "cpu")
        pipe.set_progress_bar_config(disable=True)
        case = Case(pipe, made_up_adapter(pipe, Path(work) / "adapter.safetensors"), options.size, options.steps)
        facts |= {"base": options.base, "size": case.size, "steps": options.steps, "strengths": options.strengths}
        facts |= {"device": str(pipe.device), "threads": torch.get_num_threads()}
        rows = in_turn({
            "sweep": lambda: case.grid(strengths),
            "single pictures": lambda: [case.picture(strength) for strength in strengths],
            "single calls of grid": lambda: [case.grid([strength]) for strength in strengths],
        }, options.rounds)  # fmt: skip
        apart = [
            largest_difference(one, other)
            for one, other in zip(
                case.grid(strengths)[1:], [case.picture(strength) for strength in strengths], strict=True
            )
        ]
        facts["levels_apart"] = max(apart)
        # in the same memory, whose places alone make a difference of some percent
        denoiser = getattr(pipe, case.family.denoiser)
        plain = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
        Adapter.load(case.adapter).fuse(pipe)
        fused = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
        rows += in_turn(
            {
                "base model, one picture": lambda: case.plain(pipe),
                "adapter fused": lambda: case.plain(pipe),
                "adapter injected": lambda: case.picture(1.0),
            },
            3 * options.rounds,
            lambda name: denoiser.load_state_dict(fused if name == "adapter fused" else plain),
        )
    show(facts, rows, options.json)


class Case:
    """A base model and an adapter file, drawn in several ways."""

    def __init__(self, pipe: Any, adapter: Path, size: int, steps: int) -> None:
        self.pipe, self.adapter, self.steps = pipe, adapter, steps
        self.family = family_of_pipe(pipe)
        self.size = size or self.family.native_size(pipe)

    def grid(self, strengths: list[float]) -> list[Any]:
        settings = PreviewConfig(inference_steps=self.steps)
        previewer = Previewer(self.pipe, Adapter.load(self.adapter), settings, size=self.size)
        return list(previewer.grid([PROMPT], strengths).images[0])

    def picture(self, strength: float) -> Any:
        with Adapter.load(self.adapter).injected(self.pipe, strength):
            return self.plain(self.pipe)

    def plain(self, pipe: Any) -> Any:
        noise = self.family.noise(pipe, (self.size, self.size), 0)
        settings = {"height": self.size, "width": self.size, "num_inference_steps": self.steps, "guidance_scale": 5.0}
        return pipe(PROMPT, latents=noise, **settings).images[0]


def made_up_adapter(pipe: Any, path: Path) -> Path:
    """An adapter of rank 16 on attention and feed-forward with random weights."""
    family = family_of_pipe(pipe)
    plan = plan_targets(
        {family.denoiser: getattr(pipe, family.denoiser)}, family.target_groups, ["attn", "ff"], (16, 16.0)
    )
    adapter = Adapter.create(plan, family.kind(pipe).marks)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(0, 0.02, generator=generator)
    return adapter.save(path)


def in_turn(
    ways: dict[str, Callable[[], Any]], rounds: int, prepare: Callable[[str], Any] = lambda _: None
) -> list[dict[str, Any]]:
    """Medians over `rounds` of the seconds of each of `ways`, and of its multiple of the first. `prepare` is called
    with the name of each before it is timed."""
    for name, way in ways.items():
        prepare(name)
        way()
    wall, cpu = {name: list[float]() for name in ways}, {name: list[float]() for name in ways}
    for number in range(rounds):
        for name in random.Random(number).sample(list(ways), len(ways)):
            prepare(name)
            started, used = time.perf_counter(), time.process_time()
            ways[name]()
            wall[name].append(time.perf_counter() - started)
            cpu[name].append(time.process_time() - used)
            print(f"{name}: {wall[name][-1]:.3f} s", file=sys.stderr, flush=True)
    first = next(iter(ways))
    return [
        {
            "what": name,
            "seconds": statistics.median(wall[name]),
            "times": statistics.median(a / b for a, b in zip(wall[name], wall[first], strict=True)),
            "cpu_seconds": statistics.median(cpu[name]),
            "cpu_times": statistics.median(a / b for a, b in zip(cpu[name], cpu[first], strict=True)),
        }
        for name in ways
    ]


def largest_difference(one: Any, other: Any) -> int:
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


if __name__ == "__main__":
    main()
