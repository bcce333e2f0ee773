"""Names in memory ↔ kohya's keys, over every module name of the full-size Stable Diffusion 1.5."""

from __future__ import annotations

from typing import Any

import pytest
from rows import every_row
from torch import nn

from sd_lora.adapters.foreign import foreign
from sd_lora.adapters.keys import Key, kohya_stem, name_of_module, split_key
from sd_lora.errors import AdapterError


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
    assert [split_key(f"{kohya_stem(name)}.alpha").name for name in names] == names


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
    assert split_key(f"{stem}.alpha").name == name


@pytest.mark.parametrize(
    ("role", "meaning"),
    [("lora_down.weight", "down"), ("lora_up.weight", "up"), ("alpha", "alpha"), ("dora_scale", "magnitude")],
)
def test_a_key_is_a_name_and_a_role(role: str, meaning: str) -> None:
    key = split_key(f"lora_unet_mid_block_resnets_0_conv1.{role}")
    assert key == Key("unet.mid_block.resnets.0.conv1", meaning, "kohya")


@every_row(
    "key",
    [
        "lora_transformer_blocks_0_attn_to_q.lora_down.weight",
        "lora_unet_mid_block__resnets.lora_down.weight",
        "lora_te3_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
        "lora_unet_input_blocks_4_3_proj_in.lora_down.weight",
        "lora_unet_output_blocks_2_1_conv_2.lora_down.weight",
        "unet.mid_block.attentions.0.proj_in.lora_C.weight",
        "vae.mid_block.attentions.0.proj_in.lora_A.weight",
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn3_to_q.lora_down.weight",
        "unet.down_blocks.0.resnets.0.conv3.lora_A.weight",
        "lora_unet_mid_block_attentions_0_proj_in",
        "model.diffusion_model.input_blocks.0.0.weight",
        "",
    ],
)
def test_foreign_keys_are_refused_by_name(key: str) -> None:
    with pytest.raises(AdapterError, match="in no layout that sd_lora reads"):
        split_key(key)


@every_row(
    "key, name, role, layout",
    [
        ("unet.mid_block.resnets.0.conv1.lora_A.weight", "unet.mid_block.resnets.0.conv1", "down", "diffusers"),
        ("unet.base_model.model.conv_in.lora_B.weight", "unet.conv_in", "up", "other"),
        ("unet.conv_in.lora_B.default.weight", "unet.conv_in", "up", "other"),
        ("unet.conv_in.lora_magnitude_vector", "unet.conv_in", "magnitude", "diffusers"),
        ("unet.conv_in.lora_magnitude_vector.weight", "unet.conv_in", "magnitude", "diffusers"),
        (
            "text_encoder.encoder.layers.0.mlp.fc1.lora_A.weight",
            "text_encoder.text_model.encoder.layers.0.mlp.fc1", "down", "diffusers",
        ),
        (
            "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.up.weight",
            "text_encoder_2.text_model.encoder.layers.0.mlp.fc1", "up", "diffusers-old",
        ),
        (
            "unet.mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.down.weight",
            "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0", "down", "diffusers-old",
        ),
        (
            "unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.up.weight",
            "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k", "up", "diffusers-old",
        ),
        ("unet.mid_block.resnets.0.conv1.lora.down.weight", "unet.mid_block.resnets.0.conv1", "down", "diffusers-old"),
        ("lora_unet_input_blocks_0_0.alpha", "unet.conv_in", "alpha", "kohya-sgm"),
        ("lora_unet_out_2.alpha", "unet.conv_out", "alpha", "kohya-sgm"),
        ("lora_unet_label_emb_0_2.alpha", "unet.add_embedding.linear_2", "alpha", "kohya-sgm"),
        ("lora_unet_time_embed_0.alpha", "unet.time_embedding.linear_1", "alpha", "kohya-sgm"),
        (
            "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_out_0.lora_up.weight",
            "unet.down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_out.0", "up", "kohya-sgm",
        ),
        ("lora_unet_input_blocks_3_0_op.alpha", "unet.down_blocks.0.downsamplers.0.conv", "alpha", "kohya-sgm"),
        ("lora_unet_output_blocks_2_2_conv.alpha", "unet.up_blocks.0.upsamplers.0.conv", "alpha", "kohya-sgm"),
        ("lora_unet_output_blocks_2_1_conv.alpha", "unet.up_blocks.0.upsamplers.0.conv", "alpha", "kohya-sgm"),
        ("lora_unet_middle_block_2_in_layers_2.alpha", "unet.mid_block.resnets.1.conv1", "alpha", "kohya-sgm"),
        ("lora_unet_output_blocks_5_0_out_layers_3.alpha", "unet.up_blocks.1.resnets.2.conv2", "alpha", "kohya-sgm"),
        (
            "lora_te2_text_model_encoder_layers_31_self_attn_q_proj.lora_down.weight",
            "text_encoder_2.text_model.encoder.layers.31.self_attn.q_proj", "down", "kohya",
        ),
        (
            "lora_te1_text_model_encoder_layers_1_self_attn_q_proj.lora_down.weight",
            "text_encoder.text_model.encoder.layers.1.self_attn.q_proj", "down", "kohya",
        ),
    ],
)  # fmt: skip
def test_every_spelling_is_read(key: str, name: str, role: str, layout: str) -> None:
    assert split_key(key) == Key(name, role, layout)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("vae.encoder.conv_in", "an adapter file cannot hold modules"),
        ("text_encoder_3.encoder.conv_in", "an adapter file cannot hold modules"),
        ("unet.down_blocks.0.motion_modules.0.proj_in.x", "does not exist in Stable Diffusion XL"),
        ("unet.nonsense", "does not exist in Stable Diffusion XL"),
    ],
)
def test_what_sdxl_has_not_is_not_named(name: str, words: str) -> None:
    with pytest.raises(AdapterError, match=words):
        kohya_stem(name, "sdxl")


@every_row(
    "key, what",
    [
        ("lora_unet_single_blocks_0_linear1.lora_down.weight", "without a UNet"),
        ("transformer.layers.0.attn1.to_q.lora_A.weight", "without a UNet"),
        ("bundle_emb.x.string_to_param.*", "embeddings"),
        ("model.diffusion_model.input_blocks.0.0.weight", "a base model"),
        ("something.else", ""),
    ],
)
def test_foreign_files_are_called_what_they_are(key: str, what: str) -> None:
    assert what in foreign(key)
    assert bool(foreign(key)) == bool(what)
