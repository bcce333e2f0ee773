"""What every family with a UNet has in common: its blocks and their names, its noise schedule, its target groups."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, ClassVar

from sd_lora.errors import AdapterError, BaseModelError, some
from sd_lora.models.families.base import Component, Place
from sd_lora.models.families.latent import LatentFamily
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
    from torch import Tensor, nn

    from sd_lora.models.families.base import Conditioning
    from sd_lora.models.objectives import Denoising

UNET = Component("unet", "lora_unet_", "UNet", ("diffusion_model",))
_TEXT = "text_encoder*"
#: modules of text encoders that can carry layers
TEXT_GROUPS = {
    "text": tuple(f"{_TEXT}.self_attn.{part}_proj" for part in ("q", "k", "v", "out")),
    "text_ff": (f"{_TEXT}.mlp.fc1", f"{_TEXT}.mlp.fc2"),
}
#: convolutions of 3 × 3 pixels
_WIDE_CONV = re.compile(r".*\.(?:conv[12]|(?:down|up)samplers\.0\.conv|conv_in|conv_out)$")
#: attention layers that work on the latents at their full size
_WIDE_LAYERS = 5


class UNetFamily(LatentFamily):
    """A latent diffusion model with a UNet, a VAE and one or more CLIP text encoders."""

    denoiser, denoiser_class = "unet", "UNet2DConditionModel"
    target_groups: ClassVar = {
        "attn": ("unet.*.to_q", "unet.*.to_k", "unet.*.to_v", "unet.*.to_out.0"),
        "ff": ("unet.*.ff.net.0.proj", "unet.*.ff.net.2"),
        "conv": (
            "unet.*.conv1", "unet.*.conv2", "unet.*.conv_shortcut", "unet.*.time_emb_proj",
            "unet.*.downsamplers.0.conv", "unet.*.upsamplers.0.conv",
        ),
        "proj": ("unet.*.proj_in", "unet.*.proj_out"),
        **TEXT_GROUPS,
    }  # fmt: skip
    width_modules = (".attn2.to_k", ".attn2.to_v")
    segment = SEGMENT
    unquantized = ("time_embedding.", "add_embedding.")

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

    def style_block(self, pipe: Any) -> nn.Module:
        return self._net(pipe).up_blocks[-1]

    def style_of(self, output: Any) -> Tensor:
        return (output[0] if isinstance(output, tuple) else output).flatten(2)

    def work(self, pipe: Any, size: tuple[int, int]) -> float:
        """Weights at every place of the latents, and attention of each place to all, in a few layers of the
        first width."""
        places = size[0] * size[1] / pipe.vae_scale_factor**2
        weights = sum(p.numel() for p in self._net(pipe).parameters())
        return places * (weights + 2 * _WIDE_LAYERS * self._net(pipe).config.block_out_channels[0] * places)

    def denoise(self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        return denoiser(noisy, timesteps, conditioning["states"], return_dict=False)[0]
