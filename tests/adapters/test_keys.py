"""The keys of the default file, for every target group of the full-size models: frozen, and derived a second way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from published_sizes import TEXT_ENCODERS, components
from small_weights import weights_of

from sd_lora.adapters.file import read_adapter
from sd_lora.adapters.keys import kohya_stem, name_of_module, split_key
from sd_lora.adapters.writing import write_adapter
from sd_lora.lora.targets import plan_targets
from sd_lora.models.families import FAMILIES

GROUPS = ("attn", "ff", "proj", "conv", "text", "text_ff")
FAMILY = {"sd15": FAMILIES["sd"], "sd21": FAMILIES["sd"], "sdxl": FAMILIES["sdxl"]}
COUNTS = {
    "sd15": (128, 32, 32, 86, 48, 24),
    "sd21": (128, 32, 32, 86, 92, 46),
    "sdxl": (560, 140, 22, 66, 176, 88),
}
#: UNet blocks with attention: (diffusers block, layers of the transformer); all models: two resnets down, three up
DOWN = {"sd15": [1, 1, 1, 0], "sd21": [1, 1, 1, 0], "sdxl": [0, 2, 10]}
MIDDLE = {"sd15": 1, "sd21": 1, "sdxl": 10}


@pytest.fixture(scope="module", params=FAMILY)
def model(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def names(model: str) -> dict[str, list[str]]:
    parts, groups = components(model), FAMILY[model].target_groups
    return {
        group: [name_of_module(*t.name.split(".", 1)) for t in plan_targets(parts, groups, [group])] for group in GROUPS
    }


@pytest.fixture(scope="module")
def stems(model: str, names: dict[str, list[str]]) -> dict[str, set[str]]:
    return {group: {kohya_stem(name, FAMILY[model].name) for name in own} for group, own in names.items()}


def test_the_counts_are_those_of_the_published_models(model: str, stems: dict[str, set[str]]) -> None:
    assert tuple(len(stems[group]) for group in GROUPS) == COUNTS[model]
    assert len(set().union(*stems.values())) == sum(COUNTS[model])


def test_the_keys_are_the_frozen_ones(model: str, stems: dict[str, set[str]]) -> None:
    lines = (Path(__file__).parent / "keys" / f"{model}.txt").read_text("utf-8").splitlines()
    frozen = {tuple(line.split()) for line in lines}
    assert {(group, stem) for group, own in stems.items() for stem in own} == frozen
    assert len(lines) == len(frozen)


def test_the_keys_follow_from_the_table_of_blocks(model: str, stems: dict[str, set[str]]) -> None:
    derived: dict[str, set[str]] = {group: set() for group in GROUPS}
    for group, stem in (*unet_keys(model), *text_keys(model)):
        derived[group].add(stem)
    assert derived == stems


def test_every_key_leads_back_to_its_module(model: str, names: dict[str, list[str]]) -> None:
    for name in (name for own in names.values() for name in own):
        assert split_key(f"{kohya_stem(name, FAMILY[model].name)}.alpha").name == name


def test_the_largest_file_has_a_header_below_a_megabyte_and_only_the_keys_it_needs(
    model: str, names: dict[str, list[str]], tmp_path: Path
) -> None:
    """ComfyUI serves metadata of smaller headers only; more than twelve unknown keys and Forge refuses the file."""
    weights = {
        name: weights_of(torch.ones(1, 1), torch.ones(1, 1), 1.0) for own in names.values() for name in own
    }  # fmt: skip
    path = tmp_path / "all.safetensors"
    write_adapter(path, weights, {"sdlora.family": FAMILY[model].name, "ss_tag_frequency": "x" * 2000}, "float16")
    assert int.from_bytes(path.read_bytes()[:8], "little") < 2**20
    assert set(read_adapter(path)[0]) == set(weights)


# ---- a second derivation, by loops over the blocks


def unet_keys(model: str) -> Iterator[tuple[str, str]]:
    """(group, stem) of the UNet; SDXL with the original names, the others with those of diffusers."""
    xl, depths = model == "sdxl", DOWN[model]
    last = len(depths) - 1
    for block, depth in enumerate(depths):
        for j in range(2):
            resnet = f"input_blocks_{1 + 3 * block + j}_0" if xl else f"down_blocks_{block}_resnets_{j}"
            yield from resnet_keys(resnet, xl, widened=block in range(1, 4 if xl else 3) and j == 0)
            there = f"input_blocks_{1 + 3 * block + j}_1" if xl else f"down_blocks_{block}_attentions_{j}"
            yield from attention_keys(there, depth)
        if block < last:
            down = f"input_blocks_{3 * block + 3}_0_op" if xl else f"down_blocks_{block}_downsamplers_0_conv"
            yield "conv", f"lora_unet_{down}"
    for j in range(2):
        resnet = f"middle_block_{2 * j}" if xl else f"mid_block_resnets_{j}"
        yield from resnet_keys(resnet, xl, widened=False)
    yield from attention_keys("middle_block_1" if xl else "mid_block_attentions_0", MIDDLE[model])
    for block, depth in enumerate(reversed(depths)):
        for j in range(3):
            resnet = f"output_blocks_{3 * block + j}_0" if xl else f"up_blocks_{block}_resnets_{j}"
            yield from resnet_keys(resnet, xl, widened=True)
            there = f"output_blocks_{3 * block + j}_1" if xl else f"up_blocks_{block}_attentions_{j}"
            yield from attention_keys(there, depth)
        if block < last:
            up = f"output_blocks_{3 * block + 2}_2_conv" if xl else f"up_blocks_{block}_upsamplers_0_conv"
            yield "conv", f"lora_unet_{up}"


def resnet_keys(place: str, xl: bool, *, widened: bool) -> Iterator[tuple[str, str]]:
    parts = ("in_layers_2", "out_layers_3", "emb_layers_1") if xl else ("conv1", "conv2", "time_emb_proj")
    for part in parts + (("skip_connection" if xl else "conv_shortcut",) if widened else ()):
        yield "conv", f"lora_unet_{place}_{part}"


def attention_keys(place: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth:
        yield from (("proj", f"lora_unet_{place}_proj_{side}") for side in ("in", "out"))
    for layer in range(depth):
        here = f"lora_unet_{place}_transformer_blocks_{layer}"
        for attention in ("attn1", "attn2"):
            yield from (("attn", f"{here}_{attention}_to_{part}") for part in ("q", "k", "v", "out_0"))
        yield from (("ff", f"{here}_ff_net_{part}") for part in ("0_proj", "2"))


def text_keys(model: str) -> Iterator[tuple[str, str]]:
    for prefix, (_, layers, _) in zip(
        ("te1", "te2") if model == "sdxl" else ("te",), TEXT_ENCODERS[model], strict=True
    ):  # fmt: skip
        for layer in range(layers):
            here = f"lora_{prefix}_text_model_encoder_layers_{layer}"
            yield from (("text", f"{here}_self_attn_{part}_proj") for part in ("q", "k", "v", "out"))
            yield from (("text_ff", f"{here}_mlp_fc{number}") for number in (1, 2))
