"""Base models as published, without storage for their weights, to derive names, shapes and counts from."""

from __future__ import annotations

from typing import Any

_CROSS = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D")
_SD: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (_CROSS[0],) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + (_CROSS[1],) * 3,
}
UNETS: dict[str, dict[str, Any]] = {
    "sd15": _SD | {"cross_attention_dim": 768, "attention_head_dim": 8},
    "sd21": _SD | {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
    "sdxl": {
        "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True,
        "down_block_types": ("DownBlock2D",) + (_CROSS[0],) * 2, "up_block_types": (_CROSS[1],) * 2 + ("UpBlock2D",),
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}  # fmt: skip
_SD3 = {
    "num_layers": 24, "attention_head_dim": 64, "num_attention_heads": 24, "caption_projection_dim": 1536,
    "joint_attention_dim": 4096, "pooled_projection_dim": 2048, "pos_embed_max_size": 192,
}  # fmt: skip
#: model → class and config of its transformer, of those on the hub
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "sd3-medium": ("SD3Transformer2DModel", _SD3),
    "sd3.5-medium": (
        "SD3Transformer2DModel",
        _SD3 | {"dual_attention_layers": tuple(range(13)), "qk_norm": "rms_norm", "pos_embed_max_size": 384},
    ),
    "sd3.5-large": (
        "SD3Transformer2DModel",
        _SD3 | {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "qk_norm": "rms_norm"},
    ),
}
TRANSFORMERS |= {
    "z-image": ("ZImageTransformer2DModel", {}),
    "flux-dev": ("FluxTransformer2DModel", {"guidance_embeds": True}), "flux-schnell": ("FluxTransformer2DModel", {}),
}  # fmt: skip
_CLIP_L = (768, 12, 12)
#: width, layers, heads
TEXT_ENCODERS = {"sd15": [_CLIP_L], "sd21": [(1024, 23, 16)], "sdxl": [_CLIP_L, (1280, 32, 20)]}


def transformer(model: str) -> Any:
    """A transformer of `TRANSFORMERS` on the meta device."""
    import diffusers
    import torch

    name, config = TRANSFORMERS[model]
    with torch.device("meta"):
        return getattr(diffusers, name)(**config)


def components(model: str) -> dict[str, Any]:
    """UNet and text encoders of "sd15", "sd21" or "sdxl" on the meta device."""
    import torch
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        parts: dict[str, Any] = {"unet": UNet2DConditionModel(**UNETS[model])}
        for number, (width, layers, heads) in enumerate(TEXT_ENCODERS[model], 1):
            config = CLIPTextConfig(
                hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads,
                projection_dim=width,
            )  # fmt: skip
            kind = CLIPTextModelWithProjection if number == 2 else CLIPTextModel
            parts["text_encoder" if number == 1 else f"text_encoder_{number}"] = kind(config)
    return parts
