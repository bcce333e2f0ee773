"""Tiny random bases with the real layouts of every kind in the table, as diffusers folders: those with a UNet as deep
as the published models, those with a transformer a few blocks deep, all a few channels wide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sd_lora

CROSS_ATTENTION = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
UNET: dict[str, Any] = {"sample_size": 8, "layers_per_block": 2, "norm_num_groups": 8}
SD_UNET: dict[str, Any] = UNET | {
    "block_out_channels": (16, 32, 32, 32),
    "down_block_types": (CROSS_ATTENTION[0],) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + (CROSS_ATTENTION[1],) * 3,
}
UNETS: dict[str, dict[str, Any]] = {
    "sd1": SD_UNET | {"attention_head_dim": 4, "cross_attention_dim": 32},
    "sd2": SD_UNET | {"attention_head_dim": (2, 4, 4, 4), "cross_attention_dim": 40, "use_linear_projection": True},
    "sdxl": UNET | {
        "block_out_channels": (16, 32, 32), "attention_head_dim": (2, 4, 4), "cross_attention_dim": 56,
        "use_linear_projection": True, "transformer_layers_per_block": (1, 2, 3),
        "down_block_types": ("DownBlock2D",) + (CROSS_ATTENTION[0],) * 2,
        "up_block_types": (CROSS_ATTENTION[1],) * 2 + ("UpBlock2D",),
        "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 24,
    },
}  # fmt: skip
VAE = {
    "sample_size": 64,
    "block_out_channels": (8, 8, 16, 16),
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
UNET_KINDS = ("sd1", "sd2", "sd2v", "sdxl")
SD3: dict[str, Any] = {
    "sample_size": 8, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 3, "attention_head_dim": 8,
    "num_attention_heads": 4, "caption_projection_dim": 32, "joint_attention_dim": 80,
    "pooled_projection_dim": 32 + 24, "pos_embed_max_size": 16,
}  # fmt: skip
SD3S = {
    "sd3-medium": SD3,
    "sd3.5-medium": SD3 | {"qk_norm": "rms_norm", "dual_attention_layers": (0, 1)},
    "sd3.5-large": SD3 | {"qk_norm": "rms_norm", "num_attention_heads": 6, "caption_projection_dim": 48},
}
#: the VAE of SD3 as small as the others, and its numbers
FLOW_VAE = VAE | {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
SD3_VAE = FLOW_VAE | {"scaling_factor": 1.5305, "shift_factor": 0.0609}
FLUX: dict[str, Any] = {
    "in_channels": 64, "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2,
    "joint_attention_dim": 48, "pooled_projection_dim": 32, "axes_dims_rope": (4, 6, 6),
}  # fmt: skip
FLUX_VAE = FLOW_VAE | {"scaling_factor": 0.3611, "shift_factor": 0.1159}
#: transformer and scheduler
FLUXES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "flux-dev": (FLUX | {"guidance_embeds": True}, {"shift": 3.0, "use_dynamic_shifting": True}),
    "flux-schnell": (FLUX, {"shift": 1.0}),
}
Z_IMAGE: dict[str, Any] = {
    "dim": 32, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 32,
    "axes_dims": (4, 6, 6), "axes_lens": (1024, 64, 64),
}  # fmt: skip
KINDS = (*UNET_KINDS, *SD3S, *FLUXES, "z-image")


def write_base(kind: str, folder: Path, tokenizer: Any = None) -> Path:
    """Write base `kind` to `folder`, with the embedded base's tokenizer or the one given."""
    import torch

    tokenizer = tokenizer or clip_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(KINDS.index(kind))
        made_by = {**dict.fromkeys(SD3S, _sd3), **dict.fromkeys(FLUXES, _flux), "z-image": _z_image}
        make = made_by.get(kind, _unet)
        pipe = make(kind, tokenizer)
    pipe.to(torch.float32).save_pretrained(folder, safe_serialization=True)
    return folder


def clip_tokenizer() -> Any:
    """The tokenizer of the embedded base."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(sd_lora.tiny_base_path() / "tokenizer")


def _unet(kind: str, tokenizer: Any) -> Any:
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    scheduler = DDIMScheduler(
        **NOISE, set_alpha_to_one=False, steps_offset=1,
        prediction_type="v_prediction" if kind == "sd2v" else "epsilon",
    )  # fmt: skip
    scaling = 0.13025 if kind == "sdxl" else 0.18215
    parts: dict[str, Any] = {
        "vae": AutoencoderKL(**VAE, scaling_factor=scaling),
        "unet": UNet2DConditionModel(**UNETS[kind.removesuffix("v")]),
        "scheduler": scheduler, "tokenizer": tokenizer,
    }  # fmt: skip
    if kind == "sdxl":
        return StableDiffusionXLPipeline(
            **parts, text_encoder=CLIPTextModel(text_config(tokenizer, 32)), tokenizer_2=tokenizer,
            text_encoder_2=CLIPTextModelWithProjection(text_config(tokenizer, 24, "gelu")),
        )  # fmt: skip
    width, act = (40, "gelu") if kind.startswith("sd2") else (32, "quick_gelu")
    return StableDiffusionPipeline(
        **parts, text_encoder=CLIPTextModel(text_config(tokenizer, width, act)), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def _sd3(kind: str, tokenizer: Any) -> Any:
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextModelWithProjection

    t5, words = t5_encoder(80)
    return StableDiffusion3Pipeline(
        vae=AutoencoderKL(**SD3_VAE), transformer=SD3Transformer2DModel(**SD3S[kind]), tokenizer=tokenizer,
        tokenizer_2=tokenizer, tokenizer_3=words, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=CLIPTextModelWithProjection(text_config(tokenizer, 32)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(tokenizer, 24, "gelu")), text_encoder_3=t5,
    )  # fmt: skip


def _flux(kind: str, tokenizer: Any) -> Any:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel

    (transformer, scheduler), (t5, words) = FLUXES[kind], t5_encoder(48)
    return FluxPipeline(
        vae=AutoencoderKL(**FLUX_VAE), transformer=FluxTransformer2DModel(**transformer), tokenizer=tokenizer,
        tokenizer_2=words, scheduler=FlowMatchEulerDiscreteScheduler(**scheduler),
        text_encoder=CLIPTextModel(text_config(tokenizer, 32)), text_encoder_2=t5,
    )  # fmt: skip


def _z_image(kind: str, tokenizer: Any) -> Any:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    words = chat_tokenizer()
    config = Qwen3Config(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, vocab_size=len(words) + 4,
    )  # fmt: skip
    return ZImagePipeline(
        vae=AutoencoderKL(**FLUX_VAE), transformer=ZImageTransformer2DModel(**Z_IMAGE), tokenizer=words,
        text_encoder=Qwen3Model(config), scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip


def chat_tokenizer() -> Any:
    """A tokenizer of bytes and one word, with a template for questions."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    pieces = [*sorted(ByteLevel.alphabet()), "bo", "boa", "boat"]
    tokenizer = Qwen2Tokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)}, merges=[("b", "o"), ("bo", "a"), ("boa", "t")],
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )  # fmt: skip
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return tokenizer


def t5_encoder(width: int) -> tuple[Any, Any]:
    """A random T5 encoder of that `width`, with fewer words than it could have, and its tokenizer, of letters."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    letters = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    letters += [(chr(code), -3.0) for code in range(33, 127)]
    tokenizer = T5Tokenizer(vocab=letters, model_max_length=512)
    config = T5Config(
        d_model=width, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=len(tokenizer) + 4,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return T5EncoderModel(config), tokenizer


def text_config(tokenizer: Any, width: int, act: str = "quick_gelu") -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        hidden_size=width, intermediate_size=2 * width, projection_dim=width, num_hidden_layers=3,
        num_attention_heads=4, hidden_act=act, vocab_size=len(tokenizer),
        max_position_embeddings=tokenizer.model_max_length, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
