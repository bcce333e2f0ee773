"""What all families share whose pipelines have a denoiser, a VAE and text encoders with tokenizers: loading and
checking them, their hashes, their latents and their tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sd_lora.errors import BaseModelError
from sd_lora.models.families.base import ModelFamily

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

#: the share of a text encoder's words that its tokenizer has at least: some have spare ones
_LEAST_WORDS = 0.95


class LatentFamily(ModelFamily):
    """A latent diffusion model in diffusers' layout."""

    refills = True
    #: text encoder → how many tokens it is given, where that is not what its tokenizer says
    text_lengths: ClassVar[Mapping[str, int]] = {}
    #: arguments of `from_pretrained` that leave out what training does not need
    _leave_out: ClassVar[dict[str, Any]] = {}

    def load(self, folder: Path, dtype: torch.dtype) -> Any:
        from sd_lora.models.families.pipeline_folder import open_pipeline

        return self.adopt(open_pipeline(folder, dtype, **self._given(folder)), str(folder))

    def load_unfilled(self, folder: Path, dtype: torch.dtype) -> Any:
        from sd_lora.models.families.pipeline_folder import empty_model, open_pipeline

        empty = {self.denoiser: empty_model(folder / self.denoiser, self.denoiser_class, dtype)}
        return self.adopt(open_pipeline(folder, dtype, **self._given(folder), **empty), str(folder))

    def fill(self, pipe: Any, component: str, folder: Path, dtype: torch.dtype) -> None:
        from sd_lora.models.families.pipeline_folder import fill_component

        fill_component(getattr(pipe, component), component, folder, dtype)

    def _given(self, folder: Path) -> dict[str, Any]:  # noqa: ARG002
        """Components that `load` does not read from `folder`."""
        return self._leave_out

    def adopt(self, pipe: Any, label: str) -> Any:
        channels = self._channels(pipe)
        if channels != pipe.vae.config.latent_channels:
            raise BaseModelError(
                f"base model {label} takes {channels} input channels; inpainting bases cannot be trained"
            )
        self._check(pipe, label)
        for encoder, tokenizer in self.text_parts(pipe):
            words, most = len(tokenizer), encoder.config.vocab_size
            if not (words == most or (encoder.config.model_type not in _EXACT and _LEAST_WORDS * most < words < most)):
                raise BaseModelError(
                    f"base model {label} has {words} words in its tokenizer but {most} in its text encoder; restore "
                    "its tokenizer files"
                )
        for part in self.parts(pipe):
            part.requires_grad_(False).eval()
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def _check(self, pipe: Any, label: str) -> None:
        """Raise BaseModelError if the parts do not belong together or the family cannot use them."""
        raise NotImplementedError

    def _net(self, pipe: Any) -> Any:
        return getattr(pipe, self.denoiser)

    def _channels(self, pipe: Any) -> int:
        """How many channels the latents have that the denoiser reads."""
        return self._net(pipe).config.in_channels

    def text_parts(self, pipe: Any) -> list[tuple[Any, Any]]:
        """Each text encoder that the pipeline has, with its tokenizer."""
        return [(encoder, tokenizer) for encoder, tokenizer, _ in self._texts(pipe)]

    def _texts(self, pipe: Any) -> list[tuple[Any, Any, int]]:
        """Text encoders with their tokenizers, and how many tokens each is given."""
        named = [(name, getattr(pipe, name), getattr(pipe, tokenizer_of(name))) for name in self.text_encoders]
        return [
            (encoder, tokenizer, self.text_lengths.get(name, tokenizer.model_max_length))
            for name, encoder, tokenizer in named
            if encoder is not None
        ]

    def latent_shape(self, pipe: Any, size: tuple[int, int]) -> tuple[int, ...]:
        return (self._channels(pipe), size[1] // pipe.vae_scale_factor, size[0] // pipe.vae_scale_factor)

    def images_key(self, pipe: Any) -> str:
        config = pipe.vae.config
        facts = [self.name, str(config.scaling_factor), str(config.force_upcast)]
        return _hash_of([pipe.vae], facts + [str(config.shift_factor)] * bool(config.shift_factor))

    def denoiser_key(self, pipe: Any) -> str:
        from sd_lora.models.quantize import plain_weight

        digest = hashlib.sha256()
        for name, tensor in sorted(self._net(pipe).state_dict().items()):
            few = plain_weight(tensor.detach()).flatten()[:: max(1, tensor.numel() // 64)].float().cpu()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(few.numpy().tobytes())
        return digest.hexdigest()

    def captions_key(self, pipe: Any) -> str:
        empty = str(pipe.config.get("force_zeros_for_empty_prompt"))
        words = [_tokenizer_facts(tokenizer) for _, tokenizer in self.text_parts(pipe)]
        return _hash_of([encoder for encoder, _ in self.text_parts(pipe)], [self.name, empty, *words])

    def encode_images(self, pipe: Any, images: Tensor) -> Tensor:
        import torch

        with torch.no_grad(), _exact(pipe.vae) as vae:
            latents = vae.encode(images.to(vae.device, vae.dtype)).latent_dist.mean
        return (latents.float() - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor

    def decode(self, pipe: Any, latents: Tensor) -> Tensor:
        import torch

        with torch.no_grad(), _exact(pipe.vae) as vae:
            unscaled = latents.to(vae.dtype) / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
            return vae.decode(unscaled, return_dict=False)[0]

    def token_counts(self, pipe: Any, captions: Sequence[str]) -> list[int]:
        if not captions:
            return []
        limit = self.token_limit(pipe)
        counts = [
            [len(ids) for ids in tokenizer(list(captions), truncation=False, verbose=False).input_ids]
            for _, tokenizer, length in self._texts(pipe)
            if length == limit  # what one that reads less cuts off, this one still reads
        ]
        return [max(each) for each in zip(*counts, strict=True)]

    def token_limit(self, pipe: Any) -> int:
        return max(length for _, _, length in self._texts(pipe))

    def is_known_word(self, pipe: Any, word: str) -> bool:
        return any(
            len(tokenizer(word, add_special_tokens=False).input_ids) == 1 for _, tokenizer in self.text_parts(pipe)
        )


#: types of text encoders whose tokenizers have exactly their words
_EXACT = ("clip_text_model", "clip")


def tokenizer_of(text_encoder: str) -> str:
    """``text_encoder_2`` → ``tokenizer_2``."""
    return text_encoder.replace("text_encoder", "tokenizer")


@contextmanager
def _exact(vae: Any) -> Iterator[Any]:
    """`vae` in a precision that it can compute in: SDXL's overflows in float16."""
    import torch

    dtype = vae.dtype
    upcast = dtype is torch.float16 and vae.config.force_upcast
    if upcast:
        vae.float()
    try:
        yield vae
    finally:
        if upcast:
            vae.to(dtype)


def tokens_of(encoder: Any, tokenizer: Any, captions: Sequence[str], length: int | None = None) -> Tensor:
    """Captions as token ids (n, length) on the encoder's device, padded and cut to what it reads."""
    tokens = tokenizer(
        list(captions),
        padding="max_length",
        max_length=length or tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    return tokens.input_ids.to(encoder.device)


def _tokenizer_facts(tokenizer: Any) -> str:
    facts = json.loads(tokenizer.backend_tokenizer.to_str())
    lasting = {name: fact for name, fact in facts.items() if name not in ("padding", "truncation")}  # of the last call
    return json.dumps([lasting, tokenizer.model_max_length], sort_keys=True)


def _hash_of(modules: Sequence[nn.Module], facts: Sequence[str]) -> str:
    """A hash of the names, types and values of all weights of `modules`, and of `facts`."""
    import torch

    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    for fact in facts:
        digest.update(b"\0" + fact.encode())
    return digest.hexdigest()
