"""How the rate rises and falls: a step's share of the peak rate is a pure function of its number."""

from __future__ import annotations

import math
from collections.abc import Callable

from sd_lora.config.schema import OptimizerConfig

#: name → the share of the peak rate at `progress` (0 to 1) through the steps after the warm-up
SCHEDULES: dict[str, Callable[[float, OptimizerConfig], float]] = {
    "cosine": lambda progress, c: c.final + (1 - c.final) * 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress, c: c.final + (1 - c.final) * (1 - progress),
    "polynomial": lambda progress, c: c.final + (1 - c.final) * (1 - progress) ** c.power,
    "constant": lambda progress, c: 1.0,  # noqa: ARG005
}


def rate_share(step: int, steps: int, config: OptimizerConfig) -> float:
    """Share of the peak rate at `step` (from 0): linear warm-up, then the schedule, down to ``final`` at the last step
    unless it is constant."""
    warm = round(config.warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    return SCHEDULES[config.schedule]((step - warm) / max(1, steps - 1 - warm), config)
