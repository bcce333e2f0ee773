"""Strengths by component and block: what they mean, that diffusers means the same, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rows import every_row
from small_weights import weights_of

from sd_lora.adapters import strengths
from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.fit import modules_of
from sd_lora.adapters.keys import name_of_module
from sd_lora.errors import AdapterError
from sd_lora.models.families import FAMILIES

NAMES = [
    "unet.conv_in",
    "unet.down_blocks.0.attentions.0.to_q",
    "unet.down_blocks.0.attentions.1.to_q",
    "unet.down_blocks.0.resnets.0.conv1",
    "unet.down_blocks.0.resnets.1.conv1",
    "unet.down_blocks.0.downsamplers.0.conv",
    "unet.down_blocks.1.resnets.0.conv1",
    "unet.down_blocks.1.resnets.1.conv1",
    "unet.mid_block.attentions.0.to_q",
    "unet.mid_block.resnets.0.conv1",
    "unet.mid_block.resnets.1.conv1",
    "unet.up_blocks.0.attentions.0.to_q",
    "unet.up_blocks.0.attentions.1.to_q",
    "unet.up_blocks.0.attentions.2.to_q",
    "unet.up_blocks.0.upsamplers.0.conv",
    "unet.up_blocks.1.resnets.0.conv1",
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
]


def strengths_by_module(names: list[str], value: Any, base: list[str] | None = None) -> dict[str, Any]:
    return strengths.strengths_by_module(names, value, FAMILIES["sd"], base)


def given(value: Any, base: list[str] | None = None) -> dict[str, Any]:
    """The strengths that `value` gives, of those modules only whose strength it changes from 1."""
    found = strengths_by_module(NAMES, value, base)
    assert list(found) == NAMES
    return {name.removeprefix("unet."): strength for name, strength in found.items() if strength != 1}


def test_one_number_is_for_all() -> None:
    assert set(given(0.5).values()) == {0.5}
    assert len(given(0.5)) == len(NAMES)


def test_one_number_per_sample_is_for_all() -> None:
    for value in ([0.0, 2.0], torch.tensor([0.0, 2.0])):
        assert all(s.tolist() == [0.0, 2.0] for s in strengths_by_module(NAMES, value).values())


def test_a_component_that_is_left_out_has_strength_1() -> None:
    assert given({"text_encoder": 0.3}) == {NAMES[-1]: 0.3}
    assert given({}) == {}


def test_a_component_has_one_number_or_one_per_sample() -> None:
    found = strengths_by_module(NAMES, {"unet": torch.tensor([0.0, 2.0]), "text_encoder": 0.25})
    assert found[NAMES[0]].tolist() == [0.0, 2.0]  # type: ignore[union-attr]
    assert found[NAMES[-1]] == 0.25


def test_a_side_of_the_unet_means_all_of_its_blocks_and_nothing_else() -> None:
    assert given({"unet": {"down": 0.9}}) == {
        name.removeprefix("unet."): 0.9 for name in NAMES if name.startswith("unet.down_blocks")
    }


def test_the_middle_is_one_layer_whatever_it_holds() -> None:
    expected = {f"mid_block.{part}": 0.2 for part in ("attentions.0.to_q", "resnets.0.conv1", "resnets.1.conv1")}
    assert given({"unet": {"mid": 0.2}}) == given({"unet": {"mid": [0.2]}}) == expected


def test_a_block_alone_leaves_the_others_at_1() -> None:
    assert set(given({"unet": {"up": {"block_0": 0.6}}})) == {n.removeprefix("unet.") for n in NAMES[11:15]}


def test_a_list_is_for_the_layers_of_a_block_and_the_sampler_goes_with_the_last() -> None:
    assert given({"unet": {"up": {"block_0": [0.4, 0.8, 0.2]}}}) == {
        "up_blocks.0.attentions.0.to_q": 0.4,
        "up_blocks.0.attentions.1.to_q": 0.8,
        "up_blocks.0.attentions.2.to_q": 0.2,
        "up_blocks.0.upsamplers.0.conv": 0.2,
    }


def test_a_list_for_a_side_is_for_each_of_its_blocks() -> None:
    assert given({"unet": {"down": [0.4, 0.8]}}) == {
        "down_blocks.0.attentions.0.to_q": 0.4,
        "down_blocks.0.attentions.1.to_q": 0.8,
        "down_blocks.0.resnets.0.conv1": 0.4,
        "down_blocks.0.resnets.1.conv1": 0.8,
        "down_blocks.0.downsamplers.0.conv": 0.8,
        "down_blocks.1.resnets.0.conv1": 0.4,
        "down_blocks.1.resnets.1.conv1": 0.8,
    }


def test_a_list_of_one_is_for_the_whole_block() -> None:
    assert given({"unet": {"up": {"block_0": [0.7]}}}) == given({"unet": {"up": {"block_0": 0.7}}})


def test_the_base_tells_how_many_layers_a_block_has() -> None:
    """An adapter of one attention cannot know how many there are beside it."""
    mine, base = ["unet.up_blocks.0.attentions.1.to_q"], [n for n in NAMES if n.startswith("unet.up_blocks.0")]
    value = {"unet": {"up": {"block_0": [0.0, 0.5, 0.1]}}}
    assert strengths_by_module(mine, value, base) == strengths_by_module(mine, value) == {mine[0]: 0.5}
    for short in ([0.0, 0.5], [0.0, 0.5, 0.1, 0.2]):
        with pytest.raises(AdapterError, match=rf"unet\.up\.block_0 has 3 layers, but {len(short)} numbers"):
            strengths_by_module(mine, {"unet": {"up": {"block_0": short}}}, base)
    with pytest.raises(AdapterError, match="has 2 layers, but 0 numbers"):
        strengths_by_module(mine, {"unet": {"up": {"block_0": []}}})


def test_a_layer_without_modules_takes_no_nonsense() -> None:
    mine = [name for name in NAMES if not name.startswith("unet.up_blocks.0.attentions.0")]
    with pytest.raises(AdapterError, match="'strong'"):
        strengths_by_module(mine, {"unet": {"up": {"block_0": [["strong"], 0.1, 0.2]}}}, NAMES)


@every_row(
    "value, words",
    [
        ({"unett": 0.5}, ['"unett"', 'did you mean "unet"?']),
        ({"text_encoder_2": 0.5}, ['no modules in "text_encoder_2"']),
        ({"unet": {"dwon": 0.5}}, ['"unet.dwon"', 'did you mean "down"?']),
        ({"unet": {"up": {"block_7": 0.5}}}, ['"unet.up.block_7"', "block_"]),
        ({"unet": {"up": {0: 0.5}}}, ['"unet.up.0"']),
        ({"unet": {"mid": {"block_0": 0.5}}}, ['"unet.mid.block_0"', "unet.mid has no parts"]),
        ({"text_encoder": {"down": 0.5}}, ['"text_encoder.down"', "text_encoder has no parts"]),
        ({"unet": {"mid": [0.5, 0.5]}}, ["unet.mid has 1 layers, but 2 numbers"]),
        ({"unet": {"down": [0.5, 0.5, 0.5]}}, ["unet.down.block_0 has 2 layers, but 3", "unet.down.block_1 has 2"]),
        ({"unet": [0.5, 0.5]}, ["unet takes one number, not a list"]),
        ({"unet": math.nan}, ["unet: a strength must be a finite number, but nan"]),
        ({"unet": {"up": {"block_0": [0.5, math.inf, 0.1]}}}, ["unet.up.block_0.1:", "inf"]),
        ({"unet": "strong"}, ["unet: ", "'strong'"]),
        ({"unet": None}, ["unet: ", "None"]),
        ({"unet": {"mid": math.nan, "right": 1.0}, "vae": 1.0}, ["unet.mid:", '"unet.right"', '"vae"']),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_named_all_at_once(value: Any, words: list[str]) -> None:
    with pytest.raises(AdapterError) as caught:
        strengths_by_module(NAMES, value, NAMES)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


# Against diffusers

VALUES: list[Any] = [
    0.4,
    {"unet": 0.8, "text_encoder": 0.3},
    {"text_encoder": 0.0},
    {"text_encoder": 0.5, "unet": {"down": 0.9, "mid": 0.7, "up": {"block_1": [0.4, 0.8, 1.5]}}},
    {"unet": {"down": {"block_1": [0.2, 0.7], "block_2": -0.5}, "mid": [0.1]}},
    {"unet": {"up": [0.1, 0.2, 0.3], "down": [0.0, 1.0]}},
    {"unet": {"up": {"block_1": [0.25]}}},
]


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def base(request: pytest.FixtureRequest, bases: dict[str, Path]) -> Callable[[], Any]:
    """A factory of pipelines as any user of diffusers loads them."""
    from diffusers import DiffusionPipeline

    def load() -> Any:
        pipe = DiffusionPipeline.from_pretrained(bases[request.param], safety_checker=None)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return load


@pytest.fixture(scope="module")
def file(base: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of all attentions of the UNet and the text encoders, in kohya's keys."""
    generator, weights = torch.Generator().manual_seed(0), {}
    pipe = base()
    for name, module in modules_of(pipe).items():
        if ".attn" in name or ".self_attn." in name:
            out, into = module.weight.shape  # type: ignore[misc, union-attr]
            down, up = (torch.randn(shape, generator=generator) for shape in ((2, into), (out, 2)))
            weights[name] = weights_of(down * into**-0.5, up * 0.3, 1.0)  # type: ignore[operator]
    family = "sdxl" if hasattr(pipe, "text_encoder_2") else "sd"
    path = tmp_path_factory.mktemp("strengths") / "style.safetensors"
    return Adapter(weights, {"sdlora.family": family}).save(path, dtype="float32")


@pytest.fixture(scope="module")
def loaded(base: Callable[[], Any], file: Path) -> Any:
    """A pipeline into which diffusers has loaded the file."""
    pipe = base()
    pipe.load_lora_weights(file.parent, weight_name=file.name, adapter_name="style")
    return pipe


def scales(pipe: Any) -> dict[str, float]:
    """What diffusers multiplies each module's layer with, apart from alpha / rank, which is 0.5 in the file."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    components = [c for c in ("unet", "text_encoder", "text_encoder_2") if hasattr(pipe, c)]
    return {
        name_of_module(component, path): module.scaling["style"] / 0.5
        for component in components
        for path, module in getattr(pipe, component).named_modules()
        if isinstance(module, BaseTunerLayer)
    }


def draw(pipe: Any) -> np.ndarray:
    side = pipe.unet.config.sample_size
    latents = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0))
    return pipe("a small blue boat on the sea", latents=latents, num_inference_steps=2, output_type="np").images


def test_every_module_has_the_strength_that_diffusers_gives_it(
    base: Callable[[], Any], file: Path, loaded: Any, subtests: pytest.Subtests
) -> None:
    pipe, adapter = base(), Adapter.load(file)
    for value in VALUES:
        with subtests.test(str(value)):
            loaded.set_adapters("style", value)
            with adapter.injected(pipe, value):
                layers = {name: module.loras for name, module in modules_of(pipe).items() if hasattr(module, "loras")}
                ours = {name: layer["default"].strength for name, layer in layers.items()}
            assert ours == pytest.approx(scales(loaded))
            assert len(ours) == len(adapter.weights)


def test_the_picture_is_that_of_diffusers_injected_and_fused(base: Callable[[], Any], file: Path, loaded: Any) -> None:
    pipe, adapter, value = base(), Adapter.load(file), VALUES[3]
    loaded.set_adapters("style", value)
    expected, plain = draw(loaded), draw(pipe)
    with adapter.injected(pipe, value):
        np.testing.assert_allclose(draw(pipe), expected, rtol=0, atol=1e-4)
        adapter.strength = 1.0
        whole = draw(pipe)
    assert np.abs(expected - plain).max() > 0.01
    assert np.abs(expected - whole).max() > 0.01
    adapter.fuse(pipe, value)
    np.testing.assert_allclose(draw(pipe), expected, rtol=0, atol=1e-4)
