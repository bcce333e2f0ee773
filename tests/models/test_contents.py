"""What is a safetensors file and not what was asked for is named by its keys, as an adapter and as a base model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rows import every_row
from safetensors.torch import save_file

from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.summary import read_summary
from sd_lora.errors import AdapterError, BaseModelError
from sd_lora.models.contents import CONTENTS, Contents, contents_of_keys
from sd_lora.models.opening import load_base

#: of a checkpoint that may be complete, or is pruned, which is another message
PRUNED = "model.diffusion_model.input_blocks.0.0.weight"
LAYER = "transformer_blocks.0.attn.to_q.lora_A.weight"
#: keys of files as programs write them, and what each is called
FILES: dict[str, tuple[list[str], str]] = {
    "a1111's embedding": (["emb_params"], "a textual-inversion embedding"),
    "an older one": (["string_to_param.*"], "a textual-inversion embedding"),
    "sdxl's embedding": (["clip_g", "clip_l"], "a textual-inversion embedding"),
    "diffusers' embedding": (["<cat-toy>"], "a textual-inversion embedding"),
    "a controlnet": (["control_model.input_blocks.0.0.weight", "control_model.zero_convs.0.0.bias"], "a ControlNet"),
    "diffusers' controlnet": (["controlnet_cond_embedding.conv_in.weight", "down_blocks.0.resnets.0.conv1.weight"],
                              "a ControlNet"),
    "a control-lora": (["input_hint_block.0.weight", "input_blocks.1.0.emb_layers.1.down", "lora_controlnet"],
                       "a ControlNet"),
    "controlnet-lllite": (["lllite_unet_input_blocks_4_1_attn1_to_q.down.0.weight"], "a ControlNet"),
    "a t2i-adapter": (["body.0.block1.weight", "conv_in.weight"], "a T2I-Adapter"),
    "diffusers' t2i-adapter": (["adapter.body.0.resnets.0.block1.weight", "adapter.conv_in.weight"], "a T2I-Adapter"),
    "an ip-adapter": (["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"], "an IP-Adapter"),
    "a face-id adapter": (["image_proj.proj.0.weight", "ip_adapter.0.to_k_ip.weight"], "an IP-Adapter"),
    "a motion module": (["down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"], "a motion module"),
    "a motion lora": (["down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0"
                       ".processor.to_q_lora.down.weight"], "a motion LoRA of AnimateDiff"),
    "llama's adapter": (["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"],
                        "a LoRA for a language model"),
    "an unwrapped one": (["model.layers.3.mlp.up_proj.lora_B.weight"], "a LoRA for a language model"),
    "gpt-2's adapter": (["base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"], "a LoRA for a language model"),
    "llama": (["model.layers.0.self_attn.q_proj.weight", "lm_head.weight", "model.norm.weight"], "a language model"),
    "kohya's flux": (["lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"], "a LoRA for Flux .*without a UNet"),
    "a single block of it": (["lora_unet_single_blocks_0_linear1.alpha",
                              "lora_unet_single_blocks_0_linear1.lora_up.weight"], "a LoRA for Flux"),
    "comfy's flux": (["diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight"], "a LoRA for Flux"),
    "sd3": (["lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight"], "a LoRA for Stable Diffusion 3"),
    "diffusers' pixart": ([f"transformer.{LAYER.replace('attn', 'attn1')}"],
                          "a LoRA for a model without a UNet, such as Qwen"),
    "qwen's": ([f"{LAYER.replace('to_q', 'img_mod')}"], "a LoRA for a model without a UNet"),
    "wan": (["diffusion_model.blocks.0.self_attn.q.lora_A.weight"], "a LoRA for Wan"),
    "kohya's wan": (["lora_unet_blocks_0_cross_attn_k.lora_down.weight"], "a LoRA for Wan"),
    "lumina": (["diffusion_model.layers.0.attention.qkv.lora_A.weight"], "a LoRA for a model without a UNet"),
    "cascade's lora": (["lora_prior_unet_down_blocks_0_1_channelwise_0.lora_down.weight"], "a LoRA for a model"),
    "a checkpoint": (["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight"],
                     "a complete checkpoint, which is a base model, not an adapter; name an adapter, and this with "),
    "a unet of one": (["model.diffusion_model.input_blocks.0.0.weight"], "the UNet weights of a checkpoint"),
    "a bare unet": (["input_blocks.0.0.weight", "out.2.weight"], "a UNet alone, without the prefix"),
    "diffusers' unet": (["conv_in.weight", "down_blocks.0.resnets.0.conv1.weight", "mid_block.resnets.0.conv1.bias"],
                        "a UNet alone, in diffusers' layout"),
    "a vae": (["encoder.down.0.block.0.conv1.weight", "decoder.conv_in.weight", "quant_conv.bias"], "a VAE alone"),
    "a vae of a checkpoint": (["first_stage_model.encoder.conv_in.weight"], "a VAE alone"),
    "taesd": (["decoder.layers.1.weight", "decoder.layers.3.conv.0.weight"], "a small decoder for previews"),
    "taesd alone": (["1.weight", "3.conv.0.weight", "x.y"], "a small decoder for previews"),
    "diffusers' vae": (["encoder.down_blocks.0.resnets.0.conv1.weight", "decoder.conv_in.weight"], "a VAE alone"),
    "clip": (["text_model.encoder.layers.0.mlp.fc1.weight", "text_model.final_layer_norm.bias", "x.y"],
             "a text encoder alone"),
    "t5": (["encoder.block.0.layer.0.SelfAttention.q.weight", "shared.weight", "x.y"], "a text encoder alone"),
    "clip's other half": (["vision_model.embeddings.class_embedding", "x.y", "x.z"], "a vision encoder"),
    "an upscaler": (["conv_first.weight", "RRDB_trunk.0.RDB1.conv1.weight", "x.y"], "an upscaler of pictures"),
    "sd3's model": (
        ["model.diffusion_model.joint_blocks.0.context_block.adaLN_modulation.1.bias"], "Stable Diffusion 3 in one"),
    "flux": (["double_blocks.0.img_attn.norm.key_norm.scale"], "Flux in one file, which is a base model"),
}  # fmt: skip
#: rows that only shapes show, or that an adapter is not called
BY_SHAPE = {"the SDXL refiner", "an unCLIP model", "an inpainting model", "an InstructPix2Pix model",
            "a depth-to-image model", "an upscaler", "Playground v2.5", "Stable Cascade (Wuerstchen)",
            "a LoRA adapter"}  # fmt: skip


def file_of(keys: list[str], path: Path) -> Path:
    save_file({key: torch.ones(4, 4) for key in keys}, path)
    return path


#: of families that are read by now, by the names of their original code
READ = ("kohya's flux", "a single block of it", "comfy's flux", "sd3", "lumina")
FOREIGN = {name: row for name, row in FILES.items() if name not in READ}


@every_row("name", READ)
def test_half_a_module_of_a_family_that_is_read_is_damaged(name: str, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"has no (up|down)|cannot be divided among") as caught:
        Adapter.load(file_of(FILES[name][0], tmp_path / "style.safetensors"))
    assert str(caught.value).isprintable()


@every_row("keys, what", FOREIGN.values(), ids=FOREIGN)
def test_given_as_an_adapter_it_is_named(keys: list[str], what: str, tmp_path: Path) -> None:
    path = file_of(keys, tmp_path / "style.safetensors")
    with pytest.raises(AdapterError, match=rf"{len(keys)} of {len(keys)} keys .*; it holds {what}") as caught:
        Adapter.load(path)
    assert "convert it" not in str(caught.value)
    assert str(caught.value).isprintable()
    assert read_summary(path).problem.partition("it holds ")[2] == str(caught.value).partition("it holds ")[2]


@every_row(
    "keys, what", [row for row in FILES.values() if row[0][0] != "model.diffusion_model.input_blocks.0.0.weight"]
)
def test_given_as_a_base_it_is_named(keys: list[str], what: str, tmp_path: Path) -> None:
    what = what.partition(", which")[0]
    with pytest.raises(BaseModelError, match=rf"style.safetensors is {what}.*, which cannot be trained; name"):
        load_base(file_of(keys, tmp_path / "style.safetensors"))


def test_every_row_has_its_file() -> None:
    named: set[Contents | None] = {contents_of_keys(keys) for keys, _ in FILES.values()}
    assert {row.what for row in CONTENTS} - {row.what for row in named if row} == BY_SHAPE


@every_row(
    "key, words",
    [
        ("lora_unet_nowhere_to_q.lora_down.weight", "convert it to kohya keys"),
        ("something.proj.lora_A.weight", "convert it to kohya keys"),
        ("optimizer.state", "they are not those of a LoRA; name an adapter file"),
    ],
)
def test_only_what_looks_like_a_lora_is_to_be_converted(key: str, words: str, tmp_path: Path) -> None:
    save_file({key: torch.ones(4, 4), "b.c": torch.ones(1, 1, 1), "d.e": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match=f"3 of 3 keys .*; {words}"):
        Adapter.load(tmp_path / "a.safetensors")
