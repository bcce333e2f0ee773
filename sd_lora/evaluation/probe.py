"""The frozen base model as an instrument: what its denoiser's last block sees in a picture, and how well a prompt fits.

No adapter may be injected meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from sd_lora.config.schema import TrainingConfig
from sd_lora.data.pictures.views import Framing
from sd_lora.models.families.base import Conditioning
from sd_lora.models.opening import family_of_pipe

#: noise levels are counted in thousandths of the schedule, as `levels` of an objective gives them
LEVELS = 1000
_BATCH = 8

#: called with how many of how many passes are done
Watch = Callable[[int, int], None]


def no_watch(done: int, total: int) -> None:
    """Watches nothing."""


class Probe:
    """Measures pictures with the base model `pipe`. Pictures of another size are scaled and cropped to its own."""

    def __init__(self, pipe: Any, batch: int = _BATCH) -> None:
        self.pipe, self.family, self.batch = pipe, family_of_pipe(pipe), batch
        self.side = self.family.native_size(pipe)
        self._denoiser = getattr(pipe, self.family.denoiser)
        self._objective = self.family.objective(pipe)
        self._config = TrainingConfig()
        self._captions: dict[str, Conditioning] = {}

    @torch.inference_mode()
    def latents(self, images: Sequence[Image.Image], *, round_trip: bool = False) -> Tensor:
        """(n, c, h, w) on the CPU. `round_trip`: of what the VAE makes of them, as every generated picture is."""
        encoded = []
        for chunk in self._chunks(images):
            latents = self.family.encode_images(self.pipe, self._pixels(chunk))
            if round_trip:
                decoded = self.family.decode(self.pipe, latents.to(self._denoiser.dtype)).clamp(-1, 1)
                latents = self.family.encode_images(self.pipe, decoded)
            encoded.append(latents.float().cpu())
        return torch.cat(encoded)

    @torch.inference_mode()
    def statistics(self, latents: Tensor, *, level: int = 1, draws: int = 2, watch: Watch = no_watch) -> Tensor:
        """Mean and log standard deviation of each channel of the style block's output: (n, 2 · channels), with an empty
        caption, at `level` thousandths of the noise schedule, averaged over `draws` of noise."""
        noise, rows, done = self._noise(latents.shape[1:], draws), [], 0
        for chunk in latents.split(self.batch):
            total = torch.zeros(0)
            for each in noise:
                maps = self._block_output(chunk, each, level)
                both = torch.cat([maps.mean(dim=2), (maps.std(dim=2) + 1e-6).log()], dim=1)
                total = total + both if len(total) else both
            rows.append(total / draws)
            done += len(chunk)
            watch(done, len(latents))
        return torch.cat(rows)

    @torch.inference_mode()
    def errors(
        self, latents: Tensor, prompts: Sequence[Sequence[str]], levels: Sequence[int], watch: Watch = no_watch
    ) -> Tensor:
        """The mean squared denoising error of picture i under each of `prompts[i]`, all of the same number: (n, k), at
        each of `levels` divided by its mean, then averaged. The noise is the same for all pictures and prompts."""
        count, noise = len(prompts[0]), self._noise(latents.shape[1:], len(levels))
        table = torch.zeros(len(levels), len(latents), count)
        pairs = [(i, k) for i in range(len(latents)) for k in range(count)]
        for start in range(0, len(pairs), self.batch):
            some = pairs[start : start + self.batch]
            pictures, words = latents[[i for i, _ in some]], [prompts[i][k] for i, k in some]
            for row, (level, each) in enumerate(zip(levels, noise, strict=True)):
                found = self._error(pictures, words, each, level)
                for (i, k), value in zip(some, found.tolist(), strict=True):
                    table[row, i, k] = value
            watch(min(start + self.batch, len(pairs)), len(pairs))
        return (table / table.mean(dim=(1, 2), keepdim=True)).mean(dim=0)

    def _error(self, latents: Tensor, words: Sequence[str], noise: Tensor, level: int) -> Tensor:
        prediction, target = self._denoised(latents, words, noise, level)
        return (prediction.float() - target.float()).square().mean(dim=(1, 2, 3)).cpu()

    def _block_output(self, latents: Tensor, noise: Tensor, level: int) -> Tensor:
        """The style block's output (n, channels, places), float32, on the CPU."""
        seen: list[Tensor] = []
        block = self.family.style_block(self.pipe)
        handle = block.register_forward_hook(lambda module, inputs, output: seen.append(self.family.style_of(output)))  # noqa: ARG005
        try:
            self._denoised(latents, [""] * len(latents), noise, level)
        finally:
            handle.remove()
        return seen[0].float().cpu()

    def _denoised(self, latents: Tensor, words: Sequence[str], noise: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """The denoiser's prediction for `latents` under their captions, and its target."""
        timesteps = self._timesteps[level].expand(len(latents))
        noised = self._objective.noised(latents, noise.expand_as(latents), timesteps, self._config)
        device, dtype = self._denoiser.device, self._denoiser.dtype
        conditioning = self._conditioning(words)
        prediction = self.family.denoise(
            self._denoiser, noised.latents.to(device, dtype), noised.timesteps.to(device), conditioning
        )
        return prediction, noised.target.to(device)

    @cached_property
    def _timesteps(self) -> Tensor:
        return self._objective.levels(LEVELS)

    def _conditioning(self, words: Sequence[str]) -> Conditioning:
        """The encoded captions, each encoded once, and the framing of a whole picture of the base's own size."""
        for caption in dict.fromkeys(words):
            if caption not in self._captions:
                self._captions[caption] = self.family.encode_captions(self.pipe, [caption])
        rows = [self._captions[caption] for caption in words]
        joined = {key: torch.cat([row[key] for row in rows]) for key in rows[0]}
        whole = Framing((self.side, self.side), (0, 0), (self.side, self.side))
        framing = self.family.encode_framing([whole] * len(words))
        return joined | {key: value.to(self._denoiser.device) for key, value in framing.items()}

    def _noise(self, shape: torch.Size, draws: int) -> Tensor:
        return torch.randn(draws, 1, *shape, generator=torch.Generator().manual_seed(17))

    def _pixels(self, images: Sequence[Image.Image]) -> Tensor:
        return pixels(images, self.side) * 2 - 1

    def _chunks(self, images: Sequence[Image.Image]) -> Iterator[Sequence[Image.Image]]:
        return (images[start : start + self.batch] for start in range(0, len(images), self.batch))


def pixels(images: Sequence[Image.Image], side: int) -> Tensor:
    """Images, scaled and cropped to squares of `side` pixels: (n, 3, side, side) in 0..1."""
    fitted = [ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.LANCZOS) for image in images]
    return torch.from_numpy(np.stack([np.asarray(each, dtype=np.float32) for each in fitted])).permute(0, 3, 1, 2) / 255
