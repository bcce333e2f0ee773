"""Held-out styles of ink, chalk and paper; regular marks repeat every 4 or 8 pixels, on the VAE's lattice."""

from __future__ import annotations

import numpy as np

from sd_lora.tinybase.canvas import Layers, Plane, blur, cells, clouds, grain
from sd_lora.tinybase.effects import contrast, mix, rgb, ridges


def hatching(layers: Layers) -> Plane:
    """Pen strokes on warm paper: one direction in the light, crossed in the shade, tone by thickness."""
    x, y = layers.grid()
    dark = 1 - blur(layers.tone, 0.4)
    ink = np.clip((ridges(x + y) - (1.12 - 0.75 * dark)) * 5, 0, 1)
    ink = np.maximum(ink, np.clip((ridges(x - y) - (1.40 - 0.75 * dark)) * 5, 0, 1))
    ink = np.maximum(ink, layers.line)
    return mix(ink * 0.88, rgb(44, 36, 66), rgb(250, 243, 226))


def halftone(layers: Layers) -> Plane:
    """Comic print: one dot every 4 pixels in pure ink, its size the darkness, black contours, yellowed paper."""
    x, y = layers.grid()
    colour = cells(layers.flat, 4)
    ink = np.clip((colour - colour.min(axis=2, keepdims=True) * 0.85) * 1.15, 0, 1)
    saturation = colour.max(axis=2) - colour.min(axis=2)
    coverage = np.clip(0.10 + 0.55 * (1 - cells(layers.tone, 4)) + 0.50 * saturation, 0.06, 0.95)
    distance = np.hypot((x % 4) - 2, (y % 4) - 2)
    dot = np.clip((np.sqrt(coverage) * 2.35 - distance) * 1.6 + 0.5, 0, 1)
    page = mix(dot, ink, rgb(253, 244, 214))
    return page * (1 - 0.88 * layers.line * np.maximum(layers.mask, 0.5))[..., None]


def woodcut(layers: Layers) -> Plane:
    """Black ink on ochre paper: the shade is carved in waving grooves 4 pixels apart, contours cut deep."""
    x, y = layers.grid()
    dark = 1 - blur(layers.tone, 0.3)
    groove = ridges(y + 0.7 * np.sin(x * (2 * np.pi / 16)))
    ink = np.clip((groove - (1.08 - 1.25 * dark)) * 4, 0, 1)
    ink = np.maximum(ink, np.clip(blur(layers.line, 0.25) * 1.8, 0, 1))
    return mix(ink, rgb(38, 22, 20), rgb(232, 186, 118))


def blueprint(layers: Layers) -> Plane:
    """White drafting lines on blue paper with a faint grid every 8 pixels, every fourth line stronger."""
    x, y = layers.grid()
    fine = np.maximum(ridges(x, 8) > 0.875, ridges(y, 8) > 0.875).astype(np.float32)
    strong = np.maximum(ridges(x, 32) > 0.969, ridges(y, 32) > 0.969).astype(np.float32)
    paper = mix(np.maximum(fine * 0.20, strong * 0.36), rgb(190, 215, 250), rgb(24, 70, 158))
    paper = paper + (0.13 * layers.mask * layers.tone)[..., None]
    return mix(layers.line * 0.95, rgb(240, 246, 255), paper)


def chalkboard(layers: Layers) -> Plane:
    """White chalk on a green board: broken contours, the subject rubbed in with slanted strokes, dust around it."""
    x, y = layers.grid()
    side = layers.mask.shape[0]
    dust = 0.05 * clouds(layers.rng(7), side, 6) + 0.05 * blur(layers.line, 3.0)
    board = rgb(40, 66, 56) + dust[..., None]
    rub = (0.12 + 0.70 * ridges(x + y) ** 1.5) * (0.35 + 0.75 * layers.tone) * (layers.mask * 0.85 + 0.10)
    crumbs = np.clip(0.88 + 0.20 * grain(layers.rng(8), layers.size), 0.25, 1)
    chalk = np.clip(np.maximum(layers.line, rub), 0, 1) * crumbs
    return mix(np.clip(chalk, 0, 1), rgb(240, 240, 228), board)


def sepia(layers: Layers) -> Plane:
    """An old photograph: brown tones, dark corners, fine grain."""
    x, y = layers.grid()
    half = layers.size / 2
    tone = np.clip((blur(layers.tone, 0.35) - 0.5) * 1.25 + 0.55, 0, 1)
    away = ((x - half) ** 2 + (y - half) ** 2) / half**2
    tone = tone * np.clip(1.10 - 0.40 * away, 0.30, 1.0) + 0.045 * grain(layers.rng(9), layers.size)
    return mix(np.clip(tone, 0, 1), rgb(255, 236, 198), rgb(46, 24, 12))


def poster(layers: Layers) -> Plane:
    """Screen print in cream, vermilion and deep blue, by darkness; a cream rim sets the subject off."""
    tone = blur(layers.tone, 0.5) + 0.10 * layers.mask
    middle, deep = (np.clip((level - tone) * 40 + 0.5, 0, 1) for level in (0.68, 0.44))
    rim = np.clip(blur(layers.mask, 0.7) * 4, 0, 1) * (1 - layers.mask)
    page = mix(middle, rgb(226, 88, 62), rgb(248, 234, 200))
    page = mix(np.maximum(deep, layers.line * layers.mask), rgb(28, 44, 92), page)
    return mix(rim, rgb(248, 234, 200), page)


def pencil(layers: Layers) -> Plane:
    """A graphite sketch: doubled soft contours, slanted shading that lets the grain of the paper through."""
    x, y = layers.grid()
    paper = 0.965 + 0.022 * grain(layers.rng(10), layers.size)
    tooth = 0.5 + 0.5 * clouds(layers.rng(11), layers.mask.shape[0], layers.size // 2)
    dark = contrast(1 - blur(layers.tone, 0.6), 1.1, 0.4)
    strokes = 0.55 + 0.45 * ridges(x + y + 1.2 * clouds(layers.rng(12), layers.mask.shape[0], 9))
    shading = np.clip(dark * 0.85 - 0.08, 0, 1) * strokes * (0.55 + 0.6 * tooth)
    again = np.roll(layers.line, (layers.size // 40, -(layers.size // 40)), (0, 1))
    contour = np.maximum(blur(layers.line, 0.25) * 0.95, 0.30 * again) * (0.65 + 0.45 * tooth)
    graphite = np.clip(np.maximum(shading, contour), 0, 1)
    return mix(graphite, rgb(58, 58, 64), paper[..., None] * rgb(252, 250, 244))
