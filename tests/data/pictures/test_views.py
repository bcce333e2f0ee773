"""Buckets and views: every image keeps as much of itself as a bucket allows, and says where it was cropped."""

from __future__ import annotations

import itertools
from itertools import product

import numpy as np
import pytest
from PIL import Image
from rows import every_row

from sd_lora.config.schema import DataConfig
from sd_lora.data.pictures import views
from sd_lora.data.pictures.views import Framing, Size, View, _columns, _cost, bucket_for, cropped_share, views_of

SIZES = [(512, 64), (768, 64), (1024, 32), (64, 16), (16, 4)]
ASPECTS = [
    (3000, 2000),
    (4000, 3000),
    (1920, 1080),
    (1080, 1920),
    (1000, 1000),
    (1000, 1100),
    (2400, 1000),
    (900, 1600),
]


def buckets_of(side: int, grain: int) -> list[Size]:
    return sorted({(side, side)} | {(w, h) for w, heights in _columns(side, grain) for h in heights})


@pytest.mark.parametrize(("side", "grain"), SIZES)
def test_buckets_are_multiples_within_the_area_and_the_square_is_one(side: int, grain: int) -> None:
    sizes = buckets_of(side, grain)
    assert (side, side) in sizes
    assert all(w % grain == h % grain == 0 for w, h in sizes)
    assert all(0.7 * side * side <= w * h <= side * side for w, h in sizes)
    assert {(h, w) for w, h in sizes} == set(sizes)


@every_row("sides, size", product(SIZES[:3], ASPECTS))
def test_no_other_bucket_crops_much_less(sides: tuple[int, int], size: tuple[int, int]) -> None:
    side, grain = sides
    chosen = bucket_for(*size, side, grain, DataConfig())
    least = min(cropped_share(*size, other) for other in buckets_of(side, grain))
    assert cropped_share(*size, chosen) <= least + 0.05
    assert cropped_share(*size, chosen) < 0.07


def test_crops_are_smaller_than_squares_would_need() -> None:
    kept = [1 - cropped_share(*size, bucket_for(*size, 512, 64, DataConfig())) for size in ASPECTS]
    square = [1 - cropped_share(*size, (512, 512)) for size in ASPECTS]
    assert sum(kept) / len(kept) > 0.97
    assert sum(square) / len(square) < 0.8


@pytest.mark.parametrize(
    ("size", "bucket"),
    [((300, 200), (256, 128)), ((600, 400), (576, 384)), ((200, 200), (192, 192)), ((20, 30), (64, 64))],
)
def test_small_images_may_keep_their_size(size: tuple[int, int], bucket: tuple[int, int]) -> None:
    assert bucket_for(*size, 512, 64, DataConfig(upscale=False)) == bucket
    assert bucket_for(*size, 512, 64, DataConfig())[0] * bucket_for(*size, 512, 64, DataConfig())[1] > 180_000


def test_squares_on_request() -> None:
    assert bucket_for(300, 900, 512, 64, DataConfig(buckets=False)) == (512, 512)
    assert bucket_for(300, 900, 512, 64, DataConfig(buckets=False, upscale=False)) == (256, 256)


def test_an_image_that_fits_its_bucket_has_one_view_and_another_several() -> None:
    assert views_of(900, 600, 512, 64, DataConfig()) == (View((576, 384), 0.5),)
    views = views_of(1000, 400, 64, 16, DataConfig(crops=3))
    assert [view.size for view in views] == [views[0].size] * 3
    assert [view.position for view in views] == pytest.approx([1 / 6, 1 / 2, 5 / 6])
    assert len(views_of(1000, 400, 64, 16, DataConfig(crops=1))) == 1


def test_views_go_from_end_to_end() -> None:
    ramp = np.tile(np.linspace(0, 255, 200, dtype=np.uint8), (50, 1))
    image = Image.fromarray(ramp).convert("RGB")
    means = [np.asarray(View((50, 50), position).cut(image)).mean() for position in (0, 0.5, 1)]
    assert means == pytest.approx([32, 127, 223], abs=6)
    assert View((200, 50)).cut(image) is image


@every_row(
    "size, view, mirrored, expected",
    [
        ((64, 64), View((32, 32)), False, Framing((64, 64), (0, 0), (32, 32))),
        ((128, 64), View((32, 32)), False, Framing((64, 128), (0, 16), (32, 32))),
        ((64, 256), View((32, 32)), False, Framing((256, 64), (48, 0), (32, 32))),
        ((20, 10), View((32, 32)), False, Framing((10, 20), (0, 16), (32, 32))),
        ((128, 64), View((32, 32), 0.125), False, Framing((64, 128), (0, 4), (32, 32))),
        ((128, 64), View((32, 32), 0.125), True, Framing((64, 128), (0, 28), (32, 32))),
        ((90, 60), View((48, 32)), True, Framing((60, 90), (0, 0), (32, 48))),
    ],
)
def test_the_framing_tells_size_and_crop(
    size: tuple[int, int], view: View, mirrored: bool, expected: Framing
) -> None:  # fmt: skip
    assert view.framing(*size, mirrored) == expected


@pytest.mark.parametrize(("side", "grain"), [(64, 8), (100, 8), (128, 16), (520, 64)])
def test_the_bucket_is_the_best_of_all(side: int, grain: int) -> None:
    for width, height in itertools.product((1, 7, 60, 64, 130, 511, 900, 4000), repeat=2):
        every = buckets_of(side, grain)
        best = min(every, key=lambda c: (_cost(width, height, c, side), -c[0] * c[1], c))
        assert bucket_for(width, height, side, grain, DataConfig()) == best


def test_the_largest_size_has_its_bucket_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(views, "_cost", lambda *arguments: seen.append(arguments) or _cost(*arguments))
    assert bucket_for(3000, 2001, 4096, 8, DataConfig()) == (5016, 3344)
    assert len(seen) < 5000  # of 109,000
