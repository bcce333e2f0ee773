"""How long is a training step? One command trains with `sd_lora`, and between its steps times the same model's floor
and a plain loop, so that all meet the same moments of the machine.

    python benchmarks/step.py WORK [--base sd15 | tiny] [--dtype float32 ...] [--batch 1 ...] [--size 128 ...]
                              [--rank 8 ...] [--steps 12] [--set KEY=VALUE ...] [--json FILE]

- floor: the frozen model in float32 alone, forward and backward to its input, with everything cached;
- plain: a loop as diffusers' and PEFT's pages show it, with cached latents and captions: `LoraConfig` on the attention
  projections, AdamW, clipped gradients; in float32, and with a base in `--dtype` under autocast;
- ours: `sd_lora.train`, from one report to the next, so with its data, checks, log and optimizer.

Medians of CPU seconds and wall seconds a step, after two that are not counted. WORK keeps random Stable Diffusion 1.5
weights of the published size (4 GB). Every combination of the options is a process of its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from machine import described

UNCOUNTED = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--base", default="sd15", choices=("sd15", "tiny"))
    parser.add_argument("--dtype", nargs="+", default=["float32"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1])
    parser.add_argument("--size", nargs="+", type=int, default=[128])
    parser.add_argument("--rank", nargs="+", type=int, default=[8])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--set", nargs="*", default=[], help="settings of sd_lora")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options)))
        return
    rows = []
    print(f"{described()}\n")
    print(
        "| base | dtype | batch | px | rank | floor | plain | plain in dtype | ours | ours : floor | plain : ours | wall |"
    )
    print("|---" * 12 + "|")
    for dtype, batch, size, rank in itertools.product(options.dtype, options.batch, options.size, options.rank):
        case = f"--dtype {dtype} --batch {batch} --size {size} --rank {rank}".split()
        more = ["--base", options.base, "--steps", str(options.steps), "--set", *options.set]
        command = [sys.executable, __file__, str(options.work), "--one", *case, *more]
        row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
        rows.append({"base": options.base, "dtype": dtype, "batch": batch, "px": size, "rank": rank, **row})
        cpu, wall = row["cpu"], row["wall"]
        times = " | ".join(
            f"{cpu[way]:.3f} s" if way in cpu else "" for way in ("floor", "plain", f"plain {dtype}", "ours")
        )
        print(
            f"| {options.base} | {dtype} | {batch} | {size} | {rank} | {times} | {cpu['ours'] / cpu['floor']:.2f} | "
            f"{cpu['plain'] / cpu['ours']:.2f} | {wall['ours'] / wall['floor']:.2f} |",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps({"machine": described(), "rows": rows}, indent=1) + "\n", "utf-8")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The medians of one combination."""
    import torch

    import sd_lora

    base = sd_lora.tiny_base_path() if options.base == "tiny" else random_base(options.work)
    (dtype,), (batch,), (size,), (rank,) = options.dtype, options.batch, options.size, options.rank
    side = size // (4 if options.base == "tiny" else 8)
    ways: dict[str, Callable[[], None]] = {
        "floor": floor(load(base, torch.float32), batch, side),
        "plain": plain(load(base, torch.float32), batch, side, rank),
    }
    if dtype != "float32":
        ways[f"plain {dtype}"] = plain(load(base, getattr(torch, dtype)), batch, side, rank)
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in (*ways, "ours")}
    began = clocks()

    def watch(report: Any) -> None:
        nonlocal began
        times["ours"].append(since(began))
        for way, step in ways.items():
            began = clocks()
            step()
            times[way].append(since(began))
        began = clocks()

    with images(8, size) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = sd_lora.load_config(
            "sd15-style", f"model.base={base}", f"model.dtype={dtype}", "model.device=cpu", f"data.folder={folder / 'images'}",
            f"output.folder={folder / 'run'}", f"training.steps={options.steps}", f"training.batch_size={batch}",
            f"data.resolution={size}", f"lora.rank={rank}", "preview.every=0", "preview.inference_steps=1",
            "preview.strengths=0", "training.checkpoint_every=0", *options.set,
        )  # fmt: skip
        sd_lora.train(config, watch=watch)
    counted = {way: list(zip(*some[UNCOUNTED:], strict=True)) for way, some in times.items()}
    return {
        "cpu": {way: statistics.median(cpu) for way, (cpu, _) in counted.items()},
        "wall": {way: statistics.median(wall) for way, (_, wall) in counted.items()},
    }


def clocks() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def since(began: tuple[float, float]) -> tuple[float, float]:
    return time.process_time() - began[0], time.perf_counter() - began[1]


def random_base(work: Path) -> Path:
    folder = work / "sd15-float32"
    if not (folder / "model_index.json").exists():
        writer = Path(__file__).with_name("full_size.py")
        subprocess.run(
            [sys.executable, str(writer), "--write", folder.name, str(folder)], check=True, stdout=sys.stderr
        )
    return folder


def load(base: Path, dtype: Any) -> Any:
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(base / "unet", torch_dtype=dtype)
    return unet.requires_grad_(False).train()


def floor(unet: Any, batch: int, side: int) -> Callable[[], None]:
    import torch

    latents = torch.randn(batch, 4, side, side, requires_grad=True)
    states = torch.randn(batch, 77, unet.config.cross_attention_dim)
    times = torch.full((batch,), 500)

    def step() -> None:
        unet(latents, times, states).sample.square().mean().backward()
        latents.grad = None

    return step


def plain(unet: Any, batch: int, side: int, rank: int) -> Callable[[], None]:
    import torch
    from diffusers import DDPMScheduler
    from peft import LoraConfig

    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.data = parameter.data.float()
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    noising = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    latents, captions = torch.randn(8, 4, side, side), torch.randn(8, 77, unet.config.cross_attention_dim)

    def step() -> None:
        chosen = torch.randint(0, 8, (batch,))
        noise, times = torch.randn(batch, *latents.shape[1:]), torch.randint(0, 1000, (batch,))
        noisy = noising.add_noise(latents[chosen], noise, times)  # type: ignore[arg-type]
        with torch.autocast("cpu", unet.dtype, enabled=unet.dtype is not torch.float32):
            prediction = unet(noisy, times, captions[chosen]).sample
        torch.nn.functional.mse_loss(prediction.float(), noise).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


@contextmanager
def images(n: int, size: int) -> Iterator[Path]:
    """A folder with `n` captioned pictures in `images`."""
    from sd_lora.tinybase.styles import render
    from sd_lora.tinybase.world import sample_scene

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "images"
        folder.mkdir()
        for i in range(n):
            scene = sample_scene(i)
            render(scene, "woodcut", size).save(folder / f"{i}.png")
            (folder / f"{i}.txt").write_text(scene.caption, "utf-8")
        yield Path(name)


if __name__ == "__main__":
    main()
