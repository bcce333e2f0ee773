"""Copies are found whatever was done to them; pictures of the same kind are none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter, ImageOps
from rows import every_row

from sd_lora.evaluation import pixels
from sd_lora.tinybase.styles import render
from sd_lora.tinybase.world import sample_scene

REFERENCES = [render(sample_scene(seed), "woodcut") for seed in range(12)]
ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "the same": lambda image: image,
    "mirrored": ImageOps.mirror,
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(image.width / 64)),
    "pale": lambda image: Image.blend(image, Image.new("RGB", image.size, "white"), 0.5),
    "shifted": lambda image: Image.fromarray(
        np.pad(np.asarray(image), ((0, 0), (image.width // 24, 0), (0, 0)), mode="edge")[:, : image.width]
    ),
    "smaller": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BILINEAR),
}  # fmt: skip


@every_row("how", ALTERED)
def test_a_copy_is_found(how: str) -> None:
    originals = pixels.coarse(REFERENCES)
    copies = pixels.coarse([ALTERED[how](image) for image in REFERENCES])
    likeness, which = pixels.nearest_reference(copies, originals)
    found = likeness > pixels.copy_threshold(originals)
    assert which.tolist() == list(range(12))
    assert found.float().mean() >= 0.9, likeness


def test_other_pictures_in_the_style_are_no_copies() -> None:
    originals = pixels.coarse(REFERENCES)
    others = pixels.coarse([render(sample_scene(seed), "woodcut") for seed in range(100, 160)])
    likeness, _ = pixels.nearest_reference(others, originals)
    assert (likeness > pixels.copy_threshold(originals)).float().mean() <= 0.08


def test_diversity_is_none_where_all_pictures_are_one() -> None:
    one = pixels.coarse([REFERENCES[0]] * 4)
    several = pixels.coarse(REFERENCES[:4])
    assert pixels.diversity(one) == pytest.approx(0, abs=1e-6)
    assert pixels.diversity(several) > 0.2


def test_the_layout_of_a_picture_is_its_own() -> None:
    flat = [render(sample_scene(seed), "flat") for seed in range(12)]
    kept = pixels.layout_kept(pixels.coarse(flat), pixels.coarse(flat))
    lost = pixels.layout_kept(pixels.coarse(flat), pixels.coarse([*flat[1:], flat[0]]))
    assert torch.allclose(kept, torch.ones(12), atol=1e-5)
    assert lost.mean() < 0.7


def test_burn_is_seen_in_saturation_and_detail() -> None:
    plain = [render(sample_scene(seed), "flat") for seed in range(4)]
    grey = [ImageOps.grayscale(image) for image in plain]
    assert pixels.saturation(grey).max() < 1e-6 < pixels.saturation(plain).min()
    soft = [image.filter(ImageFilter.GaussianBlur(2)) for image in plain]
    assert (pixels.detail(soft, 64) < pixels.detail(plain, 64)).all()
