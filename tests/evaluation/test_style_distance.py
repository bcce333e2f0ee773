"""The style distance: zero for the same pictures, symmetric, and growing as a style is mixed in."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from sd_lora.evaluation.style_distance import share_closed, style_distance
from sd_lora.tinybase.styles import render
from sd_lora.tinybase.world import sample_scene

COUNT = 8


@pytest.fixture(scope="module")
def flat() -> list[Image.Image]:
    return [render(sample_scene(seed), "flat") for seed in range(COUNT)]


@pytest.fixture(scope="module")
def woodcut() -> list[Image.Image]:
    return [render(sample_scene(seed), "woodcut") for seed in range(COUNT)]


def test_the_same_pictures_are_at_distance_zero(flat: list[Image.Image]) -> None:
    assert style_distance(flat, flat) == 0
    assert style_distance(flat, flat[::-1]) == 0  # the order says nothing


def test_it_is_symmetric_and_repeatable(flat: list[Image.Image], woodcut: list[Image.Image]) -> None:
    there = style_distance(flat, woodcut)
    assert there == style_distance(woodcut, flat)
    assert there == style_distance(flat, woodcut)


def test_it_grows_as_a_style_is_mixed_in(flat: list[Image.Image], woodcut: list[Image.Image]) -> None:
    distances = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        mixed = [Image.blend(a, b, share) for a, b in zip(flat, woodcut, strict=True)]
        distances.append(style_distance(mixed, flat))
    assert all(nearer < farther - 0.005 for nearer, farther in pairwise(distances))


def test_another_style_is_farther_than_other_pictures_in_the_same(
    flat: list[Image.Image], woodcut: list[Image.Image]
) -> None:
    others = [render(sample_scene(seed), "flat") for seed in range(100, 100 + COUNT)]
    assert 0 < 2 * style_distance(flat, others) < style_distance(flat, woodcut)


def plain(colour: str) -> Image.Image:
    return Image.new("RGB", (64, 64), colour)


def test_colours_count_where_there_are_no_marks() -> None:
    assert style_distance([plain("red")], [plain("blue")]) > 0.1
    near, far = (style_distance([plain("black")], [plain(grey)]) for grey in ("#202020", "#c0c0c0"))
    assert far == pytest.approx(6 * near, rel=1e-3)  # in units of pixel values


def test_a_shift_of_brightness_counts_in_the_colours_only() -> None:
    """Directions are unit vectors, so a shift by 1 moves a projection by 0.8 on average; the other half are marks."""
    assert style_distance([plain("black")], [plain("white")]) == pytest.approx(0.4, abs=0.1)


def test_faint_marks_count_under_any_brightness() -> None:
    def sheets(depth: int) -> list[Image.Image]:
        stripes = np.where(np.arange(64) % 4 < 2, depth, -depth)[None, :, None]
        return [Image.fromarray((np.full((64, 64, 3), grey) + stripes).astype(np.uint8)) for grey in range(20, 236, 12)]

    assert style_distance(sheets(0), sheets(12)) > 0.015  # 0.021; without the centred patches 0.008


def test_sets_of_different_sizes_compare(flat: list[Image.Image]) -> None:
    assert style_distance(flat, flat * 2) < 0.01
    assert style_distance(flat[:3], flat) >= 0


def test_share_closed() -> None:
    assert share_closed(0.5, 0.5, 0.1) == 0
    assert share_closed(0.5, 0.1, 0.1) == 1
    assert share_closed(0.5, 0.3, 0.1) == pytest.approx(0.5)
    assert share_closed(0.5, 0.6, 0.1) == pytest.approx(-0.25)
