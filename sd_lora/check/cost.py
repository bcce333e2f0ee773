"""What a step of a base model costs on this machine, in seconds and bytes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor

from sd_lora.data.exposures import Schedule
from sd_lora.data.pictures.views import View
from sd_lora.models.opening import ModelFamily

#: multiply-adds (weights × latent places × pictures) that a CPU is asked for in a probe; more is probed smaller
_PROBE = 2.5e11
#: steps that are timed at most, and seconds after which no further one is
_TRIES, _TRY_SECONDS = 5, 1.0


@dataclass(frozen=True)
class Cost:
    """What a step costs on a device: its `seconds`, the bytes that are `resident` beside it, the bytes that its
    `activations` take for the backward pass, and what the figures are based on."""

    seconds: float
    resident: int
    activations: int
    basis: str

    def of(self, steps: int) -> tuple[float, int, str]:
        """Seconds and bytes of a run of `steps` steps, and their basis."""
        return self.seconds * steps, self.resident + self.activations, self.basis


def measure(
    family: ModelFamily, pipe: Any, device: torch.device, schedule: Schedule, *, checkpointing: bool = False
) -> Cost:
    """What a step of the base model costs on `device`, by timing some; with gradient `checkpointing` if that is set.

    A base that is large for a CPU is tried on fewer pixels and one picture, and the figures scaled: a rough estimate.
    """
    largest = max((v for s in schedule.images for views in s.views for v in views), key=lambda v: v.size[0] * v.size[1])
    denoiser = getattr(pipe, family.denoiser)
    probe, batch = largest, schedule.batch_size
    grain = family.grain(pipe)
    if device.type == "cpu" and family.work(pipe, probe.size) * batch > _PROBE:
        batch = 1
        while family.work(pipe, probe.size) > _PROBE and min(probe.size) > grain:
            width, height = (max(grain, int(0.8 * side) // grain * grain) for side in probe.size)
            probe = View((width, height))
    scale = largest.size[0] * largest.size[1] * schedule.batch_size / (probe.size[0] * probe.size[1] * batch)
    slower = family.work(pipe, largest.size) * schedule.batch_size / (family.work(pipe, probe.size) * batch)
    for part in family.parts(pipe):
        part.to(device)
    _step(family, pipe, device, probe, 1)  # the first call of its kind is slow
    if checkpointing:
        denoiser.enable_gradient_checkpointing()
    try:
        began, saved, seconds = time.perf_counter(), 0, list[float]()
        # cheap steps are timed more than once: on a busy machine any one may be slow
        while not seconds or (len(seconds) < _TRIES and time.perf_counter() - began < _TRY_SECONDS):
            started = time.perf_counter()
            saved = _step(family, pipe, device, probe, batch)
            seconds.append(time.perf_counter() - started)
    finally:
        if checkpointing:
            denoiser.disable_gradient_checkpointing()
    resident = torch.cuda.memory_allocated() if device.type == "cuda" else psutil.Process().memory_info().rss
    how = "a step of the base model, timed here"
    how += f" at {probe.size[0]} × {probe.size[1]} px and scaled by {scale:.0f}" if scale > 1 else ""
    return Cost(min(seconds) * slower, int(resident), int(saved * scale), how)


def _step(family: ModelFamily, pipe: Any, device: torch.device, view: View, batch: int) -> int:
    """One forward and backward pass, as in a step, without layers; the bytes that autograd kept for the latter."""
    denoiser, kept = getattr(pipe, family.denoiser), dict[int, int]()
    conditioning = {}
    with torch.no_grad():
        conditioning.update(family.encode_captions(pipe, [""] * batch))
    framing = [view.framing(*view.size)] * batch
    conditioning |= {key: rows.to(device) for key, rows in family.encode_framing(framing).items()}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            kept.setdefault(tensor.data_ptr(), tensor.nbytes)
        return tensor

    noisy = torch.cat([family.noise(pipe, view.size, 0)] * batch).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        prediction = family.denoise(denoiser, noisy, torch.zeros(batch, dtype=torch.long, device=device), conditioning)
    prediction.float().square().mean().backward()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return sum(kept.values())
