"""What every family with a UNet has in common: loading and checking the pipeline, its noise schedule, its latents."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sd_lora.errors import AdapterError, BaseModelError, some
from sd_lora.models.families.base import Component, ModelFamily, Place
from sd_lora.models.families.unet_names import (
    BLOCK,
    SEGMENT,
    diffusers_path,
    is_native,
    is_original,
    lasting_path,
    sgm_path,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from sd_lora.models.families.base import Conditioning
    from sd_lora.models.objectives import Denoising

UNET = Component("unet", "lora_unet_", "UNet", ("diffusion_model",))
_TEXT = "text_encoder*"
#: convolutions of 3 × 3 pixels
_WIDE_CONV = re.compile(r".*\.(?:conv[12]|(?:down|up)samplers\.0\.conv|conv_in|conv_out)$")
#: attention layers that work on the latents at their full size
_WIDE_LAYERS = 5


class UNetFamily(ModelFamily):
    """A latent diffusion model with a UNet, a VAE and one or more CLIP text encoders."""

    denoiser = "unet"
    target_groups: ClassVar = {
        "attn": ("unet.*.to_q", "unet.*.to_k", "unet.*.to_v", "unet.*.to_out.0"),
        "ff": ("unet.*.ff.net.0.proj", "unet.*.ff.net.2"),
        "conv": (
            "unet.*.conv1", "unet.*.conv2", "unet.*.conv_shortcut", "unet.*.time_emb_proj",
            "unet.*.downsamplers.0.conv", "unet.*.upsamplers.0.conv",
        ),
        "proj": ("unet.*.proj_in", "unet.*.proj_out"),
        "text": tuple(f"{_TEXT}.self_attn.{part}_proj" for part in ("q", "k", "v", "out")),
        "text_ff": (f"{_TEXT}.mlp.fc1", f"{_TEXT}.mlp.fc2"),
    }  # fmt: skip
    width_modules = (".attn2.to_k", ".attn2.to_v")
    segment = SEGMENT
    refills = True
    #: arguments of `from_pretrained` that leave out what training does not need
    _leave_out: ClassVar[dict[str, Any]] = {}

    def part_of(self, name: str) -> Place:
        component, _, path = name.partition(".")
        match = BLOCK.match(path) if component == self.denoiser else None
        if not match:
            return (component,), 0
        side, number, mid, layer = match.groups()
        if mid:  # one attention between two resnets: one layer
            return (component, mid), 0
        return (component, side, f"block_{number}"), int(layer) if layer else -1

    def beyond_diffusers(self, names: Collection[str]) -> set[tuple[str, ...]]:
        """Blocks without attention (if other blocks show that the adapter trains attention), and the mid block if the
        adapter has its resnets."""
        attends: dict[tuple[str, ...], set[bool]] = {}
        for name in names:
            part, _ = self.part_of(name)
            if len(part) > 1:
                attends.setdefault(part, set()).add(".attentions." in name)
        if not any(True in each for each in attends.values()):
            return set()
        return {part for part, each in attends.items() if each == {False} or (len(part) == 2 and False in each)}

    def check_modules(self, names: Collection[str]) -> None:
        """AdapterError for a text encoder's attention trained only in part, or modules that no other program loads."""
        counts = Counter(layer for name in names if (layer := name.rpartition(".self_attn.")[0]))
        partial = sorted(layer for layer, count in counts.items() if count < 4)
        if partial:
            raise AdapterError(
                f"the attention of {len(partial)} text-encoder layers would be trained only in part ({some(partial, 2)}"
                "), which diffusers refuses and AUTOMATIC1111 drops; train q_proj, k_proj, v_proj and out_proj together"
            )
        text = [name for name in names if name.partition(".")[0] in self.text_encoders]
        foreign = sorted(name for name in text if ".encoder.layers." not in name)
        if foreign:
            raise AdapterError(
                f"{some(foreign, 2)} cannot be loaded by any other program; leave it out of lora.targets"
            )

    def original_path(self, path: str) -> str:
        return sgm_path(path, self.name)

    def native_path(self, component: str, path: str) -> tuple[str, bool]:
        was_original = component == self.denoiser and is_original(path)
        native = diffusers_path(path) if was_original else path
        if not is_native(native, of_text=component != self.denoiser):
            raise ValueError(path)
        return lasting_path(native), was_original

    def shape_with_kernel(self, name: str, shape: tuple[int, ...], kind: str) -> tuple[int, ...]:
        if len(shape) != 2:
            return shape
        if _WIDE_CONV.match(name) and shape[1] % 9 == 0:
            return (shape[0], shape[1] // 9, 3, 3)
        pixel = name.endswith(".conv_shortcut") or (
            name.endswith((".proj_in", ".proj_out"))
            and any(each.name == kind and each.has_pixel_projections for each in self.kinds)
        )
        return (*shape, 1, 1) if pixel else shape

    def load(self, folder: Path, dtype: torch.dtype) -> Any:
        from sd_lora.models.families.pipeline_folder import open_pipeline

        return self.adopt(open_pipeline(folder, dtype, **self._leave_out), str(folder))

    def load_unfilled(self, folder: Path, dtype: torch.dtype) -> Any:
        from sd_lora.models.families.pipeline_folder import empty_unet, open_pipeline

        unet = {self.denoiser: empty_unet(folder / self.denoiser, dtype)}
        return self.adopt(open_pipeline(folder, dtype, **self._leave_out, **unet), str(folder))

    def fill(self, pipe: Any, component: str, folder: Path, dtype: torch.dtype) -> None:
        from sd_lora.models.families.pipeline_folder import fill_component

        fill_component(getattr(pipe, component), component, folder, dtype)

    def adopt(self, pipe: Any, label: str) -> Any:
        channels = self._net(pipe).config.in_channels
        if channels != pipe.vae.config.latent_channels:
            raise BaseModelError(
                f"base model {label} takes {channels} input channels; inpainting bases cannot be trained"
            )
        self._check(pipe, label)
        for encoder, tokenizer in self.text_parts(pipe):
            if len(tokenizer) != encoder.config.vocab_size:
                raise BaseModelError(
                    f"base model {label} has {len(tokenizer)} words in its tokenizer but "
                    f"{encoder.config.vocab_size} in its text encoder; restore its tokenizer files"
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

    def text_parts(self, pipe: Any) -> list[tuple[Any, Any]]:
        """Each text encoder with its tokenizer."""
        return [
            (getattr(pipe, name), getattr(pipe, name.replace("text_encoder", "tokenizer")))
            for name in self.text_encoders
        ]

    def objective(self, pipe: Any, *, zero_terminal_snr: bool = False) -> Denoising:
        from sd_lora.models.objectives import Objective

        config = pipe.scheduler.config
        if not hasattr(pipe.scheduler, "alphas_cumprod"):
            raise BaseModelError(f"scheduler {type(pipe.scheduler).__name__} has no noise schedule that can be trained")
        alphas = pipe.scheduler.alphas_cumprod.float()
        return Objective(alphas, config.prediction_type, zero_terminal_snr=zero_terminal_snr)

    def native_size(self, pipe: Any) -> int:
        return int(self._net(pipe).config.sample_size * pipe.vae_scale_factor)

    def grain(self, pipe: Any) -> int:
        return int(pipe.vae_scale_factor * 2 ** (len(self._net(pipe).config.block_out_channels) - 1))

    def latent_shape(self, pipe: Any, size: tuple[int, int]) -> tuple[int, ...]:
        return (self._net(pipe).config.in_channels, size[1] // pipe.vae_scale_factor, size[0] // pipe.vae_scale_factor)

    def style_block(self, pipe: Any) -> nn.Module:
        return self._net(pipe).up_blocks[-1]

    def work(self, pipe: Any, size: tuple[int, int]) -> float:
        """Weights at every place of the latents, and attention of each place to all, in a few layers of the
        first width."""
        places = size[0] * size[1] / pipe.vae_scale_factor**2
        weights = sum(p.numel() for p in self._net(pipe).parameters())
        return places * (weights + 2 * _WIDE_LAYERS * self._net(pipe).config.block_out_channels[0] * places)

    def images_key(self, pipe: Any) -> str:
        return _hash_of([pipe.vae], [self.name, str(pipe.vae.config.scaling_factor), str(pipe.vae.config.force_upcast)])

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
        return latents.float() * pipe.vae.config.scaling_factor

    def decode(self, pipe: Any, latents: Tensor) -> Tensor:
        import torch

        with torch.no_grad(), _exact(pipe.vae) as vae:
            return vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]

    def token_counts(self, pipe: Any, captions: Sequence[str]) -> list[int]:
        if not captions:
            return []
        counts = [
            [len(ids) for ids in tokenizer(list(captions), truncation=False, verbose=False).input_ids]
            for _, tokenizer in self.text_parts(pipe)
        ]
        return [max(each) for each in zip(*counts, strict=True)]

    def token_limit(self, pipe: Any) -> int:
        return min(tokenizer.model_max_length for _, tokenizer in self.text_parts(pipe))

    def is_known_word(self, pipe: Any, word: str) -> bool:
        return any(
            len(tokenizer(word, add_special_tokens=False).input_ids) == 1 for _, tokenizer in self.text_parts(pipe)
        )

    def denoise(self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        return denoiser(noisy, timesteps, conditioning["states"], return_dict=False)[0]


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


def tokens_of(encoder: Any, tokenizer: Any, captions: Sequence[str]) -> Tensor:
    """Captions as token ids (n, length) on the encoder's device, padded and cut to what it reads."""
    tokens = tokenizer(
        list(captions),
        padding="max_length",
        max_length=tokenizer.model_max_length,
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
