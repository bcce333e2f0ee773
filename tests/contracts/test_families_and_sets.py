"""What every family tells of itself so that sets can be cached, bucketed and read: hashes, sizes, tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_bases import KINDS

from sd_lora import load_base
from sd_lora.data.pictures.views import Framing
from sd_lora.models.opening import ModelFamily
from sd_lora.tinybase import tiny_base_path


@pytest.fixture(params=[*KINDS, "tiny"])
def folder(request: pytest.FixtureRequest, bases: dict[str, Path]) -> Path:
    return tiny_base_path() if request.param == "tiny" else bases[request.param]


@pytest.fixture
def base(folder: Path, opened: Callable[[str], Any]) -> tuple[Any, ModelFamily]:
    return opened("tiny" if folder == tiny_base_path() else folder.name.removeprefix("random-"))


def test_sizes_in_multiples_of_the_grain_are_denoised(base: tuple[Any, ModelFamily]) -> None:
    pipe, family = base
    grain = family.grain(pipe)
    assert family.native_size(pipe) % grain == 0
    pictures = torch.zeros(1, 3, grain, 3 * grain)
    with torch.no_grad():
        latents = family.encode_images(pipe, pictures)
        assert latents.shape[2:] == (grain // pipe.vae_scale_factor, 3 * grain // pipe.vae_scale_factor)
        if family.denoiser == "unet":
            levels = len(pipe.unet.config.block_out_channels) - 1
            assert latents.shape[2] == 2**levels  # halved on every level but the last, and then one
        denoiser, states = getattr(pipe, family.denoiser), family.encode_captions(pipe, [""])
        framing = family.encode_framing([Framing((3 * grain, grain), (0, 0), (3 * grain, grain))])
        assert family.denoise(denoiser, latents, torch.tensor([500]), states | framing).shape == latents.shape


def test_noise_is_that_of_the_latents_and_of_the_seed(base: tuple[Any, ModelFamily]) -> None:
    pipe, family = base
    grain = family.grain(pipe)
    size = (3 * grain, grain)
    latents = family.encode_images(pipe, torch.zeros(1, 3, *reversed(size)))
    noise = family.noise(pipe, size, 7)
    assert noise.shape == latents.shape == (1, *family.latent_shape(pipe, size))
    assert torch.equal(noise, family.noise(pipe, size, 7))
    assert not torch.equal(noise, family.noise(pipe, size, 8))


def test_decoded_latents_are_pictures_of_the_size(base: tuple[Any, ModelFamily]) -> None:
    pipe, family = base
    grain = family.grain(pipe)
    pictures = family.decode(pipe, family.noise(pipe, (3 * grain, grain), 0))
    assert pictures.shape == (1, 3, grain, 3 * grain)
    assert torch.isfinite(pictures).all()


def test_more_pixels_are_more_work_than_in_proportion(base: tuple[Any, ModelFamily]) -> None:
    pipe, family = base
    small, large = family.work(pipe, (64, 64)), family.work(pipe, (128, 128))
    assert 4 * small < large < 16 * small


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_vae_that_overflows_in_half_precision_decodes_in_single(
    base: tuple[Any, ModelFamily], dtype: torch.dtype
) -> None:
    pipe, family = base
    pipe.vae.to(dtype).register_to_config(force_upcast=True)
    used = []
    pipe.vae.decoder.register_forward_pre_hook(lambda _, args: used.append(args[0].dtype))
    family.decode(pipe, family.noise(pipe, (family.grain(pipe),) * 2, 0))
    assert used == [torch.float32]
    assert pipe.vae.dtype == dtype


def test_keys_are_those_of_the_weights_and_nothing_else(base: tuple[Any, ModelFamily], folder: Path) -> None:
    pipe, family = base
    keys = family.images_key(pipe), family.captions_key(pipe)
    family.encode_captions(pipe, ["a cat"])  # tokenizers remember how they padded last
    family.token_counts(pipe, ["a cat"])
    again = load_base(folder)[0]
    assert (family.images_key(again), family.captions_key(again)) == keys == (
        family.images_key(pipe), family.captions_key(pipe),
    )  # fmt: skip
    coarse = load_base(folder, torch.bfloat16)[0]
    assert family.images_key(coarse) != keys[0]
    assert family.captions_key(coarse) != keys[1]


@pytest.mark.parametrize("part", ["vae", "text_encoder", "text_encoder_2", "text_encoder_3", "unet", "transformer"])
def test_keys_follow_the_weights_they_depend_on(part: str, base: tuple[Any, ModelFamily]) -> None:
    pipe, family = base
    if part not in (family.denoiser, "vae", *family.text_encoders):
        pytest.skip("has no such part")
    before = family.images_key(pipe), family.captions_key(pipe)
    weight = next(iter(getattr(pipe, part).parameters()))
    with torch.no_grad():
        weight.view(-1)[0] += 1
    after = family.images_key(pipe), family.captions_key(pipe)
    assert (after[0] != before[0]) == (part == "vae")
    assert (after[1] != before[1]) == part.startswith("text")


def test_a_tokenizer_with_another_word_has_another_key(base: tuple[Any, ModelFamily]) -> None:
    pipe, family = base
    before = family.captions_key(pipe)
    pipe.tokenizer.add_tokens(["inkwash"])
    assert family.captions_key(pipe) != before


def test_tokens_are_counted_with_both_ends_and_known_words_told(base: tuple[Any, ModelFamily]) -> None:
    pipe, family = base
    counts = family.token_counts(pipe, ["", "a", "a boat", "a boat " * 300])
    assert 1 <= counts[0] < counts[1]
    assert family.readers or counts[:2] == [2, 3]  # CLIP's, which are the only ones
    assert counts[1] < counts[2] < family.token_limit(pipe) < counts[3]
    assert family.token_counts(pipe, []) == []
    assert family.overlong(pipe, ["a boat", "a boat " * 300]) == [1]
    assert family.is_known_word(pipe, "boat")
    assert not family.is_known_word(pipe, "xqzkv")


def test_the_key_of_sdxl_knows_what_an_empty_prompt_means(bases: dict[str, Path], tmp_path: Path) -> None:
    pipe, family = load_base(bases["sdxl"])
    before = family.captions_key(pipe)
    pipe.register_to_config(force_zeros_for_empty_prompt=not pipe.config.force_zeros_for_empty_prompt)
    assert family.captions_key(pipe) != before
