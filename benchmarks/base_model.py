"""Is the embedded base good enough? What its VAE can draw, and whether it obeys prompts it was never trained on.

    python benchmarks/base_model.py [--base FOLDER] [--prompts 300] [--pairs 300] [--size 128] [--grid FILE]

Prints PSNR per style; the share of pictures whose subject, colour and background the judge recognises, beside the
judge's own score on the renderer's pictures of the same prompts, for prompts with one subject and with two; and how
sharp pictures are: their gradient energy as a share of the renderer's, and their distance to the renderer's pictures
beside that of other renderings of the same prompts. Exit code 1 if a number the project promises fails.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from sd_lora import load_base
from sd_lora.evaluation.style_distance import style_distance
from sd_lora.evaluation.tiny_measures import generate, reconstruction, unseen_scenes
from sd_lora.tinybase.judge import load_judge, recognised
from sd_lora.tinybase.styles import SIZE, STYLES, render
from sd_lora.tinybase.world import HELD_OUT_STYLES, Scene

GUIDANCE = 4.0
#: the figures to reach: dB on base styles and held-out ones, shares of prompts, of pairs, and of the gradient energy
LEAST_PSNR, LEAST_HELD_OUT, LEAST_OBEDIENCE, LEAST_PAIRS, LEAST_SHARPNESS = 27.0, 24.0, 0.99, 0.90, 0.90
_OTHER_SEED = 9_000_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="tiny")
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--grid", type=Path, help="also draw 40 pictures of unseen prompts, the last ten of pairs")
    options = parser.parse_args()
    pipe, _ = load_base(options.base)
    print("style           PSNR of the VAE (dB)")
    missed = list[str]()
    for style in STYLES:
        quality = reconstruction(pipe, style, size=options.size)
        print(f"{style:<14}  {quality:5.1f}", flush=True)
        if quality < (LEAST_HELD_OUT if style in HELD_OUT_STYLES else LEAST_PSNR):
            missed.append(f"PSNR of {style}")
    for pair, count in ((False, options.prompts), (True, options.pairs)):
        scenes = unseen_scenes(count, pair=pair)
        missed += obeyed(pipe, scenes, options.size)
        if not pair:
            missed += sharp(pipe, scenes[:100], options.size)
    if options.grid:
        draw_grid(pipe, options.size, options.grid)
    print(f"\nmissed: {', '.join(missed)}" if missed else "\nall promised numbers hold")
    return 1 if missed else 0


def obeyed(pipe: object, scenes: list[Scene], size: int) -> list[str]:
    """Print how many prompts are obeyed; what misses its figure."""
    kind = "pairs" if scenes[0].second else "one subject"
    drawn = recognised(load_judge(), [render(scene, size=size) for scene in scenes], scenes)
    images = generate(pipe, [scene.caption for scene in scenes], guidance=GUIDANCE, size=size)
    rows = {"renderer's own pictures": drawn, f"guidance {GUIDANCE:g}": recognised(load_judge(), images, scenes)}
    print(f"\n{len(scenes)} prompts never used in training, {kind}")
    for label, shares in rows.items():
        print(f"{label:<24}  " + "  ".join(f"{name} {share:.3f}" for name, share in shares.items()), flush=True)
    wanted = dict.fromkeys(("subject", "colour", "background"), LEAST_OBEDIENCE)
    wanted = {"pair": LEAST_PAIRS} if scenes[0].second else wanted
    shares = rows[f"guidance {GUIDANCE:g}"]
    return [f"{name} of {kind}" for name, least in wanted.items() if shares[name] < least]


def sharp(pipe: object, scenes: list[Scene], size: int) -> list[str]:
    """Print how sharp pictures are beside the renderer's; what misses its figure."""
    images = generate(pipe, [scene.caption for scene in scenes], guidance=GUIDANCE, size=size)
    drawn = [render(scene, size=size) for scene in scenes]
    others = [render(replace(scene, seed=scene.seed + _OTHER_SEED), size=size) for scene in scenes]
    share = gradient_energy(images) / gradient_energy(drawn)
    print(f"\ngradient energy, as a share of the renderer's: {share:.3f}")
    print(f"distance to the renderer's pictures: {style_distance(images, drawn):.4f}, of other renderings of the same "
          f"prompts {style_distance(others, drawn):.4f}", flush=True)  # fmt: skip
    return ["sharpness"] if share < LEAST_SHARPNESS else []


def gradient_energy(images: list[Image.Image]) -> float:
    """The mean squared difference of neighbouring pixels."""
    pictures = np.stack([np.asarray(image, dtype=np.float32) for image in images]) / 255
    return float(sum(np.square(np.diff(pictures, axis=axis)).mean() for axis in (1, 2)))


def draw_grid(pipe: object, size: int, file: Path) -> None:
    """30 unseen prompts of one subject and ten of pairs, ten a row."""
    scenes = unseen_scenes(30, pair=False) + unseen_scenes(10, pair=True)
    pictures = generate(pipe, [scene.caption for scene in scenes], guidance=GUIDANCE, size=size)
    cell = size + 4
    sheet = Image.new("RGB", (10 * cell - 4, 4 * cell - 4), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % 10 * cell, i // 10 * cell))
    sheet.save(file, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
