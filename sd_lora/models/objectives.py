"""What the denoiser learns: noise levels, targets, loss weights and the loss, as pure functions of tensors and of
generators on the CPU."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sd_lora.config.schema import TrainingConfig
from sd_lora.errors import BaseModelError, ConfigError
from sd_lora.models.losses import LOSSES, WEIGHTINGS
from sd_lora.models.shift import Shift
from sd_lora.models.timesteps import LAWS, truncated

#: points of a noise schedule that distinguish it from others
_POINTS = 16


@dataclass(frozen=True)
class Noised:
    """A batch ready for the denoiser: `latents` (n, c, h, w), `timesteps` (n,), the `target` of its prediction, a loss
    `weight` (n,), and the `share` (n,) of the noise schedule that is passed, from no noise (0) to most (1)."""

    latents: Tensor
    timesteps: Tensor
    target: Tensor
    weight: Tensor
    share: Tensor


class Denoising(ABC):
    """What the objectives share. `prediction_type` names what the denoiser predicts."""

    prediction_type: str

    def sample_timesteps(
        self, count: int, config: TrainingConfig, generator: torch.Generator, places: Tensor | None = None
    ) -> Tensor:
        """`count` timesteps within ``timestep_range``, stratified over the batch so that every batch sees low and high
        noise, by one of `LAWS`. ConfigError if the range is empty.

        `places` (count,): of the latents of each picture, which some flows depend on.
        """
        strata = (torch.arange(count) + torch.rand(count, generator=generator)) / count
        order = torch.randperm(count, generator=generator)
        back = torch.empty_like(order)
        back[order] = torch.arange(count)
        uniform = self._at_shares(strata, config, None if places is None else places[back])
        return LAWS[config.timesteps](uniform, lambda wanted: self._at_log_snr(wanted, config), config, generator)[
            order
        ]

    def check_range(self, config: TrainingConfig) -> None:
        """ConfigError if ``timestep_range`` holds no timestep."""
        self._bounds(config)

    def noised(
        self,
        latents: Tensor,
        noise: Tensor,
        timesteps: Tensor,
        config: TrainingConfig,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
    ) -> Noised:
        """Mix `noise` into `latents` at `timesteps`, all on one device.

        ``input_perturbation`` perturbs the noise that is mixed in, but not the target (arXiv 2301.11706). It draws from
        `generator`, or from one for each picture, which keeps a picture's draw the same however a batch is divided.
        """
        mixed_in = noise
        if config.input_perturbation:
            mixed_in = noise + config.input_perturbation * _drawn(noise.shape, generator).to(noise)
        mixed, target = self._mixed(latents, noise, mixed_in, timesteps)
        weight, share = self._weight(timesteps, config), self._share(timesteps)
        return Noised(mixed, timesteps, target, weight.to(latents.device), share.to(latents.device))

    def loss(self, prediction: Tensor, noised: Noised, config: TrainingConfig, places: Tensor | None = None) -> Tensor:
        """The mean of the batch's `losses`."""
        return self.losses(prediction, noised, config, places).mean()

    def losses(
        self, prediction: Tensor, noised: Noised, config: TrainingConfig, places: Tensor | None = None
    ) -> Tensor:
        """The weighted loss of each picture (n,), float32. `places` (n, 1, h, w): weights of places, from masks."""
        error = prediction.float() - noised.target.float()
        error = LOSSES[config.loss](error, noised.share, config)
        if places is not None:
            error = error * places
        return error.mean(dim=(1, 2, 3)) * noised.weight

    def _weight(self, timesteps: Tensor, config: TrainingConfig) -> Tensor:
        """Loss weights (n,): the weight that the squared error of the latents shall have, divided by the one it has in
        the squared error of the prediction, so that an option means the same whatever is predicted."""
        weighting = WEIGHTINGS[config.weighting]
        if weighting is None:
            return torch.ones(len(timesteps))
        # SNR is 0 at the end of a zero-terminal-SNR schedule and infinite at the start of a flow.
        snr = self._snr(timesteps.cpu()).clamp(1e-8, 1e8)
        return weighting(snr, config) / self._weight_in_prediction(snr)

    @abstractmethod
    def levels(self, count: int) -> Tensor:
        """`count` timesteps spread evenly over the noise schedule, from little noise to much."""

    @abstractmethod
    def fingerprint(self) -> list[float]:
        """Numbers that distinguish the noise schedule from others."""

    @abstractmethod
    def _bounds(self, config: TrainingConfig) -> tuple[float, float]:
        """Where ``timestep_range`` begins and ends. ConfigError if it is empty."""

    @abstractmethod
    def _at_shares(self, strata: Tensor, config: TrainingConfig, places: Tensor | None) -> Tensor:
        """The timesteps at `strata` (n,), shares of ``timestep_range``."""

    @abstractmethod
    def _at_log_snr(self, wanted: Tensor, config: TrainingConfig) -> Tensor:
        """The timesteps of ``timestep_range`` for the log-SNRs `wanted` (n,)."""

    @abstractmethod
    def _mixed(self, latents: Tensor, noise: Tensor, mixed_in: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """`latents` with `mixed_in`, and the target for `latents` and `noise`."""

    @abstractmethod
    def _snr(self, timesteps: Tensor) -> Tensor: ...

    @abstractmethod
    def _weight_in_prediction(self, snr: Tensor) -> Tensor:
        """The squared error of the prediction, as a multiple of that of the latents."""

    @abstractmethod
    def _share(self, timesteps: Tensor) -> Tensor: ...


class Objective(Denoising):
    """The noise schedule of a base model, with epsilon or v-prediction (arXiv 2202.00512).

    `zero_terminal_snr` rescales it so that no signal remains at its end (arXiv 2305.08891); BaseModelError
    with epsilon prediction.
    """

    def __init__(self, alphas_cumprod: Tensor, prediction_type: str, *, zero_terminal_snr: bool = False) -> None:
        if prediction_type not in ("epsilon", "v_prediction"):
            raise BaseModelError(f'prediction type "{prediction_type}" cannot be trained; epsilon and v_prediction can')
        if zero_terminal_snr and prediction_type == "epsilon":
            raise BaseModelError(
                "training.zero_terminal_snr needs a base model with v_prediction, but this one predicts epsilon, which "
                "teaches nothing where there is no signal; set training.zero_terminal_snr=false"
            )
        self.alphas_cumprod = _without_terminal_signal(alphas_cumprod) if zero_terminal_snr else alphas_cumprod
        self.prediction_type = prediction_type
        self.log_snr = torch.log(self.alphas_cumprod / (1 - self.alphas_cumprod))

    def levels(self, count: int) -> Tensor:
        return (2 * torch.arange(count) + 1) * len(self.alphas_cumprod) // (2 * count)

    def fingerprint(self) -> list[float]:
        """The schedule's length, and its share of signal at points over it."""
        signal = self.alphas_cumprod.tolist()
        return [float(len(signal)), *signal[:: max(1, len(signal) // _POINTS)], signal[-1]]

    def _at_shares(self, strata: Tensor, config: TrainingConfig, places: Tensor | None) -> Tensor:  # noqa: ARG002
        first, end = self._bounds(config)
        return first + (strata * (end - first)).long().clamp(max=end - first - 1)

    def _at_log_snr(self, wanted: Tensor, config: TrainingConfig) -> Tensor:
        first, end = self._bounds(config)
        log_snr = self.log_snr[first:end]
        ends = log_snr[log_snr.isfinite()]  # where there is no signal at all, it is infinite
        if len(ends):
            wanted = truncated(wanted, ends[-1], ends[0], config)
        return first + (log_snr[None, :] - wanted[:, None]).abs().argmin(dim=1)

    def _bounds(self, config: TrainingConfig) -> tuple[int, int]:
        """The first timestep of the range, and the one after its last."""
        count = len(self.alphas_cumprod)
        first, end = (round(share * count) for share in config.timestep_range)
        if first >= end:
            raise _empty_range(config, f"none of the {count} timesteps of the base model")
        return first, end

    def _mixed(self, latents: Tensor, noise: Tensor, mixed_in: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.alphas_cumprod.to(latents.device)[timesteps].view(-1, 1, 1, 1)
        signal, level = alpha.sqrt(), (1 - alpha).sqrt()
        target = noise if self.prediction_type == "epsilon" else signal * noise - level * latents
        return signal * latents + level * mixed_in, target

    def _snr(self, timesteps: Tensor) -> Tensor:
        return self.log_snr.exp()[timesteps]

    def _weight_in_prediction(self, snr: Tensor) -> Tensor:
        return snr if self.prediction_type == "epsilon" else snr + 1

    def _share(self, timesteps: Tensor) -> Tensor:
        return timesteps / max(1, len(self.alphas_cumprod) - 1)


class FlowMatching(Denoising):
    """Rectified flow (arXiv 2209.03003, 2403.03206): latents x and noise ε are mixed as (1 - t) x + t ε, and the
    velocity ε - x is predicted. Timesteps are 1000 t, float32, for any t from 0 to 1.

    Uniform timesteps are so before the `shift` of the base model's scheduler, as those are that it draws with;
    ``timestep_range`` and log-SNRs are those after it, so that they mean the same for every base model.
    """

    prediction_type = "flow"

    def __init__(self, shift: Shift = Shift()) -> None:  # noqa: B008 (frozen)
        self.shift = shift

    def levels(self, count: int) -> Tensor:
        return (2 * torch.arange(count) + 1) * 500 / count

    def fingerprint(self) -> list[float]:
        """The shift of small and of large pictures: every flow is the same straight line."""
        return self.shift.factor(torch.tensor([4.0**6, 4.0**8])).flatten().tolist()

    def _at_shares(self, strata: Tensor, config: TrainingConfig, places: Tensor | None) -> Tensor:
        ends = torch.tensor(self._bounds(config), dtype=torch.float64)
        first, end = (self.shift.back(each, places) for each in ends)
        return (1000 * self.shift(first + strata * (end - first), places)).float()

    def _at_log_snr(self, wanted: Tensor, config: TrainingConfig) -> Tensor:
        first, end = self._bounds(config)
        lowest, highest = -2 * torch.logit(torch.tensor([end, first], dtype=torch.float64))
        return 1000 * torch.sigmoid(-truncated(wanted, lowest, highest, config) / 2)

    def _bounds(self, config: TrainingConfig) -> tuple[float, float]:
        first, end = config.timestep_range
        if first >= end:
            raise _empty_range(config, "no timestep")
        return first, end

    def _mixed(self, latents: Tensor, noise: Tensor, mixed_in: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        level = self._share(timesteps).view(-1, 1, 1, 1)
        return (1 - level) * latents + level * mixed_in, noise - latents

    def _snr(self, timesteps: Tensor) -> Tensor:
        level = self._share(timesteps)
        return ((1 - level) / level).square()

    def _weight_in_prediction(self, snr: Tensor) -> Tensor:
        return (1 + snr.sqrt()).square()

    def _share(self, timesteps: Tensor) -> Tensor:
        return timesteps / 1000


def _empty_range(config: TrainingConfig, what: str) -> ConfigError:
    first, end = config.timestep_range
    return ConfigError(
        f"training.timestep_range is [{first:g}, {end:g}], which holds {what}; give a lower share and a higher one, "
        "such as [0, 0.5] for the half with less noise"
    )


def _without_terminal_signal(alphas_cumprod: Tensor) -> Tensor:
    """The schedule with its signal's amplitude shifted to 0 at the end, and scaled so that its start stays the same."""
    signal = alphas_cumprod.sqrt()
    return ((signal - signal[-1]) * (signal[0] / (signal[0] - signal[-1]))).square()


def _drawn(shape: torch.Size, generator: torch.Generator | Sequence[torch.Generator] | None) -> Tensor:
    if generator is None:
        raise ValueError("input_perturbation draws noise, so it needs a generator")
    if isinstance(generator, torch.Generator):
        return torch.randn(shape, generator=generator)
    return torch.stack([torch.randn(shape[1:], generator=each) for each in generator])
