"""Stable Diffusion XL (arXiv 2307.01952): two text encoders, a pooled embedding, the size and crop of the picture."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sd_lora.errors import BaseModelError
from sd_lora.models.families.base import Component, Kind
from sd_lora.models.families.latent import tokens_of
from sd_lora.models.families.unet import UNET, UNetFamily

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sd_lora.data.pictures.views import Framing
    from sd_lora.models.families.base import Conditioning

SDXL = Kind(
    "sdxl",
    {
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_v2": "False",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
    },
    ("sdxl_*", "stable-diffusion-xl*"),
    "SDXL",
    2048,
    openclip=("text_encoder_2",),
    checkpoint="sdxl",
    listed_by=("ss_base_model_version", "sdxl_*"),
)
#: its second text encoder, and transformers that are deeper than one layer
_ONLY_HERE = re.compile(r"text_encoder_2\.|.*\.transformer_blocks\.[1-9]")


class SdxlFamily(UNetFamily):
    name = "sdxl"
    title = "Stable Diffusion XL"
    pipeline_classes = ("StableDiffusionXLPipeline",)
    components = (
        UNET, Component("text_encoder", "lora_te1_", "text encoder", ("text_encoders.clip_l.transformer",)),
        Component("text_encoder_2", "lora_te2_", "second text encoder", ("text_encoders.clip_g.transformer",)),
    )  # fmt: skip
    kinds = (SDXL,)
    presets = ("style", "sdxl-style-block")
    writes_original = True
    unmapped: ClassVar = {
        "AUTOMATIC1111": ("unet.up_blocks.0.upsamplers.0.conv", "unet.add_embedding.*"),
        "diffusers": ("unet.add_embedding.*",),
    }
    target_groups: ClassVar = {
        **UNetFamily.target_groups,
        # The block that carries style (B-LoRA, arXiv 2403.14572); its neighbour attentions.0 carries content.
        "style-block": tuple(
            f"unet.up_blocks.0.attentions.1.*.{part}" for part in ("to_q", "to_k", "to_v", "to_out.0")
        ),
    }
    _leave_out: ClassVar = {"feature_extractor": None, "image_encoder": None, "add_watermarker": False}

    def _check(self, pipe: Any, label: str) -> None:
        unet, first, second = pipe.unet.config, pipe.text_encoder, pipe.text_encoder_2
        if first is None:
            raise BaseModelError(
                f"base model {label} has one text encoder; the SDXL refiner cannot be trained, name the SDXL base"
            )
        time_ids = (unet.projection_class_embeddings_input_dim or 0) - second.config.projection_dim
        fits = unet.cross_attention_dim == first.config.hidden_size + second.config.hidden_size
        if not fits or time_ids != 6 * (unet.addition_time_embed_dim or 0):
            raise BaseModelError(f"base model {label} is inconsistent: its text encoders do not fit its UNet")

    def kind(self, pipe: Any) -> Kind:  # noqa: ARG002
        return SDXL

    def kinds_by_modules(self, downs: Mapping[str, tuple[int, ...]]) -> list[Kind]:
        return [SDXL] if any(map(_ONLY_HERE.match, downs)) else []

    def encode_captions(self, pipe: Any, captions: Sequence[str]) -> Conditioning:
        """``states``: both encoders' last but one hidden states side by side; ``pooled``: the second's embedding."""
        import torch

        outputs = [
            encoder(tokens_of(encoder, tokenizer, captions), output_hidden_states=True)
            for encoder, tokenizer in self.text_parts(pipe)
        ]
        states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        pooled = outputs[1].text_embeds
        if pipe.config.force_zeros_for_empty_prompt:  # what such a base was trained with for no caption
            read = torch.tensor([bool(caption) for caption in captions], device=states.device)
            states, pooled = states * read[:, None, None], pooled * read[:, None]
        return {"states": states, "pooled": pooled}

    def encode_framing(self, framings: Sequence[Framing]) -> Conditioning:
        import torch

        rows = [[*framing.original, *framing.crop, *framing.target] for framing in framings]
        return {"time_ids": torch.tensor(rows, dtype=torch.float32)}

    def denoise(self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        added = {"text_embeds": conditioning["pooled"], "time_ids": conditioning["time_ids"]}
        return denoiser(noisy, timesteps, conditioning["states"], added_cond_kwargs=added, return_dict=False)[0]

    def pipeline_arguments(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Tensor]:
        return {
            "prompt_embeds": conditioning["states"], "negative_prompt_embeds": negative["states"],
            "pooled_prompt_embeds": conditioning["pooled"], "negative_pooled_prompt_embeds": negative["pooled"],
        }  # fmt: skip
