"""One fixed recipe on the eleven styles the embedded base has never seen: is each learned, is the content kept?

    python benchmarks/held_out_styles.py OUT [section.key=value …] [--styles neon woodcut …]

For every style: 12 pictures, the shipped preset, fixed seed. Prints the share of the style's distance closed at
strengths 0.5 and 1 on unseen prompts, and the subjects and backgrounds recognised relative to the base; draws all
styles on one sheet. Adapters already in OUT are measured, not trained again. Exit code 1 if a promised number fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from sd_lora import Adapter, load_base
from sd_lora.commands.demo import train_demo
from sd_lora.evaluation.tiny_measures import StyleMeasure, generate, measure_style, unseen_scenes
from sd_lora.preview.sheet import draw_sheet
from sd_lora.tinybase.folder import TRIGGER
from sd_lora.tinybase.styles import render
from sd_lora.tinybase.world import HELD_OUT_STYLES

SUFFIX = f", in {TRIGGER} style"
MEAN_CLOSED, WORST_CLOSED, CONTENT_KEPT = 0.60, 0.35, 0.90
STRENGTHS = (0.0, 0.5, 1.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--styles", nargs="+", default=list(HELD_OUT_STYLES), choices=HELD_OUT_STYLES)
    parser.add_argument("--prompts", type=int, default=48)
    options = parser.parse_args()
    pipe, _ = load_base("tiny")
    table: dict[str, list[StyleMeasure]] = {}
    print("style          closed at .5  closed at 1  subject kept  background kept  train s", flush=True)
    for style in options.styles:
        started = time.monotonic()
        file = options.out / style / "run" / "adapter.safetensors"
        if not file.exists():
            train_demo(options.out / style, style, ("preview.every=0", *options.overrides))
        seconds = time.monotonic() - started
        table[style] = measure_style(
            pipe, Adapter.load(file), style, SUFFIX, strengths=STRENGTHS, count=options.prompts
        )
        print(_row(style, table[style], seconds), flush=True)
    (options.out / "styles.json").write_text(
        json.dumps({style: [asdict(m) for m in rows] for style, rows in table.items()}, indent=2), "utf-8"
    )
    draw(pipe, options.out, options.styles).save(options.out / "styles.png", optimize=True)
    return verdict(table)


def verdict(table: dict[str, list[StyleMeasure]]) -> int:
    """Print the summary; 0 if every promised number holds."""
    closed = [rows[-1].closed for rows in table.values()]
    kept = [_kept(rows, name) for rows in table.values() for name in ("subject", "background")]
    growing = [style for style, rows in table.items() if not rows[0].distance > rows[1].distance > rows[2].distance]
    mean, worst, content = sum(closed) / len(closed), min(closed), sum(kept) / len(kept)
    print(f"\nclosed at strength 1: mean {mean:.2f}, worst {worst:.2f}; content kept: mean {content:.2f}")
    print("not growing from 0 to 1: " + (", ".join(growing) or "none"))
    good = mean >= MEAN_CLOSED and worst >= WORST_CLOSED and content >= CONTENT_KEPT and not growing
    print("all promised numbers hold" if good else "NOT good enough")
    return 0 if good else 1


def draw(pipe: Any, out: Path, styles: list[str]) -> Image.Image:
    """Four unseen prompts: what the renderer draws in the style, and what the adapter draws at three strengths."""
    scenes = unseen_scenes(2, first=8_500_000)
    titles = [title for _ in scenes for title in ("reference", *(f"strength {s:g}" for s in STRENGTHS))]
    rows = []
    for style in styles:
        adapter, cells = Adapter.load(out / style / "run" / "adapter.safetensors"), []
        for scene in scenes:
            cells.append(render(scene, style))
            for strength in STRENGTHS:
                with adapter.injected(pipe, strength):
                    cells += generate(pipe, [scene.caption + SUFFIX])
        rows.append(cells)
    return draw_sheet(rows, titles, styles)


def _kept(rows: list[StyleMeasure], name: str) -> float:
    return getattr(rows[-1], name) / getattr(rows[0], name)


def _row(style: str, rows: list[StyleMeasure], seconds: float) -> str:
    kept = f"{_kept(rows, 'subject'):12.2f}  {_kept(rows, 'background'):15.2f}"
    return f"{style:<13}  {rows[1].closed:12.2f}  {rows[-1].closed:11.2f}  {kept}  {seconds:7.0f}"


if __name__ == "__main__":
    sys.exit(main())
