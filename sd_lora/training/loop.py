"""The one training loop. It yields a report a step; whoever consumes them draws, saves and counts."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sd_lora.config import OptimizerConfig, RunConfig, TrainingConfig
from sd_lora.data import EncodedSet, generator_for
from sd_lora.errors import TrainingStopped, some
from sd_lora.families import ModelFamily
from sd_lora.objectives import Objective


@dataclass(frozen=True)
class StepReport:
    """What happened in one step: `step` counts from 1 to `steps`; `seconds` is the step's own time."""

    step: int
    steps: int
    loss: float
    learning_rate: float
    seconds: float


def training_steps(
    accelerator: Accelerator,
    family: ModelFamily,
    denoiser: nn.Module,
    parameters: list[nn.Parameter],
    material: tuple[EncodedSet, Objective],
    config: RunConfig,
) -> Iterator[StepReport]:
    """Train `parameters`, the layers injected into `denoiser`, on `material` for ``config.training.steps`` steps.

    Order, noise, timesteps, dropout and mirroring are pure functions of (seed, step); the global batch is shared out
    among the processes. Raises TrainingStopped when the loss or a gradient is no finite number.
    """
    training, (data, objective) = config.training, material
    steps = training.steps or 0
    optimizer: Any = torch.optim.AdamW(
        parameters, lr=config.optimizer.learning_rate, betas=config.optimizer.betas,
        weight_decay=config.optimizer.weight_decay,
    )  # fmt: skip
    # One process needs no wrapper, and accelerate's would turn the model's outputs to float32 in previews too.
    model, optimizer = denoiser, accelerator.prepare(optimizer)
    if accelerator.num_processes > 1:
        model = accelerator.prepare(denoiser)
    try:
        for step in range(steps):
            started = time.perf_counter()
            rate = learning_rate(step, steps, config.optimizer)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, names = _loss(accelerator, family, model, data, objective, (step, training))
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(parameters, config.optimizer.clip_norm)
            value = float(accelerator.reduce(loss.detach(), "mean"))  # type: ignore[arg-type]
            # In float16 the gradient scaler looks for its scale by overflowing now and then, and skips those steps.
            overflowing = norm is not None and accelerator.scaler is None and not math.isfinite(float(norm))
            if overflowing or not math.isfinite(value):
                what = "a gradient" if math.isfinite(value) else "the loss"
                raise TrainingStopped(
                    f"training stopped at step {step + 1}: {what} is no finite number (images of the step: "
                    f"{some(names)}); lower optimizer.learning_rate, which is {config.optimizer.learning_rate:g}"
                )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            yield StepReport(step + 1, steps, value, rate, time.perf_counter() - started)
    finally:
        accelerator.free_memory()


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """The rate at `step` (from 0): linear warm-up, then cosine down to ``final`` of the peak at the last step."""
    warm = round(config.warmup * steps)
    if step < warm:
        return config.learning_rate * (step + 1) / (warm + 1)
    progress = (step - warm) / max(1, steps - 1 - warm)
    return config.learning_rate * (config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress)))


def _loss(
    accelerator: Accelerator,
    family: ModelFamily,
    model: nn.Module,
    data: EncodedSet,
    objective: Objective,
    moment: tuple[int, TrainingConfig],
) -> tuple[Tensor, list[str]]:
    """This process's share of the loss of one step, and the names of its images."""
    step, training = moment
    batch = data.batch(step, training.batch_size, training.seed, training.caption_dropout)
    generator = generator_for(training.seed, step, "noise")
    noise = torch.randn(batch.latents.shape, generator=generator)
    timesteps = objective.sample_timesteps(training.batch_size, training, generator)
    share = training.batch_size // accelerator.num_processes
    mine = slice(accelerator.process_index * share, (accelerator.process_index + 1) * share)
    device = accelerator.device
    noised = objective.noised(
        batch.latents[mine].to(device), noise[mine].to(device), timesteps[mine].to(device), training.min_snr_gamma
    )
    conditioning = {key: states[mine].to(device) for key, states in batch.conditioning.items()}
    precision = next(model.parameters()).dtype
    with torch.autocast(device.type, precision, enabled=precision is not torch.float32):
        prediction = family.denoise(model, noised.latents, noised.timesteps, conditioning)
    return objective.loss(prediction, noised), batch.names[mine]
