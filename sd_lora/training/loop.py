"""The one training loop. It yields a report a step; whoever consumes them draws, saves and counts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sd_lora.config import OptimizerConfig, RunConfig, TrainingConfig
from sd_lora.data import Batch, EncodedSet, generator_for
from sd_lora.errors import TrainingStopped, some
from sd_lora.families import Conditioning, ModelFamily
from sd_lora.objectives import Objective


@dataclass(frozen=True)
class StepReport:
    """What happened in one step: `step` counts from 1 to `steps`; `seconds` is the step's own time."""

    step: int
    steps: int
    loss: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Material:
    """What is trained on: encoded examples and the base model's objective; `encode` turns captions into conditioning
    in the loop, where text encoders are trained too."""

    data: EncodedSet
    objective: Objective
    encode: Callable[[Sequence[str]], Conditioning] | None = None


def training_steps(
    accelerator: Accelerator,
    family: ModelFamily,
    denoiser: nn.Module,
    parameters: Mapping[str, list[nn.Parameter]],
    material: Material,
    config: RunConfig,
) -> Iterator[StepReport]:
    """Train the injected layers on `material` for ``config.training.steps`` steps. `parameters` are those of the layers
    in the denoiser (``denoiser``) and in the text encoders (``text``).

    Order, noise, timesteps, dropout and mirroring are pure functions of (seed, step); the global batch is shared out
    among the processes. Raises TrainingStopped when the loss or a gradient is no finite number.
    """
    training = config.training
    steps = training.steps or 0
    optimizer: Any = accelerator.prepare(_optimizer(parameters, config.optimizer))
    trained = [parameter for group in parameters.values() for parameter in group]
    try:
        for step in range(steps):
            started = time.perf_counter()
            share = schedule(step, steps, config.optimizer)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * share
            total, names = torch.zeros((), device=accelerator.device), []
            for loss, own in _losses(accelerator, family, denoiser, material, (step, training)):
                accelerator.backward(loss)
                total, names = total + loss.detach(), names + own
            _average_gradients(accelerator, trained)
            norm = accelerator.clip_grad_norm_(trained, config.optimizer.clip_norm)
            value = float(accelerator.reduce(total, "mean"))  # type: ignore[arg-type]
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
            rate = config.optimizer.learning_rate * share
            yield StepReport(step + 1, steps, value, rate, time.perf_counter() - started)
    finally:
        accelerator.free_memory()


def schedule(step: int, steps: int, config: OptimizerConfig) -> float:
    """Share of the peak rate at `step` (from 0): linear warm-up, then cosine down to ``final`` at the last step."""
    warm = round(config.warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    progress = (step - warm) / max(1, steps - 1 - warm)
    return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress))


def _optimizer(parameters: Mapping[str, list[nn.Parameter]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW with a group for the denoiser's layers and, if there are any, one for the text encoders'."""
    peaks = {"denoiser": config.learning_rate, "text": config.text_learning_rate or config.learning_rate}
    groups = [{"params": own, "peak": peaks[name]} for name, own in parameters.items() if own]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay)


def _average_gradients(accelerator: Accelerator, parameters: Sequence[nn.Parameter]) -> None:
    """The mean of all processes' gradients, in one message: layers are small, so no model needs a wrapper for it."""
    if accelerator.num_processes == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    mean: Any = accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
    for gradient, part in zip(gradients, mean.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def _losses(
    accelerator: Accelerator,
    family: ModelFamily,
    denoiser: nn.Module,
    material: Material,
    moment: tuple[int, TrainingConfig],
) -> Iterator[tuple[Tensor, list[str]]]:
    """This process's share of the loss of one step, a part for each size of image in it, with the images' names.

    The parts add up to the mean over the step's images: each image counts the same, whatever its size."""
    step, training = moment
    groups = material.data.schedule.groups(step)
    generator = generator_for(training.seed, step, "noise")
    noises = [torch.randn(len(g.places), *material.data.shape(g.size), generator=generator) for g in groups]
    timesteps = material.objective.sample_timesteps(training.batch_size, training, generator)
    share = training.batch_size // accelerator.num_processes
    mine = range(accelerator.process_index * share, (accelerator.process_index + 1) * share)
    for group, noise in zip(groups, noises, strict=True):
        batch = material.data.batch(group, step, training.caption_dropout, mine)
        if batch is not None:
            rows = [row for row, place in enumerate(group.places) if place in mine]
            times = timesteps[[group.places[row] for row in rows]]
            loss = _loss(accelerator.device, family, denoiser, material, (batch, noise[rows], times), moment)
            yield loss * (len(rows) / share), batch.names


def _loss(
    device: torch.device,
    family: ModelFamily,
    denoiser: nn.Module,
    material: Material,
    drawn: tuple[Batch, Tensor, Tensor],
    moment: tuple[int, TrainingConfig],
) -> Tensor:
    """The mean loss of a batch of one size with its noise and timesteps."""
    (batch, noise, timesteps), (step, training) = drawn, moment
    noised = material.objective.noised(
        batch.latents.to(device), noise.to(device), timesteps.to(device), training.min_snr_gamma
    )
    conditioning = {key: states.to(device) for key, states in batch.conditioning.items()}
    precision = next(denoiser.parameters()).dtype
    with torch.autocast(device.type, precision, enabled=precision is not torch.float32):
        if material.encode is not None:
            with torch.set_grad_enabled(training.text_steps is None or step < training.text_steps):
                conditioning |= material.encode(batch.captions)
        prediction = family.denoise(denoiser, noised.latents, noised.timesteps, conditioning)
    return material.objective.loss(prediction, noised, None if batch.weights is None else batch.weights.to(device))
