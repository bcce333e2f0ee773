"""How long is a training step? Each way is a process of its own; they take turns, a step each, so that all meet the
same moments of the machine.

    python benchmarks/step.py WORK [--base sd15 | tiny] [--dtype float32 ...] [--batch 1 ...] [--size 128 ...]
                              [--rank 8 ...] [--targets attn ...] [--steps 12] [--set KEY=VALUE ...] [--json FILE]

- floor: the frozen model in float32 alone, forward and backward to its input, with everything cached;
- plain: a loop as diffusers' and PEFT's pages show it, with cached latents and captions: `LoraConfig` on the attention
  projections, AdamW, clipped gradients; in float32, and with a base in `--dtype` under autocast;
- ours: `sd_lora.train`, from one report to the next, so with its data, checks, log and optimizer.

Medians of CPU seconds and wall seconds a step, after two that are not counted. WORK keeps random Stable Diffusion 1.5
weights of the published size (4 GB).
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

from measuring import described

UNCOUNTED = 2
#: the names that PEFT gives the modules of our targets
TARGETS = {
    "attn": ["to_q", "to_k", "to_v", "to_out.0"],
    "ff": ["ff.net.0.proj", "ff.net.2"],
    "conv": ["conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--base", default="sd15", choices=("sd15", "tiny"))
    parser.add_argument("--dtype", nargs="+", default=["float32"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1])
    parser.add_argument("--size", nargs="+", type=int, default=[128])
    parser.add_argument("--rank", nargs="+", type=int, default=[8])
    parser.add_argument("--targets", nargs="+", default=["attn"], choices=TARGETS)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--set", nargs="*", default=[], help="settings of sd_lora")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--images", type=int, default=8, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=("floor", "plain", "ours"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        take_turns(options)
        return
    random_base(options)
    rows = []
    titles = "base|dtype|batch|px|rank|floor|plain|plain in dtype|ours|ours : floor|plain : ours|wall, ours : floor"
    machine = described("torch", "diffusers", "peft")
    print(f"{machine}, LoRA on {', '.join(options.targets)}\n\n| {titles.replace('|', ' | ')} |")
    print("| --- " * (titles.count("|") + 1) + "|", flush=True)
    for dtype, batch, size, rank in itertools.product(options.dtype, options.batch, options.size, options.rank):
        row = {"base": options.base, "dtype": dtype, "batch": batch, "px": size, "rank": rank}
        cpu, wall = measure(row, options)
        rows.append({**row, "targets": options.targets, "cpu": cpu, "wall": wall})
        ways = ("floor", "plain", f"plain {dtype}" if dtype != "float32" else "", "ours")
        cells = [*row.values(), *(f"{cpu[way]:.3f} s" if way else "" for way in ways)]
        ratios = cpu["ours"] / cpu["floor"], cpu["plain"] / cpu["ours"], wall["ours"] / wall["floor"]
        print("| " + " | ".join(map(str, [*cells, *(f"{ratio:.2f}" for ratio in ratios)])) + " |", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n", "utf-8")


def measure(row: dict[str, Any], options: argparse.Namespace) -> tuple[dict[str, float], dict[str, float]]:
    """The medians of one combination: CPU and wall seconds by way."""
    same = [f"--{name}={row[key]}" for name, key in (("base", "base"), ("batch", "batch"), ("size", "px"))]
    same += [f"--rank={row['rank']}", f"--steps={options.steps}", "--targets", *options.targets]
    ways = {"floor": ("floor", "float32"), "plain": ("plain", "float32"), "ours": ("ours", row["dtype"])}
    if row["dtype"] != "float32":
        ways[f"plain {row['dtype']}"] = ("plain", row["dtype"])
    started = {
        name: subprocess.Popen(
            [sys.executable, __file__, str(options.work), "--way", way, "--dtype", dtype, *same, "--set", *options.set],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )
        for name, (way, dtype) in ways.items()
    }  # fmt: skip
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(options.steps):
        for name, process in started.items():
            times[name].append(turn(process))
    for process in started.values():
        process.communicate()
    counted = {name: list(zip(*some[UNCOUNTED:], strict=True)) for name, some in times.items()}
    cpu, wall = ({name: statistics.median(some[clock]) for name, some in counted.items()} for clock in (0, 1))
    return cpu, wall


def turn(process: subprocess.Popen[str]) -> tuple[float, float]:
    """Have a process take a step; its CPU and wall seconds."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    for line in process.stdout:
        if line.startswith("took "):
            cpu, wall = line.split()[1:]
            return float(cpu), float(wall)
    raise SystemExit("a way has ended before its last step")


def take_turns(options: argparse.Namespace) -> None:
    """Take a step for each line that comes in, and print what it took."""
    import torch

    (dtype,), (batch,), (size,), (rank,) = options.dtype, options.batch, options.size, options.rank
    began = list[float]()

    def wait() -> None:
        sys.stdin.readline()
        began[:] = time.process_time(), time.perf_counter()

    def tell(_: Any = None) -> None:
        print("took", time.process_time() - began[0], time.perf_counter() - began[1], flush=True)

    def next_turn(_: Any) -> None:
        tell()
        wait()

    base = random_base(options)
    if options.way == "ours":
        wait()
        train(base, options, next_turn)
        return
    unet, side = load(base, getattr(torch, dtype)), size // (4 if options.base == "tiny" else 8)
    floor_step = options.way == "floor"
    step = floor(unet, batch, side) if floor_step else plain(unet, options.targets, batch, side, rank)
    for _ in range(options.steps):
        wait()
        step()
        tell()


def train(base: Path, options: argparse.Namespace, watch: Callable[[Any], None]) -> None:
    import sd_lora

    (dtype,), (batch,), (size,), (rank,) = options.dtype, options.batch, options.size, options.rank
    with images(options.images, size) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = sd_lora.load_config(
            "style", f"model.base={base}", f"model.dtype={dtype}", "model.device=cpu",
            f"data.folder={folder / 'images'}", f"data.resolution={size}", f"output.folder={folder / 'run'}",
            f"lora.targets={','.join(options.targets)}", f"lora.rank={rank}", f"training.steps={options.steps}",
            f"training.batch_size={batch}", "training.checkpoint_every=0", "preview.every=0", "preview.strengths=0",
            "preview.inference_steps=1", *options.set,
        )  # fmt: skip
        sd_lora.train(config, watch=watch)


def random_base(options: argparse.Namespace) -> Path:
    """The folder of the base, which is written if it is missing."""
    import sd_lora

    if options.base == "tiny":
        return sd_lora.tiny_base_path()
    folder = options.work / "sd15-float32"
    if not (folder / "model_index.json").exists():
        writer = Path(__file__).with_name("full_size.py")
        subprocess.run([sys.executable, str(writer), "--write", folder.name, str(folder)], check=True)
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


def plain(unet: Any, targets: list[str], batch: int, side: int, rank: int) -> Callable[[], None]:
    import torch
    from diffusers import DDPMScheduler
    from peft import LoraConfig

    modules = [name for target in targets for name in TARGETS[target]]
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=modules))
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
