"""What a run reports: a record per step and per validation, the lines of `log.jsonl` and `validation.jsonl`."""

from __future__ import annotations

from dataclasses import dataclass, field

#: noise levels at which each image is tried, evenly over the schedule
LEVELS = 16


@dataclass(frozen=True)
class StepReport:
    """What happened in one step: `step` counts from 1 to `steps`; `loss` is weighted, `by_noise` is without the weights
    of noise levels and regularisation images, in each quarter of the noise schedule, from little noise to much, where
    the step had any; `memory` is in bytes, `seconds` is the step's time; `alarms` are sentences for the user."""

    step: int
    steps: int
    loss: float
    learning_rate: float
    seconds: float
    grad_norm: float | None = None
    by_noise: list[float | None] = field(default_factory=list)
    memory: int = 0
    alarms: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ValidationReport:
    """The mean loss after `step` steps on images `held` out and on `trained` ones, and by noise level, from little
    noise to much (LEVELS,)."""

    step: int
    held: float
    trained: float
    held_by_level: list[float]
    trained_by_level: list[float]
