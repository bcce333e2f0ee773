"""The style distance: zero for the same pictures, symmetric, and growing as a style is mixed in."""

from __future__ import annotations

import pytest
from PIL import Image

from sd_lora.evaluation import share_closed, style_distance
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
    assert all(nearer < farther - 0.005 for nearer, farther in zip(distances, distances[1:], strict=False))


def test_another_style_is_farther_than_other_pictures_in_the_same(flat: list[Image.Image], woodcut: list[Image.Image]) -> None:
    others = [render(sample_scene(seed), "flat") for seed in range(100, 100 + COUNT)]
    assert 0 < 2 * style_distance(flat, others) < style_distance(flat, woodcut)


def test_marks_count_even_where_the_colours_are_the_same() -> None:
    stripes = Image.new("RGB", (64, 64), "black")
    for x in range(0, 64, 2):
        stripes.paste("white", (x, 0, x + 1, 64))
    coarse = stripes.resize((32, 64), Image.Resampling.NEAREST)
    half = Image.new("RGB", (64, 64), "black")
    half.paste("white", (0, 0, 32, 64))
    assert coarse.getcolors() is not None
    assert style_distance([stripes], [half]) > 0.05


def test_sets_of_different_sizes_compare(flat: list[Image.Image]) -> None:
    assert style_distance(flat, flat * 2) < 0.01
    assert style_distance(flat[:3], flat) >= 0


def test_share_closed() -> None:
    assert share_closed(0.5, 0.5, 0.1) == 0
    assert share_closed(0.5, 0.1, 0.1) == 1
    assert share_closed(0.5, 0.3, 0.1) == pytest.approx(0.5)
    assert share_closed(0.5, 0.6, 0.1) == pytest.approx(-0.25)
