"""FLUX.1 dev and schnell (Black Forest Labs, 2024): a transformer on packed latents, CLIP's embedding, T5's states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from sd_lora.errors import BaseModelError
from sd_lora.models.families.base import Component, Kind
from sd_lora.models.families.latent import tokens_of
from sd_lora.models.families.transformer import JOINT_ATTENTION, SEGMENT, TransformerFamily, parts, paths
from sd_lora.models.families.unet import TEXT_GROUPS
from sd_lora.models.families.unet_names import is_native, lasting_path

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from sd_lora.models.families.base import Conditioning


def _kind(name: str) -> Kind:
    architecture = f"flux-1-{name}/lora"  # as sd-scripts names them
    marks = {"ss_base_model_version": "flux1", "ss_v2": "False", "modelspec.architecture": architecture}
    known = (architecture, *(["flux1", "flux-1/lora"] if name == "dev" else []))
    return Kind(f"flux-{name}", marks, known, f"FLUX.1 {name}", 3072)


DEV, SCHNELL = _kind("dev"), _kind("schnell")
#: the guidance that dev gets as an input in training; the preset draws its previews with the same
GUIDANCE = 3.5

_DOUBLE, _SINGLE = r"transformer_blocks\.\d+\.", r"single_transformer_blocks\.\d+\."
_PATHS = paths(
    rf"{_DOUBLE}attn\.(?:to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)",
    rf"{_DOUBLE}norm1(?:_context)?\.(?:linear|norm)", rf"{_DOUBLE}norm2(?:_context)?",
    rf"{_DOUBLE}ff(?:_context)?\.net\.(?:0\.proj|2)",
    rf"{_SINGLE}(?:attn\.to_[qkv]|proj_mlp|proj_out|norm\.(?:linear|norm))", r"x_embedder", r"context_embedder",
    r"norm_out\.(?:linear|norm)", r"proj_out", r"time_text_embed\.(?:timestep|text|guidance)_embedder\.linear_[12]",
)  # fmt: skip
_T5 = "text_encoder_2"
_BLOCK, _ALONE = "transformer_blocks.#", "single_transformer_blocks.#"
_ORIGINALS = {
    "double_blocks.#.img_attn.qkv": parts(_BLOCK, attn__to_q=1, attn__to_k=1, attn__to_v=1),
    "double_blocks.#.txt_attn.qkv": parts(_BLOCK, attn__add_q_proj=1, attn__add_k_proj=1, attn__add_v_proj=1),
    "double_blocks.#.img_attn.proj": parts(_BLOCK, attn__to_out__0=1),
    "double_blocks.#.txt_attn.proj": parts(_BLOCK, attn__to_add_out=1),
    "double_blocks.#.img_mlp.0": parts(_BLOCK, ff__net__0__proj=1),
    "double_blocks.#.img_mlp.2": parts(_BLOCK, ff__net__2=1),
    "double_blocks.#.txt_mlp.0": parts(_BLOCK, ff_context__net__0__proj=1),
    "double_blocks.#.txt_mlp.2": parts(_BLOCK, ff_context__net__2=1),
    "double_blocks.#.img_mod.lin": parts(_BLOCK, norm1__linear=1),
    "double_blocks.#.txt_mod.lin": parts(_BLOCK, norm1_context__linear=1),
    "single_blocks.#.linear1": parts(_ALONE, attn__to_q=1, attn__to_k=1, attn__to_v=1, proj_mlp=4),
    "single_blocks.#.linear2": parts(_ALONE, proj_out=1),
    "single_blocks.#.modulation.lin": parts(_ALONE, norm__linear=1),
}


class FluxFamily(TransformerFamily):
    name = "flux"
    title = "FLUX.1"
    pipeline_classes = ("FluxPipeline",)
    denoiser_class = "FluxTransformer2DModel"
    components = (
        Component("transformer", "lora_transformer_", "transformer", ("diffusion_model",)),
        Component("text_encoder", "lora_te1_", "text encoder", ("text_encoders.clip_l.transformer",)),
    )
    readers = (_T5,)
    text_lengths: ClassVar = {_T5: 512}
    kinds = (DEV, SCHNELL)
    presets = ("flux-style",)
    layouts = ("diffusers",)
    read_by: ClassVar = {"diffusers": ("diffusers", "ComfyUI")}
    stacks: ClassVar = {"transformer_blocks": "double", "single_transformer_blocks": "single"}
    target_groups: ClassVar = {
        "attn": (
            *(f"transformer.transformer_blocks.*.{part}" for part in JOINT_ATTENTION),
            *(f"transformer.single_transformer_blocks.*.{part}" for part in ("to_q", "to_k", "to_v")),
        ),
        "ff": (
            *(f"transformer.*.{part}.net.{end}" for part in ("ff", "ff_context") for end in ("0.proj", "2")),
            *(f"transformer.single_transformer_blocks.*.{part}" for part in ("proj_mlp", "proj_out")),
        ),
        **TEXT_GROUPS,
    }
    width_modules = (".attn.to_q", ".attn.to_k", ".attn.to_v")
    unquantized = ("time_text_embed.", "x_embedder", "context_embedder", "norm_out.", "proj_out")
    takes_negatives = False
    originals: ClassVar = _ORIGINALS
    segment = SEGMENT
    _leave_out: ClassVar = {"feature_extractor": None, "image_encoder": None}

    def native_path(self, component: str, path: str) -> tuple[str, bool]:
        of_text = component != self.denoiser
        if not (is_native(path, of_text=True) if of_text else _PATHS.fullmatch(path)):
            raise ValueError(path)
        return lasting_path(path), False

    def kind(self, pipe: Any) -> Kind:
        return DEV if pipe.transformer.config.guidance_embeds else SCHNELL

    def kinds_by_modules(self, downs: Mapping[str, tuple[int, ...]]) -> list[Kind]:
        return list(self.kinds) if any(".single_transformer_blocks." in name for name in downs) else []

    def notes(self, pipe: Any) -> list[str]:
        if self.kind(pipe) is DEV:
            return []
        return ["the base model is distilled to draw in a few steps, which training undoes; train on FLUX.1 dev"]

    def guidance_in_training(self, pipe: Any) -> float | None:
        return GUIDANCE if self.kind(pipe) is DEV else None

    def _channels(self, pipe: Any) -> int:
        return pipe.transformer.config.in_channels // self.patch**2

    def _check(self, pipe: Any, label: str) -> None:
        net, t5 = pipe.transformer.config, pipe.text_encoder_2
        fits = t5 is not None and t5.config.d_model == net.joint_attention_dim
        if not fits or pipe.text_encoder.config.hidden_size != net.pooled_projection_dim:
            raise BaseModelError(f"base model {label} is inconsistent: its text encoders do not fit its transformer")

    def encode_captions(self, pipe: Any, captions: Sequence[str]) -> Conditioning:
        """``states``: T5's; ``pooled``: CLIP's embedding."""
        clip, t5 = pipe.text_encoder, pipe.text_encoder_2
        pooled = clip(tokens_of(clip, pipe.tokenizer, captions)).pooler_output
        return {"states": t5(tokens_of(t5, pipe.tokenizer_2, captions, self.text_lengths[_T5]))[0], "pooled": pooled}

    def packed(self, latents: Tensor) -> Tensor:
        """(n, c, h, w) → (n, h/2 · w/2, 4c)."""
        n, c, h, w = latents.shape
        return latents.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(n, h * w // 4, 4 * c)

    def unpacked(self, pipe: Any, latents: Tensor, size: tuple[int, int]) -> Tensor:
        return _unpacked(latents, *self.latent_shape(pipe, size)[1:])

    def denoise(self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        import torch

        states, (height, width) = conditioning["states"], noisy.shape[-2:]
        guidance = None
        if denoiser.config.guidance_embeds:  # type: ignore[union-attr]
            guidance = torch.full((len(noisy),), GUIDANCE, device=noisy.device)
        velocity = denoiser(
            hidden_states=self.packed(noisy), encoder_hidden_states=states, pooled_projections=conditioning["pooled"],
            timestep=timesteps / 1000, guidance=guidance, img_ids=_places(height // 2, width // 2, noisy.device),
            txt_ids=torch.zeros(states.shape[1], 3, device=noisy.device), return_dict=False,
        )[0]  # fmt: skip
        return _unpacked(velocity, height, width)

    def pipeline_arguments(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Tensor]:  # noqa: ARG002
        return {"prompt_embeds": conditioning["states"], "pooled_prompt_embeds": conditioning["pooled"]}


def _unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    n, _, c = tokens.shape
    latents = tokens.reshape(n, height // 2, width // 2, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return latents.reshape(n, c // 4, height, width)


def _places(rows: int, columns: int, device: torch.device) -> Tensor:
    """For each token 0, its row and its column: (rows · columns, 3)."""
    import torch

    along = [torch.zeros(1, device=device), torch.arange(rows, device=device), torch.arange(columns, device=device)]
    return torch.cartesian_prod(*(each.float() for each in along))
