"""How long until the first step is done, and in how much memory? `sd_lora`, a plain loop, and the floor, in turn.

    python benchmarks/start.py WORK [--images 8] [--size 128] [--dtype float32] [--rounds 3] [--set KEY=VALUE ...]
                               [--json FILE]
    python benchmarks/start.py WORK --counts 10 100 1000 [--json FILE]
    python benchmarks/start.py WORK --phases [--images 8] [--size 128] [--dtype float32] [--set KEY=VALUE ...]

Each is a process of its own, from before its imports until its first step is done, on random Stable Diffusion 1.5
weights of the published size, which WORK keeps (4 GB):

- floor: the libraries imported, the UNet opened, one forward and backward pass to its input with random states;
- plain: a script of diffusers and PEFT that encodes images and captions, then trains; every image once;
- plain, mirrored: the same, and mirrored copies of the images, as `sd_lora` caches them;
- cold: `sd_lora` where nothing is known: no measurements of this machine, no cache;
- again: a second run of the kind in another folder, without a cache of images;
- warm: a third one with `data.cache`, which the second has filled.

Peak memory is the process's largest resident set until then. With `--counts` instead: the CPU seconds and the memory
that caching needs for so many images of 32 px, on the embedded base. With `--phases`: what the CPU seconds of a cold, a
second and a warm start go to, and how far peak memory has come after each phase.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import Clock, described

SUBJECTS = ("floor", "plain", "plain, mirrored", "cold", "again", "warm")
#: the phases of a start: what is called, and the name of the phase; what one phase calls of another counts there only
PHASES = {
    "sd_lora.training.preparation:open_base": "opening the base",
    "sd_lora.training.preparation:examine": "looking at the images",
    "sd_lora.training.run:prepare": "planning",
    "sd_lora.training.encoding:encoders_of_base": "hashing the encoders",
    "sd_lora.data.encoded:EncodedSet._encode_image": "encoding images",
    "sd_lora.data.encoded:EncodedSet._encode_captions": "encoding captions",
    "sd_lora.models.opening:OpenBase.fill": "loading the denoiser",
    "sd_lora.training.run:encode": "the rest of encoding",
    "sd_lora.training.run:Session": "layers and optimizer",
    "sd_lora.models.fast.convolution:is_product_faster": "timing convolutions",
    "sd_lora.training.fast_path:FastPath.begin": "the gradient gate",
    "sd_lora.training.loop:Trainer._gradients": "the first step",
    "sd_lora.training.loop:Trainer._update": "the first step",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--counts", type=int, nargs="+", help="numbers of images to cache")
    parser.add_argument("--phases", action="store_true", help="what the seconds of sd_lora go to")
    parser.add_argument("--set", nargs="*", default=[], help="settings of sd_lora")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options)
        return
    print(f"{described('torch', 'diffusers', 'peft')}\n")
    rows = caching(options) if options.counts else phases(options) if options.phases else starts(options)
    if options.json:
        options.json.write_text(
            json.dumps({"machine": described("torch", "diffusers", "peft"), "rows": rows}, indent=1) + "\n", "utf-8"
        )


def starts(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every subject in turn, round after round; a row for each with its medians."""
    arguments = common(options)
    seen: dict[str, list[dict[str, Any]]] = {subject: [] for subject in SUBJECTS}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(dir=options.work) as place:
            for subject in SUBJECTS:
                seen[subject].append(child(subject, arguments, Path(place)))
    print(f"{options.images} images at {options.size} px, {options.dtype}, medians of {options.rounds} rounds\n")
    print("| | CPU | wall | peak memory | CPU : plain | CPU : plain, mirrored |\n" + "|---" * 6 + "|")
    rows = []
    for subject, found in seen.items():
        row = {"subject": subject, **{key: statistics.median(each[key] for each in found) for key in found[0]}}
        for to in SUBJECTS[1:3]:
            row[f"to {to}"] = statistics.median(
                mine["cpu"] / theirs["cpu"] for mine, theirs in zip(found, seen[to], strict=True)
            )
        rows.append({**row, "rounds": found})
        ratios = " | ".join(f"{row[f'to {to}']:.2f}" for to in SUBJECTS[1:3])
        print(
            f"| {subject} | {row['cpu']:.1f} s | {row['wall']:.1f} s | {row['peak']:.2f} GiB | {ratios} |", flush=True
        )
    return rows


def phases(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each phase of a start, in the order in which they end."""
    rows = dict[str, dict[str, Any]]()
    with tempfile.TemporaryDirectory(dir=options.work) as place:
        for subject in SUBJECTS[3:]:
            found = child(subject, [*common(options), "--phases"], Path(place))
            for phase, (seconds, peak) in {**found["phases"], "in all": (found["cpu"], found["peak"])}.items():
                rows.setdefault(phase, {"phase": phase})[subject] = f"{seconds:.2f} s, {peak:.2f} GiB"
    print("| | " + " | ".join(SUBJECTS[3:]) + " |\n" + "|---" * 4 + "|")
    for phase, row in rows.items():
        print(f"| {phase} | " + " | ".join(row.get(subject, "") for subject in SUBJECTS[3:]) + " |")
    return list(rows.values())


def common(options: argparse.Namespace) -> list[str]:
    """The arguments of every process: a base model and images, which are made unless WORK has them."""
    base = options.work / f"sd15-{options.dtype}"
    if not (base / "model_index.json").exists():
        full_size = Path(__file__).with_name("full_size.py")
        subprocess.run([sys.executable, full_size, "--write", base.name, str(base)], check=True)
    images = captioned(options.work / f"images-{options.images}", options.images)
    return [str(options.work), "--size", str(options.size), "--dtype", options.dtype,
            "--set", f"model.base={base}", f"data.folder={images}", *options.set]  # fmt: skip


def caching(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each number of images."""
    print("| images | encoding | images a second | peak memory |\n|---|---|---|---|")
    rows = []
    for count in options.counts:
        images = captioned(options.work / f"small-{count}", count)
        settings = ["--size", "32", "--phases", "--set", "model.base=tiny", f"data.folder={images}"]
        with tempfile.TemporaryDirectory(dir=options.work) as place:
            found = child("caching", [str(options.work), *settings], Path(place))
        encoding = sum(seconds for phase, (seconds, _) in found["phases"].items() if "encoding" in phase)
        row = {"images": count, "encoding": encoding, "peak": found["peak"]}
        rows.append(row)
        print(
            f"| {count} | {row['encoding']:.1f} s | {count / row['encoding']:.0f} | {row['peak']:.2f} GiB |", flush=True
        )
    return rows


def child(subject: str, arguments: list[str], place: Path) -> dict[str, Any]:
    """What a process that runs `subject` measured; `place` is what the runs of a round share."""
    command = [sys.executable, __file__, *arguments, "--one", subject, str(place)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(place / "known"), "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise SystemExit(f"{subject} failed:\n{done.stderr}")
    return {"wall": time.perf_counter() - started, **json.loads(lines[-1])}


def captioned(folder: Path, count: int) -> Path:
    """A folder of `count` captioned pictures."""
    if not folder.exists():
        from sd_lora.tinybase.folder import demo_scenes, write_captioned_folder

        write_captioned_folder(folder, "woodcut", demo_scenes(min(count, 12)))
        first = sorted(folder.glob("*.png"))
        for number in range(len(first), count):
            copy_shifted(first[number % len(first)], folder / f"more{number:05}.png", number)
    return folder


def copy_shifted(source: Path, target: Path, number: int) -> None:
    """A picture that differs from `source` in one pixel, and its caption."""
    from PIL import Image

    with Image.open(source) as image:
        other = image.convert("RGB")
        other.putpixel((number % other.width, number // other.width % other.height), (number % 256, 99, 7))
        other.save(target)
    shutil.copy(source.with_suffix(".txt"), target.with_suffix(".txt"))


def one(options: argparse.Namespace) -> None:
    """Run one subject and print what it took: this is the process that is measured."""
    subject, place = options.one[0], Path(options.one[1])
    settings = dict(setting.split("=", 1) for setting in options.set)
    if subject == "floor":
        floor(settings["model.base"], options)
    elif subject.startswith("plain"):
        plain(settings["model.base"], Path(settings["data.folder"]), options, mirrored="mirrored" in subject)
    else:
        ours(subject, place, options)
    report()


def report(**more: Any) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss / 2**20, **more}), flush=True)


def floor(base: str, options: argparse.Namespace) -> None:
    import torch
    from diffusers import UNet2DConditionModel

    dtype, side = getattr(torch, options.dtype), options.size // 8
    unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet", torch_dtype=dtype).requires_grad_(False)
    noisy = torch.randn(1, 4, side, side, dtype=dtype).requires_grad_()
    states = torch.randn(1, 77, unet.config.cross_attention_dim, dtype=dtype)
    unet(noisy, torch.tensor([500]), states).sample.float().square().mean().backward()


def plain(base: str, folder: Path, options: argparse.Namespace, *, mirrored: bool) -> None:
    """A loop as the pages of diffusers and PEFT show it."""
    import numpy as np
    import torch
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from peft import LoraConfig
    from PIL import Image, ImageOps
    from transformers import CLIPTextModel, CLIPTokenizer

    dtype = getattr(torch, options.dtype)
    vae = AutoencoderKL.from_pretrained(base, subfolder="vae", torch_dtype=dtype).requires_grad_(False)
    text = CLIPTextModel.from_pretrained(base, subfolder="text_encoder", dtype=dtype).requires_grad_(False)
    unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet", torch_dtype=dtype).requires_grad_(False)
    tokenizer = CLIPTokenizer.from_pretrained(base, subfolder="tokenizer")
    scheduler = DDPMScheduler.from_pretrained(base, subfolder="scheduler")
    targets = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]
    unet.add_adapter(LoraConfig(r=16, lora_alpha=16, target_modules=targets))
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.data = parameter.data.float()
    latents, states = [], []
    with torch.no_grad():
        for file in sorted(folder.glob("*.png")):
            picture = Image.open(file).convert("RGB").resize((options.size, options.size))
            for shown in (picture, ImageOps.mirror(picture)) if mirrored else (picture,):
                pixels = torch.from_numpy(np.array(shown)).permute(2, 0, 1)[None].to(dtype) / 127.5 - 1
                latents.append(vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor)
            ids = tokenizer(
                [file.with_suffix(".txt").read_text()],
                padding="max_length",
                max_length=tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
            states.append(text(ids.input_ids).last_hidden_state)
    del vae, text
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    noise, step = torch.randn_like(latents[0]), torch.randint(0, 1000, (1,))
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        predicted = unet(scheduler.add_noise(latents[0], noise, step), step, states[0]).sample
    (predicted.float() - noise.float()).square().mean().backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


def ours(subject: str, place: Path, options: argparse.Namespace) -> None:
    """A run until its first step is done, which then ends the process."""
    import sd_lora

    def first(step: Any) -> None:  # noqa: ARG001
        clock.ends("the rest")
        report(**({"phases": clock.phases} if options.phases else {}))
        sys.stdout.flush()
        os._exit(0)

    clock = Clock()
    if options.phases:
        import sd_lora.models.families.pipeline_folder
        import sd_lora.training.run

        clock.ends("imports")
        for name, phase in PHASES.items():
            clock.watch(name, phase)
    cache = {} if subject == "cold" else {"data.cache": place / "cache"}
    config = sd_lora.load_config(
        "style", f"model.dtype={options.dtype}", f"data.resolution={options.size}", "training.batch_size=1",
        "training.steps=2", "preview.strengths=1", "preview.inference_steps=1",
        f"output.folder={place / f'run {subject}'}", *(f"{key}={value}" for key, value in cache.items()), *options.set,
    )  # fmt: skip
    sd_lora.train(config, watch=first)


if __name__ == "__main__":
    main()
