"""Is the embedded base good enough? What its VAE can draw, and whether it obeys prompts it was never trained on.

    python benchmarks/base_model.py [--prompts 200] [--grid FILE]

Prints PSNR per style and the share of pictures whose subject, colour and background the judge recognises, beside the
judge's own score on the renderer's pictures of the same prompts. Exit code 1 if a number the project promises fails.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from PIL import Image

from sd_lora import load_base
from sd_lora.evaluation.tiny_measures import generate, obedience, reconstruction, unseen_scenes
from sd_lora.tinybase.judge import load_judge, recognised
from sd_lora.tinybase.styles import STYLES, render

LEAST_PSNR, LEAST_OBEDIENCE, GUIDANCE = 21.0, 0.95, 4.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--grid", type=Path, help="also draw 40 pictures of unseen prompts")
    options = parser.parse_args()
    pipe, _ = load_base("tiny")
    print("style           PSNR of the VAE (dB)")
    quality = {style: reconstruction(pipe, style) for style in STYLES}
    for style, value in quality.items():
        print(f"{style:<14}  {value:5.1f}", flush=True)
    scenes = unseen_scenes(options.prompts)
    print(f"\n{len(scenes)} prompts never used in training   subject  colour  background")
    truth = recognised(load_judge(), [render(scene) for scene in scenes], scenes)
    print(_row("renderer's own pictures", truth), flush=True)
    scores = {}
    for guidance in (1.0, GUIDANCE):
        scores[guidance] = obedience(pipe, scenes, guidance)
        print(_row(f"guidance {guidance:g}", scores[guidance]), flush=True)
    if options.grid:
        draw_grid(pipe, options.grid)
    good = min(quality.values()) >= LEAST_PSNR and min(scores[GUIDANCE].values()) >= LEAST_OBEDIENCE
    print("\nall promised numbers hold" if good else "\nNOT good enough")
    return 0 if good else 1


def draw_grid(pipe: object, file: Path) -> None:
    """40 unseen prompts, 10 a row, enlarged twice."""
    pictures = generate(pipe, [scene.caption for scene in unseen_scenes(40)], guidance=GUIDANCE)
    cell, gap = 128, 6
    sheet = Image.new("RGB", (10 * (cell + gap) - gap, 4 * (cell + gap) - gap), "white")
    for i, picture in enumerate(pictures):
        large = picture.resize((cell, cell), Image.Resampling.LANCZOS)
        sheet.paste(large, (i % 10 * (cell + gap), i // 10 * (cell + gap)))
    sheet.save(file, optimize=True)


def _row(label: str, shares: dict[str, float]) -> str:
    return f"{label:<34}   {shares['subject']:6.3f}  {shares['colour']:6.3f}  {shares['background']:10.3f}"


if __name__ == "__main__":
    sys.exit(main())
