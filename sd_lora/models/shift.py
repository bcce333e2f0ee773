"""How a scheduler shifts the noise levels of a flow: the law that the base model draws by, and is trained by here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sd_lora.errors import BaseModelError

#: settings of schedulers that bend the noise levels in a way that has no law here
_BENT = ("shift_terminal", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas")


@dataclass(frozen=True)
class Shift:
    """Level σ in 0..1 becomes s · σ / (1 + (s - 1) · σ), which lowers every log-SNR by 2 · ln(s).

    `static`: s. A dynamic shift has a `line` instead, μ = slope · tokens + start, and s is exp(μ), or μ itself if it
    `is_linear`; a picture has a token for each `patch` latent places.
    """

    static: float = 1.0
    line: tuple[float, float] | None = None
    is_linear: bool = False
    patch: int = 4

    def factor(self, places: Tensor | None) -> Tensor:
        """s for pictures of that many latent `places` (n,), float64."""
        if self.line is None:
            return torch.tensor(self.static, dtype=torch.float64)
        if places is None:
            raise ValueError("this shift depends on the pictures' sizes, so it needs them")
        mu = self.line[0] * (places.double() / self.patch) + self.line[1]
        return mu if self.is_linear else mu.exp()

    def __call__(self, levels: Tensor, places: Tensor | None = None) -> Tensor:
        """`levels` (n,) shifted."""
        return shifted(levels, self.factor(places))

    def back(self, levels: Tensor, places: Tensor | None = None) -> Tensor:
        """The levels that are shifted to `levels` (n,)."""
        return shifted(levels, 1 / self.factor(places))


def shifted(levels: Tensor, factor: Tensor) -> Tensor:
    return factor * levels / (1 + (factor - 1) * levels)


def shift_of(scheduler: Any, patch: int) -> Shift:
    """The shift of a scheduler of flows, for pictures with a token for each `patch` latent places. Raises
    BaseModelError."""
    config, name = scheduler.config, type(scheduler).__name__
    if "shift" not in config:
        raise BaseModelError(f"scheduler {name} has no flow that can be trained; name one of flow matching")
    if bent := [setting for setting in _BENT if config.get(setting)]:
        raise BaseModelError(f"scheduler {name} has {' and '.join(bent)} set, which cannot be trained; unset it")
    if not config.get("use_dynamic_shifting"):
        return Shift(config.shift, patch=patch)
    few, many = config.base_image_seq_len, config.max_image_seq_len
    slope = (config.max_shift - config.base_shift) / (many - few)
    line = (slope, config.base_shift - slope * few)
    return Shift(line=line, is_linear=config.time_shift_type == "linear", patch=patch)
