"""The styles: functions of a picture's layers. Six the base is trained on, fifteen it has never seen.

Last step of the renderer. `render(scene, style)` is a pure function; the same scene in every style has the same shapes
in the same places.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from sd_lora.tinybase import crafts, prints
from sd_lora.tinybase.canvas import Layers, Plane, blur, clouds, finish, rasterise, rasterise_mask
from sd_lora.tinybase.drawing import shapes_of
from sd_lora.tinybase.effects import Style
from sd_lora.tinybase.world import Scene

SIZE = 128


def render(scene: Scene, style: str | Style = "flat", size: int = SIZE) -> Image.Image:
    """`scene` drawn in `style` (a name or a function) as an RGB image of `size` × `size` pixels (a
    multiple of 64)."""
    draw = STYLES[style] if isinstance(style, str) else style
    return finish(draw(rasterise(shapes_of(scene), size, scene.seed)))


def render_mask(scene: Scene, size: int = SIZE, subject: int | None = None) -> Image.Image:
    """The subjects of `scene`, or only its first (1) or second (2), as a grey image: 255 inside."""
    mask = rasterise_mask(shapes_of(scene), size, (1, 2) if subject is None else (subject,))
    return finish(np.repeat(mask[..., None], 3, axis=2)).convert("L")


def _soft(layers: Layers) -> Plane:
    """Rounded bodies lit from the upper left, a shadow behind them, the land darker towards us."""
    height = blur(layers.mask, 3.6)
    shift = layers.mask.shape[0] // 24
    light = np.roll(height, (shift, shift), (0, 1)) - np.roll(height, (-shift, -shift), (0, 1))
    ramp = 1.05 - 0.18 * layers.grid()[1] / layers.size
    lit = layers.flat * ramp[..., None] - (light * layers.mask * 0.6)[..., None]
    shadow = blur(np.roll(layers.mask, (shift, shift), (0, 1)), 1.5) * (1 - layers.mask)
    return lit * (1 - 0.30 * shadow)[..., None]


def _pastel(layers: Layers) -> Plane:
    """Chalky, pale colours whose edges smudge on rough paper."""
    side = layers.mask.shape[0]
    paper = 1 + 0.03 * clouds(layers.rng(1), side, layers.size // 4)
    soft = blur(layers.flat, 0.4) * 0.62 + 0.36
    return soft * paper[..., None]


def _grey(layers: Layers) -> Plane:
    return np.repeat(layers.tone[..., None], 3, axis=2)


STYLES: dict[str, Style] = {
    "flat": lambda layers: layers.flat,
    "soft": _soft,
    "ink": lambda layers: layers.flat * (1 - layers.line)[..., None],
    "pastel": _pastel,
    "line": lambda layers: np.repeat((1 - 0.92 * layers.line)[..., None], 3, axis=2),
    "grey": _grey,
    "hatching": prints.hatching, "mosaic": crafts.mosaic, "neon": crafts.neon, "watercolour": crafts.watercolour,
    "halftone": prints.halftone, "woodcut": prints.woodcut, "blueprint": prints.blueprint,
    "impasto": crafts.impasto, "chalkboard": prints.chalkboard, "sepia": prints.sepia,
    "cross-stitch": crafts.cross_stitch, "papercut": crafts.papercut, "poster": prints.poster,
    "pencil": prints.pencil, "miniature": crafts.miniature,
}  # fmt: skip
