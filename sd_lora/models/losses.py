"""The losses and the weights of noise levels, a row each."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from sd_lora.config.schema import TrainingConfig


def _huber(error: Tensor, share: Tensor, config: TrainingConfig) -> Tensor:
    """The scheduled pseudo-Huber loss (arXiv 2403.16728), 2 c (√(error² + c²) - c) with c = huber_threshold ^ share:
    error² where abs(error) is small beside c, 2 c abs(error) where it is large; c falls from 1 at no noise to the
    threshold at most noise."""
    threshold = (config.huber_threshold**share).view(-1, 1, 1, 1)
    # The same as in the docstring, without the difference of two almost equal numbers.
    return 2 * threshold * error.square() / ((error.square() + threshold.square()).sqrt() + threshold)


# ruff: noqa: ARG005 (a row need not use all that rows are given)
#: name → the loss at every place of an `error` (n, c, h, w), where a `share` (n,) of the noise schedule is passed
LOSSES: dict[str, Callable[[Tensor, Tensor, TrainingConfig], Tensor]] = {
    "l2": lambda error, share, config: error.square(),
    "l1": lambda error, share, config: error.abs(),
    "huber": _huber,
}

#: name → the weight of the squared error of the latents at signal-to-noise ratios (n,); None: the weight it has in the
#: squared error of the prediction. √SNR is the published 1 / √SNR for epsilon, √SNR / (SNR + 1) for v-prediction and
#: t (1 - t) for rectified flow.
WEIGHTINGS: dict[str, Callable[[Tensor, TrainingConfig], Tensor] | None] = {
    "none": None,
    "min-snr": lambda snr, config: snr.clamp(max=config.min_snr_gamma),  # arXiv 2303.09556
    "debiased": lambda snr, config: snr.sqrt(),  # arXiv 2310.08442
}
