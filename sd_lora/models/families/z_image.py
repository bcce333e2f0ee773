"""Z-Image (Alibaba, 2025): a transformer that reads texts of any length and reversed time, and a Qwen3 text encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sd_lora.errors import BaseModelError
from sd_lora.models.families import transformer
from sd_lora.models.families.base import Component, Kind
from sd_lora.models.families.transformer import TransformerFamily, parts, paths

if TYPE_CHECKING:
    import re

    import torch
    from torch import Tensor, nn

    from sd_lora.models.families.base import Conditioning

Z_IMAGE = Kind(
    "z-image",
    {"ss_base_model_version": "z-image", "ss_v2": "False", "modelspec.architecture": "z-image/lora"},
    ("z-image*", "Z-Image*", "zimage*"),
    "Z-Image",
    3840,
)
_BLOCK = r"(?:layers|noise_refiner|context_refiner)\.\d+\."
_PATHS = paths(
    rf"{_BLOCK}attention\.(?:to_[qkv]|to_out\.0)", rf"{_BLOCK}feed_forward\.w[123]", rf"{_BLOCK}adaLN_modulation\.0",
    r"all_x_embedder\.\d-\d", r"all_final_layer\.\d-\d\.(?:linear|norm_final|adaLN_modulation\.1)", r"cap_embedder\.1",
    r"t_embedder\.mlp\.[02]",
)  # fmt: skip
_SEGMENT = paths(
    r"noise_refiner|context_refiner|feed_forward|adaLN_modulation|norm_final|all_(?:x_embedder|final_layer)"
    r"|(?:cap|t)_embedder",
    transformer.SEGMENT.pattern,
)
_LENGTH = 512
_LAYER = "layers.#"
#: those without another name are of kohya's keys, which call the transformer a UNet
_ORIGINALS = {
    "layers.#.attention.qkv": parts(_LAYER, attention__to_q=1, attention__to_k=1, attention__to_v=1),
    "layers.#.attention.out": parts(_LAYER, attention__to_out__0=1),
    "layers.#.feed_forward.w1": parts(_LAYER, feed_forward__w1=1),
    "layers.#.feed_forward.w2": parts(_LAYER, feed_forward__w2=1),
    "layers.#.feed_forward.w3": parts(_LAYER, feed_forward__w3=1),
    "layers.#.attention.to_q": parts(_LAYER, attention__to_q=1),
    "layers.#.attention.to_k": parts(_LAYER, attention__to_k=1),
    "layers.#.attention.to_v": parts(_LAYER, attention__to_v=1),
    "layers.#.attention.to_out.0": parts(_LAYER, attention__to_out__0=1),
}


class ZImageFamily(TransformerFamily):
    name = "z-image"
    title = "Z-Image"
    pipeline_classes = ("ZImagePipeline",)
    denoiser_class = "ZImageTransformer2DModel"
    components = (Component("transformer", "lora_transformer_", "transformer", ("diffusion_model",)),)
    readers = ("text_encoder",)
    text_lengths: ClassVar = {"text_encoder": _LENGTH}
    kinds = (Z_IMAGE,)
    presets = ("z-image-style",)
    layouts = ("diffusers",)
    read_by: ClassVar = {"diffusers": ("diffusers", "ComfyUI")}
    stacks: ClassVar = {"layers": "layers"}
    target_groups: ClassVar = {  # the refiner blocks stay as they are
        "attn": tuple(f"transformer.layers.*.attention.{part}" for part in ("to_q", "to_k", "to_v", "to_out.0")),
        "ff": tuple(f"transformer.layers.*.feed_forward.w{number}" for number in (1, 2, 3)),
    }
    width_modules = (".attention.to_q", ".attention.to_k", ".attention.to_v")
    unquantized = ("t_embedder.", "cap_embedder.", "all_x_embedder.", "all_final_layer.")
    originals: ClassVar = _ORIGINALS
    segment: ClassVar[re.Pattern[str]] = _SEGMENT

    def native_path(self, component: str, path: str) -> tuple[str, bool]:
        if component != self.denoiser or not _PATHS.fullmatch(path):
            raise ValueError(path)
        return path, False

    def kind(self, pipe: Any) -> Kind:  # noqa: ARG002
        return Z_IMAGE

    def kinds_by_modules(self, downs: Mapping[str, tuple[int, ...]]) -> list[Kind]:
        return [Z_IMAGE] if any(name.startswith("transformer.layers.") for name in downs) else []

    def fill(self, pipe: Any, component: str, folder: Path, dtype: torch.dtype) -> None:
        super().fill(pipe, component, folder, dtype)
        if component == self.denoiser:
            pipe.transformer.rope_embedder.freqs_cis = None  # without storage, if it was called before

    def _width(self, pipe: Any) -> int:
        return pipe.transformer.config.dim

    def _check(self, pipe: Any, label: str) -> None:
        if pipe.text_encoder.config.hidden_size != pipe.transformer.config.cap_feat_dim:
            raise BaseModelError(f"base model {label} is inconsistent: its text encoder does not fit its transformer")

    def _messages(self, pipe: Any, captions: Sequence[str]) -> list[str]:
        """Captions as questions to a language model, as the pipeline asks them."""
        return [
            pipe.tokenizer.apply_chat_template(
                [{"role": "user", "content": caption}], tokenize=False, add_generation_prompt=True, enable_thinking=True
            )
            for caption in captions
        ]

    def token_counts(self, pipe: Any, captions: Sequence[str]) -> list[int]:
        return [len(pipe.tokenizer(text, verbose=False).input_ids) for text in self._messages(pipe, captions)]

    def encode_captions(self, pipe: Any, captions: Sequence[str]) -> Conditioning:
        """``states``: Qwen's last but one hidden states of each caption, filled up with zeros; ``lengths``: theirs."""
        import torch
        from torch.nn.functional import pad

        tokens = pipe.tokenizer(
            self._messages(pipe, captions), padding="max_length", max_length=_LENGTH, truncation=True,
            return_tensors="pt",
        ).to(pipe.text_encoder.device)  # fmt: skip
        mask = tokens.attention_mask.bool()
        hidden = pipe.text_encoder(tokens.input_ids, attention_mask=mask, output_hidden_states=True).hidden_states[-2]
        rows = [pad(row[kept], (0, 0, 0, _LENGTH - int(kept.sum()))) for row, kept in zip(hidden, mask, strict=True)]
        return {"states": torch.stack(rows), "lengths": mask.sum(1)}

    def denoise(self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        import torch

        pictures = list(noisy.unsqueeze(2).unbind())  # of one frame each: (16, 1, h, w)
        towards = denoiser(pictures, 1 - timesteps / 1000, _texts(conditioning), return_dict=False)[0]
        return -torch.stack(list(towards)).squeeze(2)

    def pipeline_arguments(self, conditioning: Conditioning, negative: Conditioning) -> dict[str, Any]:
        return {"prompt_embeds": _texts(conditioning), "negative_prompt_embeds": _texts(negative)}


def _texts(conditioning: Conditioning) -> list[Tensor]:
    """The states of each caption alone (length, width); where there are no values, of the most tokens."""
    states, lengths = conditioning["states"], conditioning["lengths"]
    if lengths.is_meta:
        return list(states.unbind())
    return [row[:length] for row, length in zip(states, lengths.tolist(), strict=True)]
