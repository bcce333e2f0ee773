"""The styles: functions of a picture's layers. Six the base is trained on, eleven it has never seen.

Last step of the renderer. `render(scene, style)` is a pure function; the same scene in every style has the same shapes
in the same places. Regular textures repeat every 4 or 8 pixels, in phase with the VAE's lattice.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

from sd_lora.tinybase.canvas import Layers, Plane, blur, cells, clouds, finish, rasterise
from sd_lora.tinybase.drawing import shapes_of
from sd_lora.tinybase.world import Scene

SIZE = 64
Style = Callable[[Layers], Plane]


def render(scene: Scene, style: str | Style = "flat", size: int = SIZE) -> Image.Image:
    """`scene` drawn in `style` (a name or a function) as an RGB image of `size` × `size` pixels (a
    multiple of 64)."""
    draw = STYLES[style] if isinstance(style, str) else style
    return finish(draw(rasterise(shapes_of(scene), size, scene.seed)))


def render_mask(scene: Scene, size: int = SIZE) -> Image.Image:
    """The subject of `scene` as a grey image: 255 inside."""
    layers = rasterise(shapes_of(scene), size, scene.seed)
    return finish(np.repeat(layers.mask[..., None], 3, axis=2)).convert("L")


def _rgb(*values: int) -> Plane:
    return np.array(values, dtype=np.float32) / np.float32(255)


def _mix(weight: Plane, inside: Plane, outside: Plane) -> Plane:
    """`inside` where `weight` (h, w) is 1, `outside` where it is 0; both broadcast to (h, w, 3)."""
    weight = weight[..., None]
    return weight * inside + (1 - weight) * outside


# ---- base styles


def _soft(layers: Layers) -> Plane:
    height = blur(layers.mask, 4.0)
    shift = layers.mask.shape[0] // 24
    light = np.roll(height, (shift, shift), (0, 1)) - np.roll(height, (-shift, -shift), (0, 1))
    ramp = 1.04 - 0.16 * layers.grid()[1] / 64
    lit = layers.flat * ramp[..., None] - (light * layers.mask * 0.55)[..., None]
    shadow = blur(np.roll(layers.mask, (shift, shift), (0, 1)), 1.5) * (1 - layers.mask)
    return lit * (1 - 0.28 * shadow)[..., None]


def _pastel(layers: Layers) -> Plane:
    paper = 1 + 0.05 * clouds(layers.rng(1), layers.mask.shape[0], 32)
    soft = blur(layers.flat, 0.5) * 0.50 + 0.47
    return soft * paper[..., None]


# ---- held-out styles


def _hatching(layers: Layers) -> Plane:
    """Pen strokes on warm paper: one direction in the light, crossed in the shade, tone by thickness."""
    x, y = layers.grid()
    dark = 1 - blur(layers.tone, 0.6)
    stroke = np.abs(((x + y) % 4) / 4 - 0.5) * 2
    cross = np.abs(((x - y) % 4) / 4 - 0.5) * 2
    ink = np.clip((stroke - (1.12 - 0.75 * dark)) * 5, 0, 1)
    ink = np.maximum(ink, np.clip((cross - (1.40 - 0.75 * dark)) * 5, 0, 1))
    ink = np.maximum(ink, layers.line)
    return _mix(ink * 0.86, _rgb(44, 36, 66), _rgb(250, 243, 226))


def _mosaic(layers: Layers) -> Plane:
    """Glazed tiles of 4 × 4 pixels in dark grout, each a little lighter or darker than its neighbour."""
    x, y = layers.grid()
    tiles = cells(layers.flat, 16)
    glaze = 1 + 0.14 * layers.rng(2).uniform(-1, 1, (16, 16)).astype(np.float32)
    tiles = tiles * glaze.repeat(tiles.shape[0] // 16, 0).repeat(tiles.shape[0] // 16, 1)[..., None]
    shine = 0.14 * (1 - ((x % 4) + (y % 4)) / 4)
    grout = np.maximum(np.abs((x % 4) - 2), np.abs((y % 4) - 2)) > 5 / 3
    return _mix(grout.astype(np.float32), _rgb(58, 50, 52), tiles * 1.10 + shine[..., None])


def _neon(layers: Layers) -> Plane:
    """Glowing tubes along the contours, in the colours of what they outline, over a dark wall."""
    hue = layers.flat / np.maximum(layers.flat.max(axis=2, keepdims=True), 0.2)
    vivid = np.clip((hue - 0.45) * 1.8, 0.05, 1)
    tube = layers.line * (0.55 + 0.45 * layers.mask)
    glow = blur(tube, 2.6) * 1.5 + blur(tube, 1.0) * 0.6
    wall = _rgb(16, 10, 34) + 0.10 * layers.flat * layers.mask[..., None]
    return wall + vivid * glow[..., None] * 0.75 + (tube * 0.75)[..., None] * (0.35 + 0.65 * vivid)


def _watercolour(layers: Layers) -> Plane:
    """Washes that bleed and pool at their edges, on white paper left bare around the rim."""
    side = layers.mask.shape[0]
    wash = blur(layers.flat, 1.4)
    pool = np.clip(blur(layers.line, 0.8) * 0.32, 0, 1)
    bleed = 1 + 0.20 * clouds(layers.rng(3), side, 7) + 0.06 * clouds(layers.rng(4), side, 24)
    density = np.clip((1 - wash) * (0.80 * bleed + pool)[..., None], 0, 1)
    x, y = layers.grid()
    rim = np.minimum(np.minimum(x, 64 - x), np.minimum(y, 64 - y)) + 1.5 * clouds(layers.rng(5), side, 9)
    covered = np.clip((rim - 3.0) / 1.5, 0, 1)
    return 1 - density * covered[..., None] - _rgb(2, 5, 14)


def _halftone(layers: Layers) -> Plane:
    """Comic print: one dot every 4 pixels in pure ink, its size the darkness, black contours, yellowed paper."""
    x, y = layers.grid()
    colour = cells(layers.flat, 16)
    ink = np.clip((colour - colour.min(axis=2, keepdims=True) * 0.85) * 1.15, 0, 1)
    dark = 1 - cells(layers.tone, 16)
    saturation = colour.max(axis=2) - colour.min(axis=2)
    coverage = np.clip(0.10 + 0.55 * dark + 0.50 * saturation, 0.06, 0.95)
    radius = np.sqrt(coverage) * 2.35
    distance = np.hypot((x % 4) - 2, (y % 4) - 2)
    dot = np.clip((radius - distance) * 1.6 + 0.5, 0, 1)
    page = _mix(dot, ink, _rgb(253, 244, 214))
    return page * (1 - 0.85 * layers.line * layers.mask)[..., None]


def _woodcut(layers: Layers) -> Plane:
    """Black ink on ochre paper: the shade is carved in level grooves 4 pixels apart."""
    x, y = layers.grid()
    dark = 1 - blur(layers.tone, 0.5)
    groove = np.abs(((y + 0.7 * np.sin(x * (2 * np.pi / 16))) % 4) / 4 - 0.5) * 2
    ink = np.clip((groove - (1.06 - 1.25 * dark)) * 4, 0, 1)
    ink = np.maximum(ink, np.clip(blur(layers.line, 0.3) * 1.6, 0, 1))
    return _mix(ink, _rgb(38, 22, 20), _rgb(232, 186, 118))


def _blueprint(layers: Layers) -> Plane:
    """White drafting lines on blue paper with a faint grid every 8 pixels."""
    x, y = layers.grid()
    lattice = ((np.minimum(x % 8, 8 - x % 8) < 0.5) | (np.minimum(y % 8, 8 - y % 8) < 0.5)).astype(np.float32)
    paper = _mix(lattice * 0.24, _rgb(190, 215, 250), _rgb(24, 70, 158))
    paper = paper + (0.10 * layers.mask * layers.tone)[..., None]
    return _mix(layers.line * 0.95, _rgb(240, 246, 255), paper)


def _impasto(layers: Layers) -> Plane:
    """Thick brick-shaped strokes of 8 × 4 pixels, lit from above, in warmer and louder colours."""
    x, y = layers.grid()
    row = np.floor(y / 4)
    along = (x + 4 * (row % 2)) % 8
    across = y % 4
    colour = cells(layers.flat, 16) * 0.55 + layers.flat * 0.45
    grey = colour.mean(axis=2, keepdims=True)
    loud = grey + (colour - grey) * 1.45 + _rgb(14, 2, -14)
    ridge = np.where(across < 1.2, 0.17, np.where(across > 2.9, -0.17, 0.02))
    ridge = ridge + np.where(along < 1.0, -0.12, 0.0)
    bristle = 0.05 * clouds(layers.rng(6), layers.mask.shape[0], 16)
    return loud + (ridge + bristle)[..., None].astype(np.float32)


def _chalkboard(layers: Layers) -> Plane:
    """White chalk on a green board: bold contours, the subject rubbed in, dust around it."""
    x, y = layers.grid()
    side = layers.mask.shape[0]
    dust = 0.05 * clouds(layers.rng(7), side, 6)
    board = _rgb(40, 66, 56) + dust[..., None]
    rub = (0.40 + 0.25 * np.sin((x + y) * (2 * np.pi / 4))) * layers.mask * layers.tone
    chalk = np.clip(layers.line * (0.92 + 0.15 * clouds(layers.rng(8), side, 32)), 0, 1)
    return _mix(np.clip(np.maximum(chalk, rub * 0.75), 0, 1), _rgb(240, 240, 228), board)


def _sepia(layers: Layers) -> Plane:
    """An old photograph: brown tones, dark corners, fine grain."""
    x, y = layers.grid()
    tone = np.clip((blur(layers.tone, 0.5) - 0.5) * 1.25 + 0.52, 0, 1)
    corner = np.clip(1.10 - 0.55 * (((x - 32) ** 2 + (y - 32) ** 2) / 1400), 0.30, 1.0)
    grain = 0.055 * layers.rng(9).standard_normal((64, 64)).astype(np.float32)
    step = layers.mask.shape[0] // 64
    tone = tone * corner + grain.repeat(step, 0).repeat(step, 1)
    return _mix(np.clip(tone, 0, 1), _rgb(255, 236, 198), _rgb(46, 24, 12))


def _cross_stitch(layers: Layers) -> Plane:
    """An X of thread in every 4 × 4 pixels of linen, the colour that of the cell."""
    x, y = layers.grid()
    thread = np.clip(cells(layers.flat, 16) * 1.05, 0, 1)
    u, v = (x % 4) - 2, (y % 4) - 2
    first, second = np.abs(u - v), np.abs(u + v)
    inside = np.maximum(np.abs(u), np.abs(v)) < 1.9
    cover = np.clip((1.25 - np.minimum(first, second)) * 2, 0, 1) * inside
    over = np.where(second < first, 1.0, 0.80).astype(np.float32)
    return _mix(cover, thread * over[..., None], _rgb(240, 230, 208))


STYLES: dict[str, Style] = {
    "flat": lambda layers: layers.flat,
    "soft": _soft,
    "ink": lambda layers: layers.flat * (1 - layers.line)[..., None],
    "pastel": _pastel,
    "line": lambda layers: np.repeat((1 - 0.92 * layers.line)[..., None], 3, axis=2),
    "grey": lambda layers: np.repeat(layers.tone[..., None], 3, axis=2),
    "hatching": _hatching, "mosaic": _mosaic, "neon": _neon, "watercolour": _watercolour, "halftone": _halftone,
    "woodcut": _woodcut, "blueprint": _blueprint, "impasto": _impasto, "chalkboard": _chalkboard, "sepia": _sepia,
    "cross-stitch": _cross_stitch,
}  # fmt: skip
