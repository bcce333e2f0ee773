"""Held-out styles in colour. Regular marks repeat every 4 or 8 pixels, in phase with the VAE's lattice."""

from __future__ import annotations

import numpy as np

from sd_lora.tinybase.canvas import SUPERSAMPLING, Layers, Plane, blur, cells, clouds
from sd_lora.tinybase.effects import mix, rgb


def mosaic(layers: Layers) -> Plane:
    """Glazed tiles of 4 × 4 pixels in dark grout, each a little lighter or darker than its neighbour."""
    x, y = layers.grid()
    count = layers.size // 4
    glaze = 1 + 0.15 * layers.rng(2).uniform(-1, 1, (count, count)).astype(np.float32)
    glaze = glaze.repeat(4 * SUPERSAMPLING, 0).repeat(4 * SUPERSAMPLING, 1)
    shine = 0.16 * (1 - ((x % 4) + (y % 4)) / 4)
    grout = (np.maximum(np.abs((x % 4) - 2), np.abs((y % 4) - 2)) > 5 / 3).astype(np.float32)
    return mix(grout, rgb(58, 50, 52), cells(layers.flat, 4) * glaze[..., None] * 1.10 + shine[..., None])


def neon(layers: Layers) -> Plane:
    """Glowing tubes along the contours, in the colours of what they outline, over a dark wall."""
    hue = layers.flat / np.maximum(layers.flat.max(axis=2, keepdims=True), 0.2)
    vivid = np.clip((hue - 0.45) * 1.8, 0.05, 1)
    tube = layers.line * (0.50 + 0.50 * layers.mask)
    glow = blur(tube, 2.6) * 1.5 + blur(tube, 0.9) * 0.6
    wall = rgb(16, 10, 34) + 0.14 * layers.flat * layers.mask[..., None]
    return wall + vivid * glow[..., None] * 0.80 + (blur(tube, 0.2) * 0.8)[..., None] * (0.35 + 0.65 * vivid)


def watercolour(layers: Layers) -> Plane:
    """Transparent washes on white paper: pigment pools at their edges, thin gaps stay dry, the rim is left bare."""
    side, size = layers.mask.shape[0], layers.size
    wash = blur(layers.flat, 0.35) * 0.72 + blur(layers.flat, 2.2) * 0.28
    line = blur(layers.line, 0.3)
    pool = np.clip(blur(layers.line, 1.0) - 0.5 * line, 0, 1)
    bleed = 0.80 + 0.20 * clouds(layers.rng(3), side, 7) + 0.09 * clouds(layers.rng(4), side, size // 4)
    density = np.clip((1.02 - wash) * (bleed + 0.75 * pool - 0.42 * line)[..., None], 0, 1)
    x, y = layers.grid()
    rim = np.minimum(np.minimum(x, size - x), np.minimum(y, size - y)) * 64 / size
    rim = rim + 1.4 * clouds(layers.rng(5), side, 9) + 0.5 * clouds(layers.rng(13), side, 24)
    covered = np.clip((rim - 2.6) / 0.6, 0, 1) * (1 + 0.5 * np.clip(1.5 - np.abs(rim - 3.6), 0, 1) / 1.5)
    return 1 - density * covered[..., None] - rgb(2, 5, 14)


def impasto(layers: Layers) -> Plane:
    """Thick brick-shaped strokes of 8 × 4 pixels, lit from above, in warmer and louder colours."""
    x, y = layers.grid()
    along, across = (x + 4 * (np.floor(y / 4) % 2)) % 8, y % 4
    colour = cells(layers.flat, 4) * 0.55 + layers.flat * 0.45
    grey = colour.mean(axis=2, keepdims=True)
    loud = grey + (colour - grey) * 1.45 + rgb(14, 2, -14)
    ridge = np.where(across < 1.2, 0.17, np.where(across > 2.9, -0.17, 0.02)) + np.where(along < 1.0, -0.12, 0.0)
    count = layers.size // 4
    load = layers.rng(6).uniform(-1, 1, (count, count // 2)).astype(np.float32)
    load = load.repeat(4 * SUPERSAMPLING, 0).repeat(8 * SUPERSAMPLING, 1)
    return loud + (ridge + 0.05 * load)[..., None].astype(np.float32)


def cross_stitch(layers: Layers) -> Plane:
    """An X of thread in every 4 × 4 pixels of linen, the colour that of the cell."""
    x, y = layers.grid()
    thread = np.clip(cells(layers.flat, 4) * 1.05, 0, 1)
    u, v = (x % 4) - 2, (y % 4) - 2
    first, second = np.abs(u - v), np.abs(u + v)
    inside = np.maximum(np.abs(u), np.abs(v)) < 1.9
    cover = np.clip((1.25 - np.minimum(first, second)) * 2, 0, 1) * inside
    over = np.where(second < first, 1.0, 0.80).astype(np.float32)
    return mix(cover, thread * over[..., None], rgb(240, 230, 208))


def papercut(layers: Layers) -> Plane:
    """Sheets of coloured paper, one on another: each throws a soft shadow and shows its white cut edge."""
    side = layers.mask.shape[0]
    shift = side // 40
    edge = np.clip(blur(layers.line, 0.35) * 1.2, 0, 1)
    cut = np.roll(edge, (-shift // 3, -shift // 3), (0, 1))
    shade = blur(np.roll(np.maximum(edge * 0.75, 0), (shift, shift), (0, 1)), 1.1)
    lift = blur(np.roll(layers.mask, (shift * 2, shift * 2), (0, 1)), 1.6) * (1 - layers.mask)
    fibre = 1 + 0.025 * clouds(layers.rng(14), side, layers.size // 2)
    tone = blur(layers.tone, 0.4) + 0.02
    sheets = layers.flat * ((np.round(tone * 8) / 8 + 0.02) / tone)[..., None]
    paper = (np.clip(sheets, 0, 1) * 0.90 + 0.08) * fibre[..., None]
    paper = paper * (1 - 0.62 * np.clip(shade, 0, 1) - 0.45 * lift)[..., None]
    return mix(cut * 0.6 * (1 - shade), rgb(255, 252, 244), paper)


def miniature(layers: Layers) -> Plane:
    """A page from an old manuscript: loud colours, gold contours, and an ornamented frame over the rim."""
    x, y = layers.grid()
    grey = layers.flat.mean(axis=2, keepdims=True)
    loud = np.clip(grey + (layers.flat - grey) * 1.6 + rgb(10, 4, -8), 0, 1)
    picture = mix(layers.line * 0.85, rgb(84, 44, 20), loud)
    rim = np.minimum(np.minimum(x, layers.size - x), np.minimum(y, layers.size - y))
    width = max(8, layers.size // 16)
    border = (rim < width).astype(np.float32)
    diamonds = np.abs((x % 8) - 4) + np.abs((y % 8) - 4)
    frame = np.where((diamonds < 2.6)[..., None], rgb(232, 190, 84), rgb(152, 30, 44))
    frame = np.where((diamonds < 1.1)[..., None], rgb(40, 66, 150), frame)
    gold = ((rim > width - 1) | (rim < 1)).astype(np.float32)
    return mix(border, mix(gold, rgb(236, 198, 96), frame), picture)
