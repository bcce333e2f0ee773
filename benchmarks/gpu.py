"""What a GPU must show, in one command that stops by itself.

    python benchmarks/gpu.py WORK [--minutes 40] [--only NAME ...] [--device cuda] [--json FILE]

Each check is a process of its own, and its answer is printed and written to FILE when it ends; those for which no time
is left are named. With ``--device cpu`` the same checks run on tiny bases: that shows that the command works, and says
nothing of a GPU. WORK has room for random weights of the published sizes: 4 GB for SD1.5 and 7 GB for SDXL.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

#: the most that one check may take, in seconds
LIMIT = 600
Facts = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS))
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=CHECKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        warnings.simplefilter("ignore")
        with tempfile.TemporaryDirectory(dir=options.work) as folder:
            print(json.dumps(CHECKS[options.one](Bench(options.work, Path(folder), options.device))))
        return
    options.work.mkdir(parents=True, exist_ok=True)
    ends, found = time.monotonic() + 60 * options.minutes, {"machine": machine_of(options.device)}
    print(json.dumps(found["machine"]), flush=True)
    for name in options.only:
        found[name] = answer(name, options, min(LIMIT, ends - time.monotonic()))
        print(f"{name}: {json.dumps(found[name])}", flush=True)
        if options.json:
            options.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def answer(name: str, options: argparse.Namespace, seconds: float) -> Any:
    """What the check said, or why it said nothing."""
    if seconds <= 0:
        return "no time was left"
    command = [sys.executable, __file__, str(options.work), "--one", name, "--device", options.device]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return f"not done after {seconds:.0f} s"
    if done.returncode:
        return f"failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}"
    return json.loads(done.stdout.splitlines()[-1])


def machine_of(device: str) -> Facts:
    import torch
    from measuring import machine

    facts = machine("torch", "diffusers", "transformers")
    if device == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        facts |= {"gpu": gpu.name, "gpu_gb": round(gpu.total_memory / 2**30, 1), "cuda": torch.version.cuda}
    return facts


class Bench:
    """Bases, images and runs of one check. On a CPU all bases are tiny ones of the same layout."""

    def __init__(self, work: Path, folder: Path, device: str) -> None:
        self._work, self._folder, self.device = work, folder, device
        self._runs = 0

    def base(self, name: str) -> Path:
        """Random weights: ``sd1`` and ``sdxl`` are tiny, ``sd15-float32`` and the like of the published size."""
        if self.device == "cpu" or "-" not in name:
            from small_bases import write_base

            kind = {"sd15": "sd1"}.get(name.partition("-")[0], name.partition("-")[0])
            folder = self._folder / kind
            return folder if folder.exists() else write_base(kind, folder)
        folder = self._work / name
        if not (folder / "model_index.json").exists():
            writer = Path(__file__).with_name("full_size.py")
            subprocess.run([sys.executable, str(writer), "--write", name, str(folder)], check=True, stdout=sys.stderr)
        return folder

    def run(self, base: str, *settings: str, device: str = "", stop_after: int = 0) -> Facts:
        """Train; seconds a step after the first two, losses, notes, peak memory and what was promised."""
        import torch

        import sd_lora
        from sd_lora.training.preparation import prepare
        from sd_lora.training.run import run_training
        from sd_lora.training.stopping import RunInterrupted

        self._runs += 1
        out, reports, notes = self._folder / f"run{self._runs}", [], []
        config = sd_lora.load_config(
            "style", f"model.base={self.base(base)}", f"data.folder={self.images()}", f"output.folder={out}",
            "training.steps=6", "training.batch_size=1", "preview.every=0", "preview.inference_steps=1",
            "preview.strengths=1", "data.resolution=64", "data.upscale=true", f"model.device={device or self.device}",
            *settings,
        )  # fmt: skip
        cuda = (device or self.device) == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        run = prepare(config)
        with contextlib.suppress(RunInterrupted):
            run_training(
                run, watch=reports.append, on_note=notes.append,
                stop=lambda: 15 if stop_after and len(reports) + 1 >= stop_after else 0,
            )  # fmt: skip
        return {
            "folder": out,
            "losses": [report.loss for report in reports],
            "seconds": statistics.median(report.seconds for report in reports[2:] or reports),
            "notes": notes,
            "gb": torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
            "promised_gb": run.means.memory / 2**30,
        }

    def images(self) -> Path:
        from sd_lora.tinybase.folder import demo_scenes, write_captioned_folder

        folder = self._folder / "images"
        if not folder.exists():
            write_captioned_folder(folder, "woodcut", demo_scenes(4))
        return folder

    def sizes(self, *side: int) -> tuple[str, ...]:
        """The setting of a resolution: small on a CPU."""
        return (f"data.resolution={64 if self.device == 'cpu' else side[0]}",)


def tensors(run: Facts) -> Any:
    from safetensors.torch import load_file

    return load_file(run["folder"] / "adapter.safetensors")


def furthest(one: Facts, other: Facts) -> float:
    """The largest distance of two runs' tensors, as a share of the largest value."""
    a, b = tensors(one), tensors(other)
    size = max(float(tensor.abs().max()) for tensor in a.values())
    return max(float((a[name].float() - b[name].float()).abs().max()) for name in a) / size


def equality(bench: Bench) -> Facts:
    """Six steps in float32 and bfloat16 beside the CPU's in float32."""
    plain = bench.run("sd1", "model.dtype=float32", "training.fast=off", device="cpu")
    found: Facts = {}
    for dtype in ("float32", "bfloat16"):
        run = bench.run("sd1", f"model.dtype={dtype}", "training.fast=off")
        found[dtype] = {
            "tensors apart": furthest(plain, run),
            "losses apart": max(abs(a - b) / abs(a) for a, b in zip(plain["losses"], run["losses"], strict=True)),
        }
    return found


def scaler(bench: Bench) -> Facts:
    """float16 with its gradient scaler: 40 steps, all of them finite."""
    dtype = "float16" if bench.device == "cuda" else "bfloat16"
    run = bench.run("sd1", f"model.dtype={dtype}", "training.steps=40")
    return {"dtype": dtype, "losses": [run["losses"][0], run["losses"][-1]], "notes": run["notes"]}


def optimizers(bench: Bench) -> Facts:
    """The 8-bit optimizer beside its 32-bit form."""
    names = ("adamw", "adamw8bit") if bench.device == "cuda" else ("adamw",)
    runs = {name: bench.run("sd1", f"optimizer.name={name}", "training.steps=20") for name in names}
    return {name: run["losses"][-1] for name, run in runs.items()}


def quantized(bench: Bench) -> Facts:
    """A base of published size in fewer bits: memory, seconds a step, and how far the losses move."""
    found: Facts = {}
    for bits in ("none", "int8", "fp8", "nf4") if bench.device == "cuda" else ("none",):
        run = bench.run("sd15-float32", f"model.quantize={bits}", "model.dtype=bfloat16", *bench.sizes(512))
        found[bits] = {key: run[key] for key in ("seconds", "gb", "promised_gb")} | {"loss": run["losses"][0]}
    return found


def compiled(bench: Bench) -> Facts:
    """`training.compile` off and on, with what the gate says of it."""
    found: Facts = {}
    for on in ("false", "true"):
        began = time.monotonic()
        run = bench.run(
            "sd15-float32", f"training.compile={on}", "model.dtype=bfloat16", "training.steps=12", *bench.sizes(512)
        )
        found[on] = {key: run[key] for key in ("seconds", "notes")} | {"whole": time.monotonic() - began}
    return found


def sd15(bench: Bench) -> Facts:
    """SD1.5 at 512 px in both precisions and three batches."""
    found: Facts = {}
    for dtype in ("float32", "bfloat16"):
        for batch in (1, 4, 8):
            settings = (f"model.dtype={dtype}", f"training.batch_size={batch}", "training.steps=12")
            run = bench.run("sd15-float32", *settings, *bench.sizes(512))
            found[f"{dtype}, {batch}"] = {key: run[key] for key in ("seconds", "gb", "promised_gb")}
    return found


def sdxl(bench: Bench) -> Facts:
    """SDXL at 1024 px, with and without gradient checkpointing."""
    found: Facts = {}
    for checkpointing in ("false", "true"):
        settings = ("model.dtype=bfloat16", f"training.gradient_checkpointing={checkpointing}")
        run = bench.run("sdxl-bfloat16", *settings, *bench.sizes(1024))
        found[f"checkpointing {checkpointing}"] = {key: run[key] for key in ("seconds", "gb", "promised_gb")}
    return found


def exact_resume(bench: Bench) -> Facts:
    """A run that is stopped and resumed ends with the bytes of one that is not."""
    import torch

    import sd_lora

    found: Facts = {}
    for dtype in ("float32", "bfloat16"):
        settings = (f"model.dtype={dtype}", "lora.dropout=0.1")
        whole = bench.run("sd1", *settings)
        stopped = bench.run("sd1", *settings, stop_after=3)
        sd_lora.resume(stopped["folder"])
        same = [torch.equal(a, b) for a, b in zip(tensors(whole).values(), tensors(stopped).values(), strict=True)]
        found[dtype] = {"equal": all(same), "steps before the stop": len(stopped["losses"])}
    return found


def sweep(bench: Bench) -> Facts:
    """Five strengths at once, beside five calls."""
    import torch

    import sd_lora
    from sd_lora import Adapter, Previewer
    from sd_lora.config.schema import PreviewConfig

    run = bench.run("sd15-float32", "model.dtype=bfloat16", "training.steps=2", *bench.sizes(512))
    adapter = Adapter.load(run["folder"] / "adapter.safetensors")
    pipe = sd_lora.load_base(bench.base("sd15-float32"), torch.bfloat16)[0].to(bench.device)
    strengths = (0.2, 0.4, 0.6, 0.8, 1.0)
    size, steps = (64, 2) if bench.device == "cpu" else (512, 20)

    def drawn(*some: float) -> float:
        began = time.monotonic()
        look = PreviewConfig(strengths=some, inference_steps=steps)
        Previewer(pipe, adapter, look, size=size).grid(["a red house on a green hill"])
        return time.monotonic() - began

    drawn(1.0)
    once, singly = drawn(*strengths), sum(drawn(strength) for strength in strengths)
    return {"at once": once, "one by one": singly, "times as fast": singly / once}


CHECKS: dict[str, Callable[[Bench], Facts]] = {
    "equality": equality, "scaler": scaler, "optimizers": optimizers, "resume": exact_resume, "sd15": sd15,
    "quantized": quantized, "compiled": compiled, "sweep": sweep, "sdxl": sdxl,
}  # fmt: skip

if __name__ == "__main__":
    main()
