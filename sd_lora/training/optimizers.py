"""What moves the layers: the optimizers, one row each, and how their rate rises and falls.

They are made for groups of parameters; `set_rate` sets the share of the peak rate that `rate_share` gives a step.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sd_lora.config.conflicts import OptimizerFacts, optimizer_conflicts
from sd_lora.config.schema import OptimizerConfig
from sd_lora.errors import ConfigError

Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters with one peak rate, before LoRA+; `up` says that they are the layers' up matrices."""

    params: Sequence[Tensor]
    peak: float
    up: bool = False


@dataclass(frozen=True)
class Optimizer(OptimizerFacts):
    """`make` makes one from groups that have their rate, weight decay and, where they are given, betas; its first
    argument is `package`, imported: torch, or one that `extra` of sd-lora installs."""

    make: Callable[[Any, Groups], torch.optim.Optimizer]
    package: str = "torch"
    extra: str = "optimizers"


def _adamw(torch: Any, groups: Groups) -> torch.optim.Optimizer:
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    return torch.optim.AdamW(groups, fused=True if devices <= {"cpu", "cuda"} else None)


def _schedule_free(package: Any, groups: Groups) -> torch.optim.Optimizer:
    optimizer = package.AdamWScheduleFree(groups)
    optimizer.train()
    return optimizer


OPTIMIZERS: dict[str, Optimizer] = {
    "adamw": Optimizer(_adamw),
    "adamw8bit": Optimizer(
        lambda package, groups: package.optim.AdamW8bit(groups), "bitsandbytes", "cuda", needs_cuda=True
    ),
    # Torch multiplies the rate by max(eps[1], RMS of the weights), and up matrices start at zero. At 1, which no
    # layer's RMS comes near, a rate means what it means for AdamW.
    "adafactor": Optimizer(lambda torch, groups: torch.optim.Adafactor(groups, eps=(None, 1.0)), betas=False),
    # Both are its README's advice for diffusion models; without the first, a warm-up makes it overestimate the rate.
    "prodigy": Optimizer(
        lambda package, groups: package.Prodigy(groups, safeguard_warmup=True, use_bias_correction=True),
        "prodigyopt", one_rate=True,
    ),
    "schedule-free": Optimizer(_schedule_free, "schedulefree", averages=True),
    "lion": Optimizer(lambda package, groups: package.Lion(groups), "lion_pytorch"),
}  # fmt: skip


def make_optimizer(
    groups: Sequence[ParameterGroup], config: OptimizerConfig, device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer that `config` names, for those of `groups` that have parameters, ready to step. Each of its groups
    keeps its peak rate as ``peak``: up matrices' is `plus_ratio` times the others' (LoRA+, arXiv 2402.12354).

    Betas at the config's default are left to the optimizer. Raises ConfigError for settings that cannot act with it.
    """
    if problems := optimizer_problems(config, device.type):
        raise ConfigError("; ".join(problems))
    settings: dict[str, Any] = {"weight_decay": config.weight_decay}
    if config.betas != OptimizerConfig().betas:
        settings["betas"] = config.betas
    with_rates = []
    for group in groups:
        peak = group.peak * config.plus_ratio if group.up else group.peak
        if group.params:
            with_rates.append({"params": list(group.params), "lr": peak, "peak": peak, **settings})
    row = OPTIMIZERS[config.name]
    return row.make(importlib.import_module(row.package), with_rates)


def optimizer_problems(config: OptimizerConfig, device: str) -> list[str]:
    """Why `config` cannot act on a `device` of this type, a sentence each; nothing if it can."""
    row = OPTIMIZERS[config.name]
    problems = optimizer_conflicts(config, row, device)
    if row.needs_cuda and device != "cuda":
        return problems
    try:
        importlib.import_module(row.package)
    except ImportError as error:
        problems.append(
            f"optimizer.name={config.name} needs {row.package}, which cannot be imported ({error}); "
            f'run pip install "sd-lora[{row.extra}]"'
        )
    return problems


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Every group's rate becomes `share` of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


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
