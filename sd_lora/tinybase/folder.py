"""A captioned folder of pictures drawn by the renderer: what the demo trains on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sd_lora.tinybase.styles import Style, render
from sd_lora.tinybase.world import Scene, sample_scene

IMAGES = 12
#: the trigger word of the demo
TRIGGER = "xlora"
_SEED = 11_000_000


def demo_scenes(count: int = IMAGES) -> list[Scene]:
    """The scenes of the demo's training pictures; none has the content of a prompt that measures it."""
    return [sample_scene(_SEED + i) for i in range(count)]


def write_captioned_folder(folder: Path, style: str | Style, scenes: Sequence[Scene]) -> None:
    """Write `scenes` drawn in `style` as ``01.png`` + ``01.txt`` …"""
    folder.mkdir(parents=True)
    for number, scene in enumerate(scenes, 1):
        render(scene, style).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(scene.caption + "\n", "utf-8")
