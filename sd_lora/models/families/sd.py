"""Stable Diffusion 1 and 2: one UNet, one CLIP text encoder. Also the family of the embedded base."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sd_lora.errors import BaseModelError
from sd_lora.models.families.base import Component, Kind
from sd_lora.models.families.latent import tokens_of
from sd_lora.models.families.unet import UNET, UNetFamily

if TYPE_CHECKING:
    from torch import Tensor

    from sd_lora.models.families.base import Conditioning


def _kind(name: str, version: str, architecture: str, *facts: Any, **more: Any) -> Kind:
    known_by = (version, f"{architecture}/lora")
    marks = {"ss_base_model_version": version, "ss_v2": str(version != "sd_v1"), "modelspec.architecture": known_by[1]}
    return Kind(name, marks, known_by, *facts, **more)


_SD2: dict[str, Any] = {"openclip": ("text_encoder",), "checkpoint": "sd2", "listed_by": ("ss_v2", "True")}
SD1 = _kind("sd1", "sd_v1", "stable-diffusion-v1", "SD1", 768, has_pixel_projections=True, checkpoint="sd15")
SD2 = _kind("sd2", "sd_v2", "stable-diffusion-v2-512", "SD2", 1024, **_SD2)
SD2_V = _kind("sd2-v", "sd_v2_v", "stable-diffusion-v2-768-v", "SD2", 1024, predicts_v=True, **_SD2)
#: blocks that have attention here and not in SDXL, or exist only here
_ONLY_HERE = re.compile(r"unet\.(?:(?:down|up)_blocks\.3\.|down_blocks\.0\.attentions\.|up_blocks\.2\.attentions\.)")
_PROJECTION = re.compile(r"unet\..*\.proj_(?:in|out)$")


_CLIP = ("text_encoders.clip_l.transformer", "text_encoders.clip_h.transformer")  # of SD1 and of SD2, in checkpoints


class SdFamily(UNetFamily):
    name = "sd"
    title = "Stable Diffusion"
    pipeline_classes = ("StableDiffusionPipeline",)
    components = (UNET, Component("text_encoder", "lora_te_", "text encoder", _CLIP))
    kinds = (SD1, SD2, SD2_V)
    presets = ("style",)
    _leave_out: ClassVar = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}

    def _check(self, pipe: Any, label: str) -> None:
        if pipe.unet.config.cross_attention_dim != pipe.text_encoder.config.hidden_size:
            raise BaseModelError(f"base model {label} is inconsistent: its text encoder does not fit its UNet")

    def kind(self, pipe: Any) -> Kind:
        if not pipe.unet.config.use_linear_projection:  # the one trait of SD2 that does not depend on sizes
            return SD1
        return SD2_V if pipe.scheduler.config.prediction_type == "v_prediction" else SD2

    def kinds_by_modules(self, downs: Mapping[str, tuple[int, ...]]) -> list[Kind]:
        if not any(map(_ONLY_HERE.match, downs)):
            return []
        sides = {len(shape) for name, shape in downs.items() if _PROJECTION.match(name)}
        return [SD1] if 4 in sides else [SD1, SD2, SD2_V]  # a kernel of ones may be left out

    def encode_captions(self, pipe: Any, captions: Sequence[str]) -> Conditioning:
        ids = tokens_of(pipe.text_encoder, pipe.tokenizer, captions)
        return {"states": pipe.text_encoder(ids).last_hidden_state}

    def pipeline_arguments(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Tensor]:
        return {"prompt_embeds": conditioning["states"], "negative_prompt_embeds": negative["states"]}
