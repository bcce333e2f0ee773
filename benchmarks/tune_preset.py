"""Find the embedded base's preset by measurement, on *dev* styles that no other number is reported on.

    python benchmarks/tune_preset.py OUT [CANDIDATE …] [--styles risograph …] [--processes 2]

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
from tiny_base.dev_styles import DEV_STYLES

from sd_lora import Adapter, load_base, load_config, train
from sd_lora.evaluation.tiny_measures import measure_style
from sd_lora.tinybase.folder import TRIGGER, demo_scenes, write_captioned_folder

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
    parser.add_argument("--styles", nargs="+", default=["risograph", "tapestry", "negative"], choices=DEV_STYLES)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    for style in options.styles:
        if not (options.out / style).exists():
            write_captioned_folder(options.out / style, DEV_STYLES[style], demo_scenes())
    print("| candidate | closed at .5 | closed at 1 | by style | subject, background kept | seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    with ProcessPoolExecutor(options.processes, get_context("spawn"), one_thread) as pool:
        waiting = {
            c: [pool.submit(measure, options.out, c, style) for style in options.styles] for c in options.candidates
        }
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
