"""Draws the world for the eye: subjects by colour, backgrounds by light, pairs, and every style.

    python -m benchmarks.tiny_base.contact_sheet OUT [--size 128]

Writes subjects.png, backgrounds.png, pairs.png and styles.png into OUT.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from benchmarks.tiny_base.dev_styles import DEV_STYLES
from sd_lora.tinybase.styles import SIZE, STYLES, Style, render
from sd_lora.tinybase.world import BACKGROUNDS, COLOURS, LIGHTS, SUBJECTS, Scene, sample_scene

Cell = tuple[Scene, str | Style]


def subjects() -> list[list[Cell]]:
    """One row a subject, one column a colour, on the plain background."""
    return [
        [(Scene(subject, colour, BACKGROUNDS[0], "big", seed=8 * row + column), "flat")
         for column, colour in enumerate(COLOURS)]
        for row, subject in enumerate(SUBJECTS)
    ]  # fmt: skip


def backgrounds() -> list[list[Cell]]:
    """One row a background, four scenes by day and four at dusk."""
    rows: list[list[Cell]] = []
    for row, background in enumerate(BACKGROUNDS):
        lights = [light for light in LIGHTS if not (light and background == "at night")]
        scenes = [
            Scene(SUBJECTS[(5 * row + i) % len(SUBJECTS)], COLOURS[(row + i) % 8], background, seed=i, light=light)
            for light in lights
            for i in range(4)
        ]
        rows.append([(scene, "flat") for scene in scenes])
    return rows


def pairs() -> list[list[Cell]]:
    return [[(sample_scene(8 * row + column, pair=True), "flat") for column in range(8)] for row in range(6)]


def styles() -> list[list[Cell]]:
    """One row a style, the development styles last."""
    scenes = [sample_scene(seed) for seed in (3, 14, 25, 31, 46, 52, 60, 77)]
    return [[(scene, style) for scene in scenes] for style in (*STYLES, *DEV_STYLES.values())]


def sheet(rows: list[list[Cell]], size: int) -> Image.Image:
    """The cells drawn at `size`, with a gap of 4 pixels."""
    step = size + 4
    page = Image.new("RGB", (max(map(len, rows)) * step, len(rows) * step), "white")
    for top, row in enumerate(rows):
        for left, (scene, style) in enumerate(row):
            page.paste(render(scene, style, size), (left * step, top * step))
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=SIZE)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for make in (subjects, backgrounds, pairs, styles):
        sheet(make(), options.size).save(options.out / f"{make.__name__}.png")


if __name__ == "__main__":
    main()
