"""Stable Diffusion 1: one UNet, one CLIP text encoder. Also the family of the embedded base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from sd_lora.errors import BaseModelError
from sd_lora.families.base import Conditioning, ModelFamily
from sd_lora.objectives import Objective


class SdFamily(ModelFamily):
    name = "sd"
    pipeline_classes = ("StableDiffusionPipeline",)
    denoiser = "unet"
    text_encoders = ("text_encoder",)
    target_groups: ClassVar = {
        "attn": ("unet.*.to_q", "unet.*.to_k", "unet.*.to_v", "unet.*.to_out.0"),
        "ff": ("unet.*.ff.net.0.proj", "unet.*.ff.net.2"),
        "conv": (
            "unet.*.conv1", "unet.*.conv2", "unet.*.conv_shortcut", "unet.*.time_emb_proj",
            "unet.*.downsamplers.0.conv", "unet.*.upsamplers.0.conv",
        ),
        "proj": ("unet.*.proj_in", "unet.*.proj_out"),
    }  # fmt: skip
    file_marks: ClassVar = {
        "ss_base_model_version": "sd_v1",
        "ss_v2": "False",
        "modelspec.architecture": "stable-diffusion-v1/lora",
    }

    def load(self, folder: Path, dtype: torch.dtype) -> StableDiffusionPipeline:
        diffusers_logging.disable_progress_bar()
        transformers_logging.disable_progress_bar()
        try:
            pipe = StableDiffusionPipeline.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, local_files_only=True, safety_checker=None,
                feature_extractor=None, requires_safety_checker=False,
            )  # fmt: skip
        except Exception as error:  # diffusers raises a dozen kinds for a folder that is not whole
            reason = str(error).strip().split("\n")[0]
            raise BaseModelError(f"base model {folder} cannot be loaded: {reason}") from error
        channels = pipe.unet.config.in_channels
        if channels != pipe.vae.config.latent_channels:
            raise BaseModelError(
                f"base model {folder} takes {channels} input channels; inpainting bases cannot be trained"
            )
        if pipe.unet.config.cross_attention_dim == 1024:
            raise BaseModelError(
                f"base model {folder} is Stable Diffusion 2; only the Stable Diffusion 1 type is supported"
            )
        if pipe.unet.config.cross_attention_dim != pipe.text_encoder.config.hidden_size:
            raise BaseModelError(f"base model {folder} is not whole: its text encoder does not fit its UNet")
        if len(pipe.tokenizer) != pipe.text_encoder.config.vocab_size:
            raise BaseModelError(
                f"base model {folder} has {len(pipe.tokenizer)} words in its tokenizer but "
                f"{pipe.text_encoder.config.vocab_size} in its text encoder; restore its tokenizer files"
            )
        for part in (pipe.unet, pipe.vae, pipe.text_encoder):
            part.requires_grad_(False).eval()
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def objective(self, pipe: Any) -> Objective:
        config = pipe.scheduler.config
        if not hasattr(pipe.scheduler, "alphas_cumprod"):
            raise BaseModelError(f"scheduler {type(pipe.scheduler).__name__} has no noise schedule that can be trained")
        return Objective(pipe.scheduler.alphas_cumprod.float(), config.prediction_type)

    def native_size(self, pipe: Any) -> int:
        return int(pipe.unet.config.sample_size * pipe.vae_scale_factor)

    @torch.no_grad()
    def encode_images(self, pipe: Any, images: Tensor) -> Tensor:
        vae = pipe.vae
        latents = vae.encode(images.to(vae.device, vae.dtype)).latent_dist.mean
        return latents.float() * vae.config.scaling_factor

    @torch.no_grad()
    def encode_captions(self, pipe: Any, captions: Sequence[str]) -> Conditioning:
        tokens = pipe.tokenizer(
            list(captions), padding="max_length", max_length=pipe.tokenizer.model_max_length, truncation=True,
            return_tensors="pt",
        )  # fmt: skip
        states = pipe.text_encoder(tokens.input_ids.to(pipe.text_encoder.device)).last_hidden_state
        return {"states": states}

    def overlong(self, pipe: Any, captions: Sequence[str]) -> list[int]:
        lengths = [len(ids) for ids in pipe.tokenizer(list(captions), truncation=False, verbose=False).input_ids]
        return [i for i, length in enumerate(lengths) if length > pipe.tokenizer.model_max_length]

    def denoise(self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        return denoiser(noisy, timesteps, conditioning["states"], return_dict=False)[0]

    def pipeline_arguments(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Tensor]:
        return {"prompt_embeds": conditioning["states"], "negative_prompt_embeds": negative["states"]}
