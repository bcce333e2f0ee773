"""Stable Diffusion 1 and 2: one UNet, one CLIP text encoder. Also the family of the embedded base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sd_lora.errors import BaseModelError
from sd_lora.models.families.unet import UNetFamily, tokens_of

if TYPE_CHECKING:
    from torch import Tensor

    from sd_lora.models.families.base import Conditioning


class SdFamily(UNetFamily):
    name = "sd"
    pipeline_classes = ("StableDiffusionPipeline",)
    text_encoders = ("text_encoder",)
    _leave_out: ClassVar = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}

    def _check(self, pipe: Any, label: str) -> None:
        if pipe.unet.config.cross_attention_dim != pipe.text_encoder.config.hidden_size:
            raise BaseModelError(f"base model {label} is not whole: its text encoder does not fit its UNet")

    def kind(self, pipe: Any) -> str:
        if not pipe.unet.config.use_linear_projection:  # the one trait of SD2 that no size decides
            return "sd1"
        return "sd2-v" if pipe.scheduler.config.prediction_type == "v_prediction" else "sd2"

    def encode_captions(self, pipe: Any, captions: Sequence[str]) -> Conditioning:
        ids = tokens_of(pipe.text_encoder, pipe.tokenizer, captions)
        return {"states": pipe.text_encoder(ids).last_hidden_state}

    def pipeline_arguments(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Tensor]:
        return {"prompt_embeds": conditioning["states"], "negative_prompt_embeds": negative["states"]}
