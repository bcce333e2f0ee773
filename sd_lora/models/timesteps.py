"""The laws by which timesteps are drawn, a row each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sd_lora.config.schema import TrainingConfig

#: log-SNRs (n,) → the timesteps for them
AtLogSnr = Callable[[Tensor], Tensor]


def _mixed(uniform: Tensor, at_log_snr: AtLogSnr, config: TrainingConfig, generator: torch.Generator) -> Tensor:
    """Half of them by log-SNR ~ N(mean, std) (arXiv 2411.14793)."""
    count = len(uniform)
    wanted = config.log_snr_mean + config.log_snr_std * torch.randn(count, generator=generator)
    nearest = at_log_snr(wanted)
    from_mixture = torch.rand(count, generator=generator) < 0.5
    return torch.where(from_mixture, nearest, uniform)


# ruff: noqa: ARG005 (a row need not use all that rows are given)
#: name → timesteps (n,), given as many that are uniform and stratified
LAWS: dict[str, Callable[[Tensor, AtLogSnr, TrainingConfig, torch.Generator], Tensor]] = {
    "uniform": lambda uniform, at_log_snr, config, generator: uniform,
    "mixed": _mixed,
}


def truncated(wanted: Tensor, lowest: Tensor, highest: Tensor, config: TrainingConfig) -> Tensor:
    """Draws from N(log_snr_mean, log_snr_std) as draws from that distribution between two ends: clamping them instead
    would gather many of them at one timestep."""
    mean, std = config.log_snr_mean, config.log_snr_std
    below, above, drawn = (torch.special.ndtr((x.double() - mean) / std) for x in (lowest, highest, wanted))
    inside = mean + std * torch.special.ndtri(below + (above - below) * drawn)
    # A distribution that is far outside leaves only its nearer end.
    return torch.where(above > below, inside, wanted).clamp(lowest, highest).float()
