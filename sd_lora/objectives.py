"""What the denoiser learns: noise levels, targets and loss weights, as pure functions of tensors and a generator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sd_lora.config import TrainingConfig
from sd_lora.errors import BaseModelError


@dataclass(frozen=True)
class Noised:
    """A batch ready for the denoiser: `latents` (n, c, h, w), `timesteps` (n,), the `target` of its prediction, and a
    loss `weight` (n,)."""

    latents: Tensor
    timesteps: Tensor
    target: Tensor
    weight: Tensor


class Objective:
    """The noise schedule of a base model, with epsilon or v-prediction (arXiv 2202.00512)."""

    def __init__(self, alphas_cumprod: Tensor, prediction_type: str) -> None:
        if prediction_type not in ("epsilon", "v_prediction"):
            raise BaseModelError(f'prediction type "{prediction_type}" cannot be trained; epsilon and v_prediction can')
        self.alphas_cumprod = alphas_cumprod
        self.prediction_type = prediction_type
        self.log_snr = torch.log(alphas_cumprod / (1 - alphas_cumprod))

    def sample_timesteps(self, count: int, config: TrainingConfig, generator: torch.Generator) -> Tensor:
        """`count` integer timesteps, stratified over the batch so that every batch sees low and high noise.

        ``mixed``: half of them by log-SNR ~ N(mean, std) (arXiv 2411.14793), the nearest timestep of the schedule.
        """
        last = len(self.alphas_cumprod)
        strata = (torch.arange(count) + torch.rand(count, generator=generator)) / count
        uniform = (strata * last).long().clamp(max=last - 1)
        order = torch.randperm(count, generator=generator)
        if config.timesteps == "uniform":
            return uniform[order]
        wanted = config.log_snr_mean + config.log_snr_std * torch.randn(count, generator=generator)
        nearest = (self.log_snr[None, :] - wanted[:, None]).abs().argmin(dim=1)
        from_mixture = torch.rand(count, generator=generator) < 0.5
        return torch.where(from_mixture, nearest, uniform)[order]

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor, gamma: float | None) -> Noised:
        """Mix `noise` into `latents` at `timesteps`; `gamma` turns on min-SNR weights (arXiv 2303.09556)."""
        alpha = self.alphas_cumprod.to(latents.device)[timesteps].view(-1, 1, 1, 1)
        mixed = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        target = noise if self.prediction_type == "epsilon" else alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        return Noised(mixed, timesteps, target, self._weight(timesteps, gamma).to(latents.device))

    def loss(self, prediction: Tensor, noised: Noised, places: Tensor | None = None) -> Tensor:
        """Weighted mean squared error, float32. `places` (n, 1, h, w) weighs places of each picture, as masks do."""
        error = (prediction.float() - noised.target.float()).square()
        if places is not None:
            error = error * places
        return (error.mean(dim=(1, 2, 3)) * noised.weight).mean()

    def _weight(self, timesteps: Tensor, gamma: float | None) -> Tensor:
        if gamma is None:
            return torch.ones(len(timesteps))
        snr = self.log_snr.exp()[timesteps.cpu()].clamp(min=1e-8)  # 0 at the end of a zero-terminal-SNR schedule
        capped = snr.clamp(max=gamma)
        return capped / snr if self.prediction_type == "epsilon" else capped / (snr + 1)
