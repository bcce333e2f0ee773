"""Stable Diffusion 3 and 3.5 (arXiv 2403.03206): a transformer, two CLIP text encoders, and T5, which may be absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sd_lora.errors import BaseModelError
from sd_lora.models.families.base import Component, Kind
from sd_lora.models.families.latent import tokens_of
from sd_lora.models.families.transformer import JOINT_ATTENTION, SEGMENT, TransformerFamily, parts, paths
from sd_lora.models.families.unet import TEXT_GROUPS
from sd_lora.models.families.unet_names import is_native, lasting_path

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sd_lora.models.families.base import Conditioning


def _kind(name: str, version: str, short: str, width: int) -> Kind:
    """`short`: of the name that sd-scripts writes; SwarmUI has another."""
    mark, architecture = f"sd3_{short}", f"stable-diffusion-3-{short}/lora"
    marks = {"ss_base_model_version": mark, "ss_v2": "False", "modelspec.architecture": architecture}
    return Kind(name, marks, (mark, architecture, f"stable-diffusion-v{name.removeprefix('sd')}/lora"), version, width)


SD3 = _kind("sd3-medium", "SD3", "m", 1536)
SD35_MEDIUM = _kind("sd3.5-medium", "SD3.5 medium", "5-medium", 1536)
SD35_LARGE = _kind("sd3.5-large", "SD3.5 large", "5-large", 2432)

_BLOCK = r"transformer_blocks\.\d+\."
_PATHS = paths(
    rf"{_BLOCK}attn2?\.(?:to_[qkv]|to_out\.0)", rf"{_BLOCK}attn\.(?:add_[qkv]_proj|to_add_out)",
    rf"{_BLOCK}ff(?:_context)?\.net\.(?:0\.proj|2)", rf"{_BLOCK}norm1(?:_context)?\.(?:linear|norm)",
    rf"{_BLOCK}norm2(?:_context)?", r"pos_embed\.proj", r"context_embedder", r"norm_out\.(?:linear|norm)", r"proj_out",
    r"time_text_embed\.(?:timestep|text)_embedder\.linear_[12]",
)  # fmt: skip
_T5 = "text_encoder_3"
_HERE = "transformer_blocks.#"
_ORIGINALS = {
    "joint_blocks.#.x_block.attn.qkv": parts(_HERE, attn__to_q=1, attn__to_k=1, attn__to_v=1),
    "joint_blocks.#.x_block.attn2.qkv": parts(_HERE, attn2__to_q=1, attn2__to_k=1, attn2__to_v=1),
    "joint_blocks.#.context_block.attn.qkv": parts(_HERE, attn__add_q_proj=1, attn__add_k_proj=1, attn__add_v_proj=1),
    "joint_blocks.#.x_block.attn.proj": parts(_HERE, attn__to_out__0=1),
    "joint_blocks.#.x_block.attn2.proj": parts(_HERE, attn2__to_out__0=1),
    "joint_blocks.#.context_block.attn.proj": parts(_HERE, attn__to_add_out=1),
    "joint_blocks.#.x_block.mlp.fc1": parts(_HERE, ff__net__0__proj=1),
    "joint_blocks.#.x_block.mlp.fc2": parts(_HERE, ff__net__2=1),
    "joint_blocks.#.context_block.mlp.fc1": parts(_HERE, ff_context__net__0__proj=1),
    "joint_blocks.#.context_block.mlp.fc2": parts(_HERE, ff_context__net__2=1),
}


class Sd3Family(TransformerFamily):
    name = "sd3"
    title = "Stable Diffusion 3"
    pipeline_classes = ("StableDiffusion3Pipeline",)
    denoiser_class = "SD3Transformer2DModel"
    components = (
        Component("transformer", "lora_transformer_", "transformer", ("diffusion_model",)),
        Component("text_encoder", "lora_te1_", "text encoder", ("text_encoders.clip_l.transformer",)),
        Component("text_encoder_2", "lora_te2_", "second text encoder", ("text_encoders.clip_g.transformer",)),
    )
    readers = (_T5,)
    text_lengths: ClassVar = {_T5: 256}
    kinds = (SD3, SD35_MEDIUM, SD35_LARGE)
    presets = ("sd35-style",)
    shares_adapters = False
    layouts = ("diffusers",)
    read_by: ClassVar = {"diffusers": ("diffusers", "ComfyUI")}
    stacks: ClassVar = {"transformer_blocks": "joint"}
    target_groups: ClassVar = {
        "attn": tuple(f"transformer.transformer_blocks.*.{part}" for part in JOINT_ATTENTION),
        "ff": tuple(f"transformer.*.{part}.net.{end}" for part in ("ff", "ff_context") for end in ("0.proj", "2")),
        **TEXT_GROUPS,
    }
    width_modules = (".attn.to_q", ".attn.to_k", ".attn.to_v")
    unquantized = ("time_text_embed.", "pos_embed.", "context_embedder", "norm_out.", "proj_out")
    originals: ClassVar = _ORIGINALS
    segment = SEGMENT
    _leave_out: ClassVar = {"feature_extractor": None, "image_encoder": None}

    def native_path(self, component: str, path: str) -> tuple[str, bool]:
        of_text = component != self.denoiser
        if not (is_native(path, of_text=True) if of_text else _PATHS.fullmatch(path)):
            raise ValueError(path)
        return lasting_path(path), False

    def kind(self, pipe: Any) -> Kind:
        config = pipe.transformer.config
        if config.qk_norm is None:  # the traits of 3.5 that do not depend on sizes
            return SD3
        return SD35_MEDIUM if config.dual_attention_layers else SD35_LARGE

    def kinds_by_modules(self, downs: Mapping[str, tuple[int, ...]]) -> list[Kind]:
        blocks = [name for name in downs if name.startswith("transformer.transformer_blocks.")]
        if not blocks or any(".single_transformer_blocks." in name for name in downs):
            return []
        return [SD35_MEDIUM] if any(".attn2." in name for name in blocks) else list(self.kinds)

    def notes(self, pipe: Any) -> list[str]:
        if pipe.text_encoder_3 is not None:
            return []
        return [
            "the base model has no T5 text encoder (text_encoder_3), so CLIP alone reads captions, of which it reads "
            f"{self.token_limit(pipe)} tokens"
        ]

    def _given(self, folder: Path) -> dict[str, Any]:
        absent = {} if (folder / _T5).is_dir() else {_T5: None, "tokenizer_3": None}
        return {**self._leave_out, **absent}

    def _check(self, pipe: Any, label: str) -> None:
        net, encoders = pipe.transformer.config, (pipe.text_encoder, pipe.text_encoder_2)
        pooled = sum(encoder.config.projection_dim for encoder in encoders)
        t5 = pipe.text_encoder_3
        fits = t5 is None or t5.config.d_model == net.joint_attention_dim
        if pooled != net.pooled_projection_dim or not fits:
            raise BaseModelError(f"base model {label} is inconsistent: its text encoders do not fit its transformer")

    def encode_captions(self, pipe: Any, captions: Sequence[str]) -> Conditioning:
        """``states``: CLIP's last but one hidden states side by side, filled up with zeros to T5's width, then T5's;
        ``pooled``: both embeddings of CLIP."""
        import torch
        from torch.nn.functional import pad

        outputs = [
            encoder(tokens_of(encoder, tokenizer, captions), output_hidden_states=True)
            for encoder, tokenizer in self.text_parts(pipe)[:2]
        ]
        clip = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        pooled = torch.cat([output.text_embeds for output in outputs], dim=-1)
        width, length, t5 = pipe.transformer.config.joint_attention_dim, self.text_lengths[_T5], pipe.text_encoder_3
        if t5 is None:  # as the pipeline does
            long = torch.zeros(len(captions), length, width, dtype=clip.dtype, device=clip.device)
        else:
            long = t5(tokens_of(t5, pipe.tokenizer_3, captions, length))[0].to(clip.dtype)
        return {"states": torch.cat([pad(clip, (0, width - clip.shape[-1])), long], dim=1), "pooled": pooled}

    def denoise(self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        states, pooled = conditioning["states"], conditioning["pooled"]
        return denoiser(noisy, states, pooled, timesteps, return_dict=False)[0]

    def pipeline_arguments(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Tensor]:
        return {
            "prompt_embeds": conditioning["states"], "negative_prompt_embeds": negative["states"],
            "pooled_prompt_embeds": conditioning["pooled"], "negative_pooled_prompt_embeds": negative["pooled"],
        }  # fmt: skip
