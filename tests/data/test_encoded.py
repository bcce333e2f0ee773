"""Encoded sets: batches are pure functions of (seed, step), fair to every image."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from sd_lora.data import Batch, EncodedSet, Encoders, Example, Framing, encode_examples, generator_for
from sd_lora.data.encoded import framing_of


def encoded(count: int) -> EncodedSet:
    """Latents tell (image, mirrored), states tell the caption; 0 is the empty one."""
    latents = torch.stack([torch.tensor([float(i), i + 0.5]).view(2, 1, 1, 1) for i in range(count)])
    states = torch.arange(1, count + 1).view(count, 1, 1).expand(count, 2, 3).float()
    names, captions = [f"{i}.png" for i in range(count)], [f"caption {i + 1}" for i in range(count)]
    sizes = {"sizes": torch.arange(count).view(count, 1).float()}
    return EncodedSet(names, captions, latents, {"states": states}, {"states": torch.zeros(1, 2, 3)}, sizes)


def same(a: Batch, b: Batch) -> bool:
    states = torch.equal(a.conditioning["states"], b.conditioning["states"])
    return a.names == b.names and torch.equal(a.latents, b.latents) and states


@pytest.mark.parametrize(("count", "size"), [(5, 1), (6, 4), (3, 7), (1, 4), (4, 4)])
def test_every_image_is_seen_equally_often(count: int, size: int) -> None:
    data, seen = encoded(count), Counter[str]()
    for step in range(3 * count):
        batch = data.batch(step, size, 0, 0.0)
        assert len(batch.names) == len(batch.latents) == size
        seen.update(batch.names)
        if (step + 1) * size >= count:  # never more than one exposure apart, at any moment
            assert max(seen.values()) - min(seen[name] for name in data.names) <= 1
    assert set(seen.values()) == {3 * size}


def test_a_batch_is_a_pure_function_of_seed_and_step() -> None:
    data = encoded(9)
    first = data.batch(5, 40, 3, 0.5)
    torch.rand(100)  # what others draw changes nothing
    data.batch(17, 40, 3, 0.5)
    assert same(first, data.batch(5, 40, 3, 0.5))
    assert not same(first, data.batch(6, 40, 3, 0.5))
    assert not same(first, data.batch(5, 40, 4, 0.5))


def test_epochs_differ_in_order() -> None:
    data = encoded(8)
    orders = {tuple(data.batch(step, 8, 0, 0.0).names) for step in range(6)}
    assert len(orders) == 6


def test_names_latents_and_captions_belong_together() -> None:
    batch = encoded(7).batch(2, 5, 1, 0.0)
    numbers = [int(name.removesuffix(".png")) for name in batch.names]
    assert batch.latents.flatten().floor().long().tolist() == numbers
    assert (batch.conditioning["states"][:, 0, 0] - 1).long().tolist() == numbers


def test_every_image_is_mirrored_every_second_time() -> None:
    data, flags = encoded(5), {}
    for step in range(20):
        batch = data.batch(step, 3, 0, 0.0)
        for name, value in zip(batch.names, batch.latents.flatten().tolist(), strict=True):
            flags.setdefault(name, []).append(value % 1 != 0)
    for seen in flags.values():
        assert all(a != b for a, b in pairwise(seen))
    assert {seen[0] for seen in flags.values()} == {True, False}  # and not all of them at once


def dropped_share(dropout: float, steps: int = 300) -> float:
    batches = [encoded(4).batch(step, 4, 0, dropout) for step in range(steps)]
    empty = torch.cat([(batch.conditioning["states"] == 0).all(dim=(1, 2)) for batch in batches])
    return empty.float().mean().item()


def test_captions_are_dropped_as_often_as_asked() -> None:
    assert dropped_share(0.0) == 0
    assert dropped_share(1.0) == 1
    assert dropped_share(0.1) == pytest.approx(0.1, abs=0.03)
    assert dropped_share(0.5) == pytest.approx(0.5, abs=0.06)


def test_dropping_captions_changes_nothing_else() -> None:
    data = encoded(6)
    with_captions, without = data.batch(4, 4, 2, 0.0), data.batch(4, 4, 2, 1.0)
    assert with_captions.names == without.names
    assert torch.equal(with_captions.latents, without.latents)


def test_generators_depend_on_each_argument() -> None:
    draws = [torch.rand(4, generator=generator_for(*args)) for args in
             [(0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"), (2**32 - 1, 10**6, "a")]]  # fmt: skip
    assert torch.equal(draws[0], torch.rand(4, generator=generator_for(0, 0, "a")))
    assert all(not torch.equal(draws[i], draws[j]) for i in range(5) for j in range(i))


def pixels_of(images: Tensor) -> Tensor:
    assert images.dtype == torch.float32
    assert images.shape == (2, 3, 8, 8)
    return images


def encode(captions: list[str], *, flip: bool = True) -> tuple[EncodedSet, list[Image.Image]]:
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), "RGB") for _ in captions]
    examples = [Example(f"{i}.png", p, c) for i, (p, c) in enumerate(zip(pictures, captions, strict=True))]
    states = {c: torch.full((1, 2, 3), float(len(c))) for c in [*captions, ""]}
    encoders = Encoders(pixels_of, lambda asked: {"states": states[asked[0]]}, lambda _: {})
    return encode_examples(examples, 8, flip, encoders), pictures


def as_image(pixels: Tensor) -> Image.Image:
    return Image.fromarray(((pixels + 1) * 127.5).round().byte().permute(1, 2, 0).numpy(), "RGB")


def test_pictures_are_encoded_upright_and_mirrored() -> None:
    data, pictures = encode(["a cat", "a tree"])
    assert data.latents.shape == (2, 2, 3, 8, 8)
    assert data.latents.min() >= -1
    assert data.latents.max() <= 1
    for latents, picture in zip(data.latents, pictures, strict=True):
        assert as_image(latents[0]).tobytes() == picture.tobytes()
        assert as_image(latents[1]).tobytes() == ImageOps.mirror(picture).tobytes()


def test_captions_are_encoded_and_the_empty_one_beside_them() -> None:
    data, _ = encode(["a cat", "a tree"])
    assert data.names == ["0.png", "1.png"]
    assert data.conditioning["states"][:, 0, 0].tolist() == [5, 6]
    assert data.empty["states"].shape == (1, 2, 3)
    assert data.empty["states"].max() == 0


def test_what_may_not_be_flipped_is_not() -> None:
    data, _ = encode(["a boat on the left", "a boat"])
    assert torch.equal(data.latents[0, 0], data.latents[0, 1])
    assert not torch.equal(data.latents[1, 0], data.latents[1, 1])
    data, _ = encode(["a boat"], flip=False)
    assert torch.equal(data.latents[0, 0], data.latents[0, 1])


def test_captions_are_dropped_as_their_conditioning_is_and_framing_never() -> None:
    data = encoded(6)
    for step in range(8):
        batch = data.batch(step, 4, 0, 0.5)
        told = batch.conditioning["states"][:, 0, 0].tolist()
        assert batch.captions == [f"caption {state:.0f}" if state else "" for state in told]
        assert [f"{size:.0f}.png" for size in batch.conditioning["sizes"].flatten().tolist()] == batch.names


def test_captions_may_be_left_to_the_training_loop() -> None:
    examples = [Example("a.png", Image.new("RGB", (8, 8)), "a cat")]
    data = encode_examples(examples, 8, False, Encoders(pixels_of, None, lambda _: {}))
    assert data.captions == ["a cat"]
    assert data.conditioning == data.empty == {}
    assert data.batch(0, 1, 0, 0.0).conditioning == {}


@pytest.mark.parametrize(
    ("size", "crop"), [((64, 64), (0, 0)), ((128, 64), (0, 16)), ((64, 256), (48, 0)), ((20, 10), (0, 16))]
)
def test_the_framing_tells_the_original_size_and_the_crop(size: tuple[int, int], crop: tuple[int, int]) -> None:
    framing = framing_of(Example("a.png", Image.new("RGB", size), ""), 32)
    assert framing == Framing((size[1], size[0]), crop, (32, 32))
