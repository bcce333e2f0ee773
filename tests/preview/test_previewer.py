"""Previews: the base in the first column, every strength from the same noise, the adapter left as it was found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sd_lora import Adapter, Previewer, load_base
from sd_lora.config.schema import PreviewConfig
from sd_lora.errors import AdapterError

PROMPTS = ["a red boat on the sea", "a small white cup at night"]
SETTINGS = PreviewConfig(inference_steps=3, guidance=4.0)
Maker = Callable[..., Adapter]


@pytest.fixture
def adapter(random_sd: Any, trained_adapter: Maker) -> Adapter:
    """Strong enough that every strength looks different."""
    return trained_adapter(random_sd, "attn", "ff", "conv", std=0.2)


@pytest.fixture
def previewer(random_sd: Any, adapter: Adapter) -> Previewer:
    return Previewer(random_sd, adapter, SETTINGS)


def plain(pipe: Any, prompt: str, seed: int = 0) -> Image.Image:
    """What the pipeline itself draws from the noise of `seed`."""
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(seed))
    return pipe(prompt, latents=noise, guidance_scale=4.0, num_inference_steps=3).images[0]


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def apart(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(pixels(one) - pixels(other)).max())


# ---- the grid


def test_strength_0_comes_first_and_once(previewer: Previewer) -> None:
    for asked, columns in (
        ((1.0, 0.5), (0, 1, 0.5)),
        ((0.5, 0.0), (0, 0.5)),
        ((0,), (0,)),
        ((1, 1), (0, 1)),
    ):
        grid = previewer.grid(PROMPTS[:1], asked)
        assert grid.strengths == columns
        assert len(grid.images) == 1
        assert len(grid.images[0]) == len(columns)


def test_the_settings_give_the_strengths_and_the_seed(random_sd: Any, adapter: Adapter) -> None:
    settings = PreviewConfig(inference_steps=2, strengths=(0.3,), seed=5)
    grid = Previewer(random_sd, adapter, settings).grid(PROMPTS)
    assert grid.strengths == (0, 0.3)
    assert grid.recipe["seed"] == 5
    assert [len(row) for row in grid.images] == [2, 2]


def test_strength_0_is_the_base_itself(previewer: Previewer) -> None:
    expected = [plain(previewer.pipe, prompt) for prompt in PROMPTS]
    grid = previewer.grid(PROMPTS, [0])
    for row, base in zip(grid.images, expected, strict=True):
        assert row[0].tobytes() == base.tobytes()


def test_one_batch_of_strengths_equals_separate_pictures(previewer: Previewer) -> None:
    grid = previewer.grid(PROMPTS, [0, 0.5, 1])
    for row, prompt in zip(grid.images, PROMPTS, strict=True):
        alone = []
        for strength in (0, 0.5, 1):
            with previewer.adapter.injected(previewer.pipe, strength):
                alone.append(plain(previewer.pipe, prompt))
        assert [apart(a, b) <= 1 for a, b in zip(row, alone, strict=True)] == [True] * 3
        assert min(apart(alone[0], alone[1]), apart(alone[1], alone[2]), apart(alone[0], alone[2])) > 8


def test_small_batches_draw_the_same(random_sd: Any, adapter: Adapter) -> None:
    strengths = [0, 0.25, 0.5, 1]
    whole = Previewer(random_sd, adapter, SETTINGS).grid(PROMPTS[:1], strengths).images[0]
    parts = Previewer(random_sd, adapter, SETTINGS, batch_size=3).grid(PROMPTS[:1], strengths).images[0]
    assert max(apart(a, b) for a, b in zip(whole, parts, strict=True)) <= 1


def test_the_seed_decides_the_pictures(previewer: Previewer) -> None:
    first, again = previewer.grid(PROMPTS, [0, 1], 7), previewer.grid(PROMPTS, [0, 1], 7)
    other = previewer.grid(PROMPTS, [0, 1], 8)
    for row, same, different in zip(first.images, again.images, other.images, strict=True):
        assert [image.tobytes() for image in row] == [image.tobytes() for image in same]
        assert all(apart(a, b) > 8 for a, b in zip(row, different, strict=True))


def test_prepared_prompts_need_no_text_encoder(previewer: Previewer) -> None:
    from sd_lora.models.families import FAMILIES

    family, pipe = FAMILIES["sd"], previewer.pipe
    expected = previewer.grid(PROMPTS[:1], [0, 1])
    states = family.encode_captions(pipe, PROMPTS[:1]), family.encode_captions(pipe, [""])
    previewer.prepare(PROMPTS[0], family.pipeline_arguments(*states))
    pipe.text_encoder = None
    grid = previewer.grid(PROMPTS[:1], [0, 1])
    assert max(apart(a, b) for a, b in zip(grid.images[0], expected.images[0], strict=True)) <= 1


# ---- the adapter is left as it was found


def test_the_adapter_is_off_the_pipeline_afterwards(previewer: Previewer) -> None:
    before = plain(previewer.pipe, PROMPTS[0])
    previewer.grid(PROMPTS[:1], [0.5, 2])
    assert not previewer.adapter.is_injected
    assert not any("loras" in name for name, _ in previewer.pipe.unet.named_modules())
    assert plain(previewer.pipe, PROMPTS[0]).tobytes() == before.tobytes()


def test_an_injected_adapter_keeps_its_strength(previewer: Previewer) -> None:
    with previewer.adapter.injected(previewer.pipe, 0.7):
        before = plain(previewer.pipe, PROMPTS[0])
        previewer.grid(PROMPTS[:1], [0, 2])
        assert previewer.adapter.is_injected
        assert previewer.adapter.strength == 0.7
        assert plain(previewer.pipe, PROMPTS[0]).tobytes() == before.tobytes()


@pytest.mark.parametrize("injected", [False, True])
def test_a_drawing_that_fails_leaves_the_adapter_as_it_was(injected: bool, previewer: Previewer) -> None:
    if injected:
        previewer.adapter.inject(previewer.pipe, 0.7)
    previewer.pipe.vae.decode = None  # something breaks in the middle
    with pytest.raises(TypeError):
        previewer.grid(PROMPTS[:1], [0, 1])
    assert previewer.adapter.is_injected is injected
    assert torch.equal(torch.as_tensor(previewer.adapter.strength), torch.tensor(0.7 if injected else 1.0))


# ---- what is refused


@pytest.mark.parametrize("prompts", [[], [""], ["a cat", "  "]])
def test_an_empty_prompt_is_refused(prompts: list[str], previewer: Previewer) -> None:
    with pytest.raises(AdapterError, match="prompt"):
        previewer.grid(prompts)


@pytest.mark.parametrize("strength", [float("nan"), float("inf")])
def test_a_strength_that_is_no_number_is_refused_before_drawing(strength: float, previewer: Previewer) -> None:
    previewer.pipe.unet = None  # whoever draws now fails otherwise
    with pytest.raises(AdapterError, match="strength"):
        previewer.grid(PROMPTS, [0, strength])


# ---- the sheet


def test_the_sheet_is_large_enough_for_its_pictures_and_labels(previewer: Previewer) -> None:
    grid = previewer.grid(PROMPTS, [0, 0.5, 1])
    sheet = grid.sheet()
    picture = 16 * 11  # enlarged until a person can see it
    assert sheet.mode == "RGB"
    assert sheet.width > 3 * picture + 100
    assert sheet.height > 2 * picture
    wider = previewer.grid(PROMPTS, [0, 0.5, 1, 1.5]).sheet()
    assert (wider.width - sheet.width, wider.height) == (picture + 8, sheet.height)


def test_a_saved_sheet_carries_its_recipe(previewer: Previewer, tmp_path: Path) -> None:
    previewer.adapter.save(tmp_path / "my-style.safetensors")
    loaded = Adapter.load(tmp_path / "my-style.safetensors")
    grid = Previewer(previewer.pipe, loaded, SETTINGS).grid(PROMPTS, [0, 0.5], 3)
    assert grid.save(tmp_path / "sheet.png") == tmp_path / "sheet.png"
    with Image.open(tmp_path / "sheet.png") as sheet:
        sheet.load()
        recipe = json.loads(sheet.text["sd_lora"])
        assert sheet.tobytes() == grid.sheet().tobytes()
    expected = {
        "prompts": PROMPTS,
        "strengths": [0, 0.5],
        "seed": 3,
        "adapter": "my-style.safetensors",
        "base": "random-sd",
    }
    assert {key: recipe[key] for key in expected} == expected
    assert (recipe["guidance"], recipe["inference_steps"]) == (4.0, 3)
    assert str(tmp_path) not in json.dumps(recipe)


def test_the_embedded_base_is_called_by_its_name_in_recipes(trained_adapter: Maker) -> None:
    pipe, _ = load_base("tiny")
    grid = Previewer(pipe, trained_adapter(pipe, "attn"), PreviewConfig(inference_steps=1)).grid(PROMPTS[:1], [0])
    assert grid.recipe["base"] == "tiny"  # as in the metadata of adapters, not the name of its folder, "base"


# ---- opening from files


def test_open_draws_what_the_adapter_in_memory_draws(
    previewer: Previewer, random_sd_folder: Path, tmp_path: Path
) -> None:
    previewer.adapter.save(tmp_path / "a.safetensors", dtype="float32")
    opened = Previewer.open(tmp_path / "a.safetensors", str(random_sd_folder), SETTINGS)
    one, other = opened.grid(PROMPTS[:1], [0, 1]), previewer.grid(PROMPTS[:1], [0, 1])
    assert [apart(a, b) for a, b in zip(one.images[0], other.images[0], strict=True)] == [0, 0]


def test_open_asks_for_the_base_of_a_foreign_adapter(previewer: Previewer, tmp_path: Path) -> None:
    previewer.adapter.save(tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match=r"somewhere.*--base"):
        Previewer.open(tmp_path / "a.safetensors")


# ---- what prompts say themselves


def test_a_prompt_may_say_how_it_is_drawn(previewer: Previewer) -> None:
    noise = torch.randn((1, 4, 16, 8), generator=torch.Generator().manual_seed(9))
    drawn = {"latents": noise, "height": 32, "width": 16, "guidance_scale": 3.0, "num_inference_steps": 2}
    expected = previewer.pipe(PROMPTS[0], negative_prompt="dark", **drawn).images[0]
    line = f"{PROMPTS[0]} --n dark --w 16 --h 32 --d 9 --s 2 --l 3"
    grid = previewer.grid([line, PROMPTS[1]], [0])
    assert grid.images[0][0].tobytes() == expected.tobytes()
    assert grid.images[1][0].tobytes() == plain(previewer.pipe, PROMPTS[1]).tobytes()
    assert grid.recipe["prompts"] == [line, PROMPTS[1]]
    assert grid.sheet().height == 2 * 16 + 34 + 11 * 32 + 8 + 11 * 16


def test_the_negative_prompt_of_the_settings_is_used_unless_the_prompt_has_its_own(
    random_sd: Any, adapter: Adapter
) -> None:
    settings = PreviewConfig(inference_steps=3, guidance=4.0, negative="dark")
    previewer = Previewer(random_sd, adapter, settings)
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    drawn = {"latents": noise, "guidance_scale": 4.0, "num_inference_steps": 3}
    dark, none = (random_sd(PROMPTS[0], negative_prompt=n, **drawn).images[0] for n in ("dark", ""))
    assert apart(dark, none) > 0
    first, second = previewer.grid([PROMPTS[0], f"{PROMPTS[0]} --n"], [0]).images
    assert (first[0].tobytes(), second[0].tobytes()) == (dark.tobytes(), none.tobytes())
    assert previewer.negative_of("a cat --l 1") == ""  # guidance does not use it
    assert previewer.negative_of("a cat --n bright") == "bright"
