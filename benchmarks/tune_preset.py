"""Find the embedded base's preset by measurement, on three *dev* styles that no other number is reported on.

    python benchmarks/tune_preset.py OUT [CANDIDATE …] [--processes 2]

A candidate is a comma-joined list of overrides, such as ``optimizer.learning_rate=4e-3,lora.rank=8``; an empty string
is the shipped preset. Without candidates it is the gate: the shipped preset must lie within one standard error of the
best. Prints, per candidate, the share of the style distance closed at strengths 0.5 and 1, and the content kept at 1.
What is trained in OUT already is measured, not trained again.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from sd_lora import Adapter, load_base, load_config, train
from sd_lora.evaluation.tiny_measures import measure_style
from sd_lora.tinybase.canvas import Layers, Plane, blur, cells
from sd_lora.tinybase.folder import TRIGGER, demo_scenes, write_captioned_folder
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


#: what the recipe is tried against, one thing at a time: noise levels, rank, modules, rate, weighting
GATE = (
    "",
    "training.timesteps=mixed",
    "training.timesteps=mixed,training.log_snr_mean=-6",
    "training.weighting=min-snr",
    "lora.rank=4",
    "lora.rank=64,lora.alpha=64",
    "lora.targets=[attn]",
    "lora.targets=[attn+ff]",
    "optimizer.learning_rate=2e-3",
    "optimizer.learning_rate=8e-3",
)


@dataclass(frozen=True)
class Cell:
    """What one candidate reached on one style: closed at strengths .5 and 1, subjects and backgrounds kept at 1."""

    half: float
    closed: float
    subject: float
    background: float
    seconds: float


def overrides_of(candidate: str) -> list[str]:
    """The overrides of a candidate; a list stands in brackets, joined by ``+``."""
    return [text.replace("[", '["').replace("+", '","').replace("]", '"]') for text in candidate.split(",") if text]


def measure(out: Path, candidate: str, style: str) -> Cell:
    """Train `candidate` on `style` unless that is done already, and measure it on 24 unseen prompts."""
    name = "-".join(part.split(".")[-1] for part in candidate.split(",") if part) or "preset"
    run = out / f"{name.replace('=', '')}-{style}"
    paths = (f"data.folder={json.dumps(str(out / style))}", f"output.folder={json.dumps(str(run))}")
    started = time.monotonic()
    if not (run / "adapter.safetensors").exists():
        plain = (f"data.trigger={TRIGGER}", "preview.every=0")
        train(load_config("tiny-style", *paths, *plain, *overrides_of(candidate)))
    seconds = time.monotonic() - started
    pipe, _ = load_base("tiny")
    adapter = Adapter.load(run / "adapter.safetensors")
    rows = measure_style(pipe, adapter, DEV_STYLES[style], f", in {TRIGGER} style", count=24)
    kept = (rows[-1].subject / rows[0].subject, rows[-1].background / rows[0].background)
    return Cell(rows[1].closed, rows[-1].closed, *kept, seconds)


def one_thread() -> None:
    torch.set_num_threads(1)  # two processes of one thread beat one of two


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("candidates", nargs="*", default=list(GATE))
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    for style, draw in DEV_STYLES.items():
        if not (options.out / style).exists():
            write_captioned_folder(options.out / style, draw, demo_scenes())
    print("| candidate | closed at .5 | closed at 1 | by style | subject, background kept | seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    with ProcessPoolExecutor(options.processes, get_context("spawn"), one_thread) as pool:
        waiting = {c: [pool.submit(measure, options.out, c, style) for style in DEV_STYLES] for c in options.candidates}
        for candidate, futures in waiting.items():
            print(row(candidate, [future.result() for future in futures]), flush=True)


def row(candidate: str, cells: list[Cell]) -> str:
    """One line of the table: means over the styles, the standard error of the share closed, and each style's."""
    closed = [cell.closed for cell in cells]
    error = np.std(closed, ddof=1) / len(closed) ** 0.5
    half, subject, background = (np.mean([getattr(c, k) for c in cells]) for k in ("half", "subject", "background"))
    each = " ".join(f"{value:.2f}" for value in closed)
    seconds = sum(cell.seconds for cell in cells)
    return (
        f"| {candidate or 'as shipped'} | {half:.2f} | {np.mean(closed):.3f} ± {error:.3f} | {each} "
        f"| {subject:.2f}, {background:.2f} | {seconds:.0f} |"
    )


if __name__ == "__main__":
    main()
