"""How far a build has come: what the VAE can draw, and what the UNet draws of prompts it has never seen.

    python -m benchmarks.second_base.progress WORK [--vae NAME] [--grid FILE] [--prompts N]

Prints the VAE's PSNR style by style at both sizes and its sharpness (gradient energy of what it draws, as a share of
the original's). `--grid` draws 24 prompts, the last eight of them pairs: at 128 px, at 64 px, and the renderer's
picture. `--prompts` lets the shipped judge say how many of N prompts are obeyed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from benchmarks.second_base import build_text, build_unet, build_vae
from benchmarks.second_base.training_set import load_chunk
from benchmarks.second_base.world.judge import load_judge, recognised, to_tensor
from benchmarks.second_base.world.styles import SIZE, STYLES, render
from benchmarks.second_base.world.world import Scene, sample_scene

_GUIDANCE = 4.0


def unseen(count: int, *, pair: bool) -> list[Scene]:
    return [sample_scene(7_000_000 + i, held_out=True, pair=pair) for i in range(count)]


def gradient_energy(pictures: Tensor) -> float:
    return sum(pictures.diff(dim=axis).square().mean().item() for axis in (2, 3))


@torch.inference_mode()
def print_quality(vae: AutoencoderKL, count: int = 12) -> None:
    print("style           128 px   64 px   sharpness")
    scenes = unseen(count, pair=False)
    for style in STYLES:
        shares: list[str] = []
        sharpness = 0.0
        for size in (SIZE // 2, SIZE):
            pictures = to_tensor([render(scene, style, size) for scene in scenes], size)
            rebuilt = vae.decode(vae.encode(pictures).latent_dist.mean).sample.clamp(-1, 1)  # pyright: ignore[reportAttributeAccessIssue]
            errors = ((pictures - rebuilt) / 2).square().mean(dim=(1, 2, 3))
            shares.insert(0, f"{float((-10 * errors.log10()).mean()):6.1f}")
            sharpness = gradient_energy(rebuilt) / gradient_energy(pictures)
        print(f"{style:<14}  {shares[0]}  {shares[1]}   {sharpness:9.2f}", flush=True)


def pipeline(work: Path, vae: AutoencoderKL) -> tuple[Any, int]:
    """The pipeline with the averaged weights of the latest checkpoint, and its step."""
    tokenizer, text = build_text.build(work)
    learner = build_unet.Learner(text.encoder, text.heads)
    with safe_open(str(work / "unet.safetensors"), framework="pt") as file:
        step = int(file.metadata()["step"])
        learner.load_state_dict({k[4:]: file.get_tensor(k) for k in file.keys() if k.startswith("ema.")})  # noqa: SIM118
    spread = load_chunk(work, 0, "vae")[f"latents{build_unet.SIDES[0]}"].float().std().item()
    vae.register_to_config(scaling_factor=1 / spread)
    absent: Any = None
    pipe = StableDiffusionPipeline(
        vae=vae, text_encoder=learner.encoder, tokenizer=tokenizer, unet=learner.unet,
        scheduler=build_unet.new_scheduler(), safety_checker=absent, feature_extractor=absent,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    learner.eval()
    return pipe, step


def draw(pipe: Any, scenes: list[Scene], size: int) -> list[Image.Image]:
    images: list[Image.Image] = []
    side = size // build_vae.STRIDE
    for start in range(0, len(scenes), 20):
        prompts = [scene.caption for scene in scenes[start : start + 20]]
        seeds = [torch.Generator().manual_seed(start + i) for i in range(len(prompts))]
        noise = torch.cat([torch.randn(1, build_vae.CHANNELS, side, side, generator=g) for g in seeds])
        with torch.autocast("cpu", torch.bfloat16):
            images += pipe(
                prompts, latents=noise, height=size, width=size, guidance_scale=_GUIDANCE, num_inference_steps=20
            ).images
    return images


def draw_grid(pipe: Any, file: Path) -> None:
    scenes = unseen(16, pair=False) + unseen(8, pair=True)
    rows = (draw(pipe, scenes, SIZE), draw(pipe, scenes, SIZE // 2), [render(scene) for scene in scenes])
    cell = SIZE + 4
    sheet = Image.new("RGB", (8 * cell, 9 * cell), "white")
    for i in range(len(scenes)):
        for k, row in enumerate(rows):
            sheet.paste(row[i].resize((SIZE, SIZE)), (i % 8 * cell, (i // 8 * 3 + k) * cell))
    sheet.save(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--vae", default="vae", help="vae_rough, vae or vae_fine")
    parser.add_argument("--grid", type=Path)
    parser.add_argument("--prompts", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    vae = AutoencoderKL.from_pretrained(options.work / options.vae).eval()
    print_quality(vae)
    if options.grid or options.prompts:
        pipe, step = pipeline(options.work, vae)
        print(f"UNet after {step:,} steps of {build_unet.BATCH}")
        if options.grid:
            draw_grid(pipe, options.grid)
        for size in (SIZE, SIZE // 2) if options.prompts else ():
            for pair in (False, True):
                scenes = unseen(options.prompts // 2, pair=pair)
                shares = recognised(load_judge(), draw(pipe, scenes, size), scenes)
                print(f"{size} px", "pairs" if pair else "one subject", {k: round(v, 3) for k, v in shares.items()})


if __name__ == "__main__":
    main()
