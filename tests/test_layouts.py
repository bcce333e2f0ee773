"""Names in memory ↔ kohya's keys, over every module name of the full-size Stable Diffusion 1.5."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from sd_lora.errors import AdapterError
from sd_lora.layouts import kohya_stem, name_of_module, name_of_stem, split_key


@pytest.fixture(scope="module")
def names(sd15_unet: Any) -> list[str]:
    """Every linear and conv module of SD 1.5's UNet and text encoder, by name in memory."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        text_encoder = CLIPTextModel(
            CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
        )
    return [
        name_of_module(component, path)
        for component, root in (("unet", sd15_unet), ("text_encoder", text_encoder))
        for path, module in root.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]


def test_all_modules_are_there(names: list[str]) -> None:
    assert sum(name.startswith("text_encoder.") for name in names) == 72
    assert sum(name.startswith("unet.") for name in names) == 282


def test_stem_and_name_are_inverse_for_every_module(names: list[str]) -> None:
    assert [name_of_stem(kohya_stem(name)) for name in names] == names


def test_stems_are_unique_and_hold_no_dot(names: list[str]) -> None:
    stems = [kohya_stem(name) for name in names]
    assert len(set(stems)) == len(stems)
    assert not [stem for stem in stems if "." in stem]


def test_every_text_encoder_stem_has_the_text_model_level(names: list[str]) -> None:
    stems = [kohya_stem(name) for name in names if name.startswith("text_encoder.")]
    assert all(stem.startswith("lora_te_text_model_encoder_layers_") for stem in stems)


@pytest.mark.parametrize("path", ["encoder.layers.3.mlp.fc1", "text_model.encoder.layers.3.mlp.fc1"])
def test_the_text_model_level_is_restored_whatever_transformers_calls_it(path: str) -> None:
    assert name_of_module("text_encoder", path) == "text_encoder.text_model.encoder.layers.3.mlp.fc1"
    assert name_of_module("unet", "conv_in") == "unet.conv_in"


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        (
            "unet.down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0",
            "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out_0",
        ),
        (
            "unet.up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj",
            "lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_ff_net_0_proj",
        ),
        ("unet.mid_block.attentions.0.proj_in", "lora_unet_mid_block_attentions_0_proj_in"),
        ("unet.down_blocks.1.resnets.0.conv_shortcut", "lora_unet_down_blocks_1_resnets_0_conv_shortcut"),
        ("unet.up_blocks.0.upsamplers.0.conv", "lora_unet_up_blocks_0_upsamplers_0_conv"),
        (
            "text_encoder.text_model.encoder.layers.11.self_attn.q_proj",
            "lora_te_text_model_encoder_layers_11_self_attn_q_proj",
        ),
    ],
)
def test_known_names_have_kohyas_own_stems(name: str, stem: str) -> None:
    assert kohya_stem(name) == stem
    assert name_of_stem(stem) == name


@pytest.mark.parametrize(
    ("role", "meaning"), [("lora_down.weight", "down"), ("lora_up.weight", "up"), ("alpha", "alpha")]
)
def test_a_key_is_a_name_and_a_role(role: str, meaning: str) -> None:
    assert split_key(f"lora_unet_mid_block_resnets_0_conv1.{role}") == ("unet.mid_block.resnets.0.conv1", meaning)


@pytest.mark.parametrize(
    "key",
    [
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
        "lora_transformer_blocks_0_attn_to_q.lora_down.weight",
        "lora_unet_mid_block__resnets.lora_down.weight",
        "lora_unet_mid_block_attentions_0_proj_in.dora_scale",
        "lora_unet_mid_block_attentions_0_proj_in.lora_mid.weight",
        "lora_unet_mid_block_attentions_0_proj_in.hada_w1_a",
        "lora_unet_mid_block_attentions_0_proj_in",
        "unet.mid_block.attentions.0.proj_in.lora_A.weight",
        "model.diffusion_model.input_blocks.0.0.weight",
        "",
    ],
)
def test_foreign_keys_are_refused_by_name(key: str) -> None:
    with pytest.raises(AdapterError, match="in no layout that sd_lora reads"):
        split_key(key)
