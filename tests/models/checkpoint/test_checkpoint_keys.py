"""One table between diffusers' names and the keys of a checkpoint: complete, without collisions, the same both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rows import every_row
from small_bases import UNET_KINDS as KINDS

from sd_lora.errors import BaseModelError
from sd_lora.models.checkpoint.keys import PREFIXES, Place, fits, gathered, places
from sd_lora.models.families import kinds
from sd_lora.models.opening import load_base

LAYOUTS = {"sd1": "sd15", "sd2": "sd2", "sd2v": "sd2", "sdxl": "sdxl"}
#: kind, component, diffusers' name, key: as published checkpoints have them
KNOWN = [
    ("sd15", "unet", "conv_in.weight", "model.diffusion_model.input_blocks.0.0.weight"),
    (
        "sd15", "unet", "up_blocks.3.resnets.2.conv_shortcut.weight",
        "model.diffusion_model.output_blocks.11.0.skip_connection.weight",
    ),
    ("sd15", "unet", "up_blocks.0.upsamplers.0.conv.bias", "model.diffusion_model.output_blocks.2.1.conv.bias"),
    ("sd15", "unet", "up_blocks.1.upsamplers.0.conv.bias", "model.diffusion_model.output_blocks.5.2.conv.bias"),
    ("sd15", "unet", "down_blocks.2.downsamplers.0.conv.weight", "model.diffusion_model.input_blocks.9.0.op.weight"),
    ("sd15", "unet", "mid_block.resnets.1.norm1.bias", "model.diffusion_model.middle_block.2.in_layers.0.bias"),
    (
        "sd2", "unet", "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k.weight",
        "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight",
    ),
    ("sdxl", "unet", "add_embedding.linear_2.weight", "model.diffusion_model.label_emb.0.2.weight"),
    ("sdxl", "unet", "up_blocks.0.upsamplers.0.conv.bias", "model.diffusion_model.output_blocks.2.2.conv.bias"),
    ("sd15", "vae", "decoder.conv_norm_out.weight", "first_stage_model.decoder.norm_out.weight"),
    (
        "sd15", "vae", "decoder.up_blocks.0.resnets.2.conv_shortcut.weight",
        "first_stage_model.decoder.up.3.block.2.nin_shortcut.weight",
    ),
    ("sd15", "vae", "decoder.up_blocks.2.upsamplers.0.conv.bias", "first_stage_model.decoder.up.1.upsample.conv.bias"),
    ("sd15", "vae", "encoder.mid_block.resnets.1.conv2.bias", "first_stage_model.encoder.mid.block_2.conv2.bias"),
    (
        "sd15", "text_encoder", "encoder.layers.11.mlp.fc2.bias",
        "cond_stage_model.transformer.text_model.encoder.layers.11.mlp.fc2.bias",
    ),
    (
        "sdxl", "text_encoder_2", "text_model.encoder.layers.9.mlp.fc2.bias",
        "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias",
    ),
    (
        "sdxl", "text_encoder_2", "text_model.embeddings.position_embedding.weight",
        "conditioner.embedders.1.model.positional_embedding",
    ),
    ("sd2", "text_encoder", "embeddings.token_embedding.weight", "cond_stage_model.model.token_embedding.weight"),
]  # fmt: skip


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def parts(kind: str, bases: dict[str, Path]) -> dict[str, dict[str, Any]]:
    pipe, _ = load_base(bases[kind])
    return {name: dict(getattr(pipe, name).state_dict()) for name in PREFIXES[LAYOUTS[kind]]}


def test_keys_are_the_published_ones() -> None:
    ups = ["decoder.up_blocks.{}.resnets.0.norm1.weight".format(i) for i in range(4)]  # noqa: UP032
    resnets = [f"down_blocks.0.resnets.{i}.norm1.weight" for i in range(2)]
    for kind, component, name, key in KNOWN:
        around = {"unet": resnets, "vae": ups}.get(component, [])
        assert places(kind, component, [*around, name])[name] == Place(key)


def test_every_weight_has_a_place_of_its_own_and_comes_back(kind: str, parts: dict[str, dict[str, Any]]) -> None:
    taken: set[str] = set()
    for component, weights in parts.items():
        where = places(LAYOUTS[kind], component, weights)
        assert where.keys() == weights.keys()
        assert len(set(where.values())) == len(where)
        stored = gathered(weights, where)
        assert not taken & stored.keys()
        taken |= stored.keys()
        for name, tensor in weights.items():
            assert fits(where[name], tuple(stored[where[name].key].shape), tuple(tensor.shape))
            assert torch.equal(where[name].of(stored[where[name].key], tuple(tensor.shape)), tensor)


def test_queries_keys_and_values_of_openclip_lie_above_one_another() -> None:
    names = [f"text_model.encoder.layers.0.self_attn.{p}_proj.weight" for p in "qkv"]
    parameters = {name: torch.full((2, 2), float(i)) for i, name in enumerate(names)}
    where = places("sd2", "text_encoder", names)
    (stored,) = gathered(dict(reversed(parameters.items())), where).values()
    assert stored[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert where[names[1]].key == "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight"


def test_the_text_projection_of_openclip_is_transposed() -> None:
    where = places("sdxl", "text_encoder_2", ["text_projection.weight"])
    weight = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(
        gathered({"text_projection.weight": weight}, where)["conditioner.embedders.1.model.text_projection"], weight.T
    )
    assert not fits(where["text_projection.weight"], (2, 3), (2, 3))


def test_the_attention_of_the_vae_is_stored_as_convolutions_and_read_either_way() -> None:
    name = "encoder.mid_block.attentions.0.to_q.weight"
    where = places("sd15", "vae", [name])
    weight = torch.rand(4, 4)
    (stored,) = gathered({name: weight}, where).values()
    assert stored.shape == (4, 4, 1, 1)
    for shape in ((4, 4, 1, 1), (4, 4)):
        assert fits(where[name], shape, (4, 4))
        assert torch.equal(where[name].of(weight.reshape(shape), (4, 4)), weight)
    assert not fits(where[name], (4, 4, 3, 3), (4, 4))


@every_row(
    "component, name",
    [
        ("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.loras.default.down.weight"),
        ("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.base_layer.weight"),
        ("unet", "down_blocks.0.resnets.0.conv9.weight"),
        ("unet", "class_embedding.weight"),
        ("vae", "encoder.mid_block.attentions.0.to_x.weight"),
        ("vae", "encoder.other.weight"),
        ("text_encoder", "encoder.layers.0.self_attn.q_proj.loras.default.up.weight"),
        ("text_encoder", "text_projection.weight"),
    ],
)
def test_what_has_no_place_is_refused(component: str, name: str) -> None:
    with pytest.raises(BaseModelError, match=r"a checkpoint cannot hold .* fuse or eject adapters"):
        places("sd15", component, [name])
    if name != "text_projection.weight":
        with pytest.raises(BaseModelError, match="a checkpoint cannot hold"):
            places("sd2", component, [name])


#: parameters of the published models
PUBLISHED = {
    "sd1": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "sd2": {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840},
    "sd2-v": {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840},
    "sdxl": {
        "unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840,
    },
}  # fmt: skip


@pytest.mark.parametrize("base", PUBLISHED)
def test_the_shipped_numbers_are_those_of_the_published_models(base: str) -> None:
    from sd_lora.models.checkpoint import file as single_file

    numbers = json.loads((Path(single_file.__file__).parent / f"bases/{base}.json").read_text("utf-8"))
    assert numbers.keys() == {*PUBLISHED[base], "scheduler"}
    for component, expected in PUBLISHED[base].items():
        model = single_file._model(component, numbers[component])
        assert sum(parameter.numel() for parameter in model.parameters()) == expected
        assert len(places(kinds()[base].checkpoint, component, model.state_dict())) > 100
