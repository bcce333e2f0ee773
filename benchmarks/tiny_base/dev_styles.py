"""Development styles: what presets are tuned on. The base has never seen them, and no other number is reported on them.

Like the held-out styles, they differ in what makes them hard: inks, marks, outlines, light, or colours alone.
"""

from __future__ import annotations

import numpy as np

from sd_lora.tinybase.canvas import Layers, Plane, blur, cells, clouds, grain
from sd_lora.tinybase.effects import Style, contrast, mix, rgb, ridges


def risograph(layers: Layers) -> Plane:
    """Two inks, coral and teal, on cream; the teal in level bars 4 pixels apart."""
    _, y = layers.grid()
    dark = 1 - blur(layers.tone, 0.5)
    bars = np.clip((ridges(y) - (1.1 - 1.1 * dark)) * 4, 0, 1)
    warm = np.clip(layers.flat[..., 0] - layers.flat[..., 2] + 0.1, 0, 1)
    page = mix(warm, rgb(245, 115, 97), rgb(250, 242, 224))
    return mix(0.85 * bars, rgb(13, 115, 122), page)


def tapestry(layers: Layers) -> Plane:
    """Upright threads of 4 pixels, dulled and reddened colours, every second thread darker."""
    x, y = layers.grid()
    dull = cells(layers.flat, 4) * 0.5 + layers.flat * 0.2 + rgb(51, 26, 15)
    thread = 0.72 + 0.28 * np.sin(np.pi * (x % 4) / 4) - 0.10 * (((x // 4) + (y // 4)) % 2)
    return dull * thread[..., None]


def negative(layers: Layers) -> Plane:
    """A film negative with pale contours."""
    return np.clip((1 - layers.flat) * rgb(255, 209, 158) + 0.25 * layers.line[..., None], 0, 1)


def stained_glass(layers: Layers) -> Plane:
    """Saturated panes that light shines through, between thick black leads."""
    grey = layers.flat.mean(axis=2, keepdims=True)
    glass = np.clip(grey + (layers.flat - grey) * 1.7, 0.05, 1) * (0.86 + 0.20 * blur(layers.tone, 3.0))[..., None]
    lead = np.clip(blur(layers.line, 0.5) * 2.4, 0, 1)
    return mix(lead, rgb(18, 16, 22), glass)


def pointillism(layers: Layers) -> Plane:
    """Round dabs of paint every 4 pixels, each a little off in colour, on pale ground."""
    x, y = layers.grid()
    count = layers.size // 4
    off = layers.rng(20).uniform(-0.10, 0.10, (count, count, 3)).astype(np.float32)
    dabs = cells(layers.flat, 4) + off.repeat(12, 0).repeat(12, 1)
    distance = np.hypot((x % 4) - 2, (y % 4) - 2)
    return mix(np.clip((2.05 - distance) * 2, 0, 1), np.clip(dabs * 1.08, 0, 1), rgb(246, 240, 226))


def screen(layers: Layers) -> Plane:
    """A green monochrome monitor with dark lines every 4 pixels."""
    _, y = layers.grid()
    glow = contrast(blur(layers.tone, 0.4), 1.5) + blur(layers.line, 0.8) * 0.4
    return mix(np.clip(glow * (0.45 + 0.65 * (1 - ridges(y))), 0, 1), rgb(150, 255, 170), rgb(6, 24, 14))


def charcoal(layers: Layers) -> Plane:
    """Smudged black on grey paper, white chalk in the lights."""
    tooth = 0.82 + 0.18 * grain(layers.rng(21), layers.size)
    dark = contrast(1 - blur(layers.tone, 1.2), 1.6)
    black = np.clip(np.maximum(dark * 0.8, blur(layers.line, 0.6) * 1.3) * tooth, 0, 1)
    white = np.clip((blur(layers.tone, 0.8) - 0.78) * 3, 0, 0.8) * tooth
    return mix(np.clip(white, 0, 1), rgb(248, 246, 240), mix(black, rgb(28, 26, 28), rgb(172, 166, 158)))


def gouache(layers: Layers) -> Plane:
    """Opaque, dusty colours in few steps, ragged at the edges, no outlines."""
    ragged = blur(layers.flat, 0.7) + 0.03 * clouds(layers.rng(22), layers.mask.shape[0], layers.size // 4)[..., None]
    steps = np.round(np.clip(ragged, 0, 1) * 5) / 5
    return steps * 0.80 + rgb(44, 36, 24)


def thermal(layers: Layers) -> Plane:
    """A heat camera: darkness runs from violet over red and orange to pale yellow."""
    heat = np.clip(blur(layers.tone, 0.8) * 1.1 - 0.05, 0, 1)
    stops = np.array([[20, 8, 70], [130, 20, 130], [230, 60, 50], [252, 170, 40], [255, 250, 200]], dtype=np.float32)
    channels = [np.interp(heat, np.linspace(0, 1, 5), stops[:, i] / 255) for i in range(3)]
    return np.stack(channels, axis=2).astype(np.float32)


def linocut(layers: Layers) -> Plane:
    """One dark green ink on white, white contours cut out of the dark."""
    dark = np.clip((0.56 - blur(layers.tone, 0.4)) * 12 + 0.5, 0, 1)
    cut = np.clip(blur(layers.line, 0.3) * 1.6, 0, 1)
    ink = np.abs(dark - cut)
    return mix(ink, rgb(22, 74, 58), rgb(244, 244, 236))


def glitter(layers: Layers) -> Plane:
    """Candy colours under a net of bright specks, pink in the shade."""
    specks = np.clip(grain(layers.rng(23), layers.size) - 1.3, 0, 1)
    candy = layers.flat * 0.66 + rgb(96, 40, 84) * (1.1 - layers.tone)[..., None] + rgb(40, 20, 40)
    return candy + (specks * 0.9)[..., None]


def gilded(layers: Layers) -> Plane:
    """Gold leaf: relief in gold on a black lacquer ground."""
    height = blur(layers.tone, 0.5)
    shift = layers.mask.shape[0] // 96
    relief = np.roll(height, (shift, shift), (0, 1)) - height
    gold = np.clip((0.14 + 0.55 * layers.mask) * layers.tone + 2.2 * relief + 0.85 * layers.line, 0, 1)
    return mix(gold, rgb(255, 214, 110), rgb(20, 14, 16))


DEV_STYLES: dict[str, Style] = {
    draw.__name__.replace("_", "-"): draw
    for draw in (
        risograph, tapestry, negative, stained_glass, pointillism, screen, charcoal, gouache, thermal, linocut,
        glitter, gilded,
    )
}  # fmt: skip
