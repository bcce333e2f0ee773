"""Encoded sets: what a batch holds is what was asked for, a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from sd_lora.config.schema import DataConfig
from sd_lora.data.cache import Cache
from sd_lora.data.encoded import Batch, EncodedSet, Encoders
from sd_lora.data.examples import Example
from sd_lora.data.exposures import Schedule, Seen
from sd_lora.data.pictures.views import Framing, views_of
from sd_lora.data.seeds import generator_for

SIDE, GRAIN = 16, 4
Make = Callable[..., EncodedSet]


def picture(size: tuple[int, int], seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def pixels_of(images: Tensor) -> Tensor:
    assert images.dtype == torch.float32
    assert images.shape[1] == 3
    assert -1 <= images.min() < images.max() <= 1
    return images.clone()


def as_image(pixels: Tensor) -> Image.Image:
    return Image.fromarray(((pixels + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


def states_of(captions: list[str]) -> dict[str, Tensor]:
    return {"states": torch.tensor([[float(len(caption))] for caption in captions])}


def framing_of(framings: list[Framing]) -> dict[str, Tensor]:
    return {"sizes": torch.tensor([[*f.original, *f.crop, *f.target] for f in framings], dtype=torch.float32)}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`make(sizes, captions=, flip=, batch=, masks=, prior=, text=)`: a set of pictures of these sizes, encoded."""

    def build(
        sizes: list[tuple[int, int]], captions: list[tuple[str, ...]] | None = None, *, flip: bool = True,
        batch: int = 4, masks: dict[int, Image.Image] | None = None, prior: int = 0, prior_weight: float = 1.0,
        text: bool = True, seed: int = 0, crops: int = 4,
    ) -> EncodedSet:  # fmt: skip
        examples, config = [], DataConfig(flip=flip, crops=crops)
        for i, size in enumerate(sizes):
            file = tmp_path / f"{i}.png"
            picture(size, i).save(file)
            mask = None
            if masks and i in masks:
                mask = tmp_path / f"{i}_mask.png"
                masks[i].save(mask)
            own = captions[i] if captions else (f"caption {i}",)
            examples.append(Example(file, file.name, *size, own, mask=mask, prior=i >= len(sizes) - prior))
        seen = [
            Seen((views_of(e.width, e.height, SIDE, GRAIN, config),), 2 if flip else 1, len(e.captions), 1, e.prior)
            for e in examples
        ]
        encoders = Encoders(pixels_of, states_of if text else None, framing_of)  # type: ignore[arg-type]
        data = EncodedSet(examples, Schedule(seen, batch, seed), encoders, Cache(tmp_path / "cache"), prior_weight)
        data.encode()
        return data

    return build


def batches(data: EncodedSet, step: int, dropout: float = 0.0) -> list[Batch]:
    every = range(data.schedule.batch_size)
    found = [data.batch(group, step, dropout, every) for group in data.schedule.groups(step)]
    assert all(batch is not None for batch in found)
    return found  # type: ignore[return-value]


def test_a_batch_holds_the_views_and_mirror_images_of_its_exposures(make: Make) -> None:
    data = make([(16, 16), (16, 16), (80, 16)], batch=3)
    mirrored = set()
    for step in range(16):
        for group, batch in zip(data.schedule.groups(step), batches(data, step), strict=True):
            assert batch.latents.shape == (len(group.places), *data.shape(group.size))
            for exposure, latents in zip(group.exposures, batch.latents, strict=True):
                size = (80, 16) if exposure.image == 2 else (16, 16)
                expected = data.schedule.view(exposure).cut(picture(size, exposure.image))
                expected = ImageOps.mirror(expected) if exposure.mirrored else expected
                assert as_image(latents).tobytes() == expected.tobytes()
                mirrored.add((exposure.image, exposure.view, exposure.mirrored))
    assert mirrored == {(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 0, 1), *((2, v, m) for v in range(4) for m in range(2))}


def test_names_captions_states_and_framings_belong_together(make: Make) -> None:
    data = make([(16, 16), (32, 16), (16, 48)], [("a",), ("bb", "bbbb"), ("ccc",)], batch=5)
    for step in range(6):
        for group, batch in zip(data.schedule.groups(step), batches(data, step), strict=True):
            assert batch.names == [f"{e.image}.png" for e in group.exposures]
            assert batch.captions == [data.examples[e.image].captions[e.caption] for e in group.exposures]
            assert batch.conditioning["states"][:, 0].tolist() == [len(caption) for caption in batch.captions]
            originals = [tuple(row[:2]) for row in batch.conditioning["sizes"].tolist()]
            assert originals == [(data.examples[e.image].height, data.examples[e.image].width) for e in group.exposures]
            assert batch.weights is None


def test_captions_are_dropped_as_often_as_asked_and_framings_never(make: Make) -> None:
    data = make([(16, 16)] * 4)
    for dropout, expected in ((0.0, 0.0), (1.0, 1.0), (0.1, 0.1), (0.5, 0.5)):
        found = [batch for step in range(300) for batch in batches(data, step, dropout)]
        share = sum(caption == "" for batch in found for caption in batch.captions) / 1200
        assert share == pytest.approx(expected, abs=0.03 if 0 < dropout < 1 else 0)
        assert all(
            (state == 0) == (caption == "")
            for b in found for state, caption in zip(b.conditioning["states"][:, 0], b.captions, strict=True)
        )  # fmt: skip
        assert all(batch.conditioning["sizes"].min(dim=1).values.eq(0).all() for batch in found)
        assert all(batch.conditioning["sizes"][:, 0].eq(16).all() for batch in found)


def test_dropping_captions_changes_nothing_else(make: Make) -> None:
    data = make([(16, 16)] * 6)
    (kept,), (dropped,) = batches(data, 4, 0.0), batches(data, 4, 1.0)
    assert kept.names == dropped.names
    assert torch.equal(kept.latents, dropped.latents)


def test_a_batch_is_a_pure_function_of_seed_and_step(make: Make) -> None:
    data = make([(16, 16)] * 9, batch=5)
    first = batches(data, 5, 0.5)[0]
    torch.rand(100)  # what others draw changes nothing
    batches(data, 17, 0.5)
    again = batches(data, 5, 0.5)[0]
    assert torch.equal(first.latents, again.latents)
    assert first.captions == again.captions
    assert batches(data, 6, 0.5)[0].names != first.names
    assert batches(make([(16, 16)] * 9, batch=5, seed=4), 5, 0.5)[0].names != first.names


def test_processes_share_out_what_one_would_have(make: Make) -> None:
    data = make([(16, 16), (32, 16), (16, 32), (16, 16), (48, 16)], batch=4)
    for step in range(10):
        for group in data.schedule.groups(step):
            whole = data.batch(group, step, 0.5, range(4))
            there = [
                data.batch(group, step, 0.5, mine) for mine in (range(2), range(2, 4)) if set(mine) & set(group.places)
            ]
            assert torch.equal(torch.cat([part.latents for part in there]), whole.latents)
            assert [c for part in there for c in part.captions] == whole.captions


def test_helpers_encode_what_the_last_call_then_finds(make: Make, tmp_path: Path) -> None:
    data = make([(16, 16)] * 5)
    for file in (tmp_path / "cache").glob("*/*"):
        file.unlink()
    counts = []
    for share in ((0, 2), (1, 2), (0, 1)):
        data.cache = Cache(tmp_path / "cache")
        data.encode(share)
        counts.append(data.cache.made)
    assert counts == [3 + 3 + 1, 2 + 2, 0]


def test_captions_may_be_left_to_the_training_loop(make: Make) -> None:
    data = make([(16, 16)], text=False, batch=1)
    (batch,) = batches(data, 0)
    assert batch.captions == ["caption 0"]
    assert set(batch.conditioning) == {"sizes"}


def test_masks_weigh_the_loss_where_the_picture_is_seen(make: Make) -> None:
    """The left half of a wide picture is masked out: views further right show less of it."""
    half = Image.new("L", (80, 16), 255)
    half.paste(0, (0, 0, 40, 16))
    data = make([(80, 16), (16, 16)], flip=True, batch=2, masks={0: half}, crops=3)
    found = {}
    for step in range(12):
        for group, batch in zip(data.schedule.groups(step), batches(data, step), strict=True):
            assert batch.weights is not None
            assert batch.weights.shape == (len(group.places), 1, *data.shape(group.size)[1:])
            for exposure, weight in zip(group.exposures, batch.weights, strict=True):
                if exposure.image == 1:
                    assert weight.eq(1).all()
                else:
                    found[exposure.view, exposure.mirrored] = weight
    assert {weight.max().item() for weight in found.values()} <= {1.0}
    for (view, mirrored), weight in found.items():
        assert torch.equal(weight, found[view, 1 - mirrored].flip(-1))
    shares = [found[view, 0].mean().item() for view in sorted({v for v, _ in found})]
    assert len(shares) == 3
    assert shares == sorted(shares)
    assert shares[0] < 0.5 < shares[2]


def test_regularisation_images_have_their_own_weight(make: Make) -> None:
    data = make([(16, 16)] * 4, prior=2, prior_weight=0.25)
    (batch,) = batches(data, 0)
    assert batch.weights is not None
    weights = {name: weight.mean().item() for name, weight in zip(batch.names, batch.weights, strict=True)}
    assert all(weight == (0.25 if name in ("2.png", "3.png") else 1) for name, weight in weights.items())
    (batch,) = batches(make([(16, 16)] * 4, prior=2), 0)
    assert batch.weights is None


def test_what_may_not_be_mirrored_is_not(make: Make) -> None:
    data = make([(16, 16)], flip=False, batch=1)
    assert len({batches(data, step)[0].latents.numpy().tobytes() for step in range(4)}) == 1


def test_generators_depend_on_each_argument() -> None:
    draws = [torch.rand(4, generator=generator_for(*args)) for args in
             [(0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"), (2**32 - 1, 10**6, "a")]]  # fmt: skip
    assert torch.equal(draws[0], torch.rand(4, generator=generator_for(0, 0, "a")))
    assert all(not torch.equal(draws[i], draws[j]) for i in range(5) for j in range(i))


@pytest.mark.parametrize("masked", [False, True])
def test_transparency_weighs_the_loss_like_a_mask_and_beside_one(masked: bool, tmp_path: Path) -> None:
    """The left half is transparent; the mask leaves out the upper half."""
    image, file = picture((16, 16), 0).convert("RGBA"), tmp_path / "0.png"
    image.paste((0, 0, 0, 0), (0, 0, 8, 16))
    image.save(file)
    mask = None
    if masked:
        mask = tmp_path / "m.png"
        half = Image.new("L", (16, 16), 255)
        half.paste(0, (0, 0, 16, 8))
        half.save(mask)
    weights = []
    for alpha in (False, True):
        example = Example(file, "0.png", 16, 16, ("c",), mask=mask, background="white", alpha=alpha)
        seen = Seen((views_of(16, 16, SIDE, GRAIN, DataConfig()),), 1, 1, 1, False)
        encoders = Encoders(pixels_of, states_of, framing_of)  # type: ignore[arg-type]
        data = EncodedSet([example], Schedule([seen], 1, 0), encoders, Cache(tmp_path / "cache"))  # one for both
        data.encode()
        (batch,) = batches(data, 0)
        weights.append(batch.weights)
    plain, transparent = weights
    assert transparent is not None
    side = transparent.shape[-1]
    expected = torch.zeros(side, side)
    expected[side // 2 if masked else 0 :, side // 2 :] = 1
    assert torch.equal(transparent[0, 0], expected)
    assert (plain is None) is not masked
