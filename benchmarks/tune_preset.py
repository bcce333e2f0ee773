"""Find the embedded base's preset by measurement, on three *dev* styles that no other number is reported on.

    python benchmarks/tune_preset.py OUT CANDIDATE [CANDIDATE …]

A candidate is a comma-joined list of overrides, such as ``optimizer.learning_rate=4e-3,lora.rank=8``; an empty string
is the shipped preset. Prints, per candidate and style, the share of the style distance closed at strengths 0.5 and 1,
and the content kept at 1.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from sd_lora import Adapter, load_base, load_config, train
from sd_lora.demo import TRIGGER, demo_scenes, write_captioned_folder
from sd_lora.evaluation.tiny_measures import measure_style
from sd_lora.tinybase.canvas import Layers, Plane, blur, cells
from sd_lora.tinybase.styles import Style


def risograph(layers: Layers) -> Plane:
    """Two inks, coral and teal, on cream; the teal in level bars 4 pixels apart."""
    _, y = layers.grid()
    dark = 1 - blur(layers.tone, 0.5)
    bars = np.clip((np.abs((y % 4) / 4 - 0.5) * 2 - (1.1 - 1.1 * dark)) * 4, 0, 1)[..., None]
    warm = np.clip(layers.flat[..., :1] - layers.flat[..., 2:] + 0.1, 0, 1)
    page = np.array([0.98, 0.95, 0.88]) * (1 - warm) + np.array([0.96, 0.45, 0.38]) * warm
    return (page * (1 - 0.85 * bars) + np.array([0.05, 0.45, 0.48]) * 0.85 * bars).astype(np.float32)


def tapestry(layers: Layers) -> Plane:
    """Upright threads of 4 pixels, dulled and reddened colours, every second thread darker."""
    x, y = layers.grid()
    dull = cells(layers.flat, 16) * 0.5 + layers.flat * 0.2 + np.array([0.20, 0.10, 0.06], dtype=np.float32)
    thread = 0.72 + 0.28 * np.sin(np.pi * (x % 4) / 4) - 0.10 * (((x // 4) + (y // 4)) % 2)
    return (dull * thread[..., None]).astype(np.float32)


def negative(layers: Layers) -> Plane:
    """A film negative with pale contours."""
    return np.clip((1 - layers.flat) * np.array([1.0, 0.82, 0.62]) + 0.25 * layers.line[..., None], 0, 1).astype(
        np.float32
    )


DEV_STYLES: dict[str, Style] = {"risograph": risograph, "tapestry": tapestry, "negative": negative}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("candidates", nargs="+")
    options = parser.parse_args()
    pipe, _ = load_base("tiny")
    for style, draw in DEV_STYLES.items():
        if not (options.out / style).exists():
            write_captioned_folder(options.out / style, draw, demo_scenes())
    print("closed at .5, 1; subject, background kept at 1; seconds")
    for number, candidate in enumerate(options.candidates):
        shares = []
        for style, draw in DEV_STYLES.items():
            run = options.out / f"run-{int(time.time())}-{number}-{style}"
            paths = (f"data.folder={json.dumps(str(options.out / style))}", f"output.folder={json.dumps(str(run))}")
            overrides = [text for text in candidate.split(",") if text]
            started = time.monotonic()
            train(load_config("tiny-style", *paths, f"data.trigger={TRIGGER}", "preview.every=0", *overrides))
            seconds = time.monotonic() - started
            adapter = Adapter.load(run / "adapter.safetensors")
            rows = measure_style(pipe, adapter, draw, f", in {TRIGGER} style", count=24)
            kept = (rows[-1].subject / rows[0].subject, rows[-1].background / rows[0].background)
            shares.append((rows[1].closed, rows[-1].closed, *kept))
            print(f"  {style:<10} " + " ".join(f"{v:5.2f}" for v in shares[-1]) + f"  {seconds:.0f} s", flush=True)
        print(f"{candidate or 'preset'}: mean " + " ".join(f"{v:5.2f}" for v in np.mean(shares, axis=0)), flush=True)


if __name__ == "__main__":
    main()
