"""How much memory a step needs, how the steps of a run are made to fit, and the error for one that does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import psutil
import torch

from sd_lora.check.cost import Cost
from sd_lora.config.schema import TrainingConfig
from sd_lora.errors import SdLoraError
from sd_lora.models.device import free_memory
from sd_lora.models.recompute import STEPS_DOWN, Recomputed, described

#: the share of the available memory that a run may take
_MOST = 0.85


class OutOfMemory(SdLoraError):
    """A step that does not fit into memory, even in the leanest way."""

    exit_code = 5


def used_memory(device: torch.device) -> int:
    """Bytes in use: the device's peak on CUDA, this process's resident memory elsewhere."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def usable_memory(device: torch.device) -> int:
    """Bytes that this process may use on `device` in all: those it has and those that are free."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device)) + free_memory(device)
    return int(psutil.Process().memory_info().rss) + free_memory(device)


def too_large(device: torch.device, step: int, micro_batch: int, recomputed: Recomputed) -> OutOfMemory:
    """The error for a step that did not fit with that `micro_batch`."""
    used, free = _gb(used_memory(device)), _gb(free_memory(device))
    lean = micro_batch == 1 and recomputed is True
    advice = (
        "lower data.resolution, choose model.dtype=bfloat16 or another device"
        if lean
        else "set training.micro_batch=1 and training.gradient_checkpointing=true"
    )
    return OutOfMemory(
        f"step {step} does not fit into the memory of {device.type}: {used} are used and {free} free, with "
        f"{micro_batch} images at once and {described(recomputed)}; {advice}"
    )


@dataclass(frozen=True)
class Means:
    """How a step is computed, what it then costs, and why, as sentences. How many `seconds` it takes may not be known
    before the first run of its kind."""

    micro_batch: int
    gradient_checkpointing: Recomputed
    seconds: float | None
    memory: int
    reasons: list[str]


def choose_means(
    training: TrainingConfig, share: int, free: int, probe: Callable[[Recomputed], Cost], *, given: str = "as set"
) -> Means:
    """Micro-batch and checkpointing for `share` images of a step in `free` bytes (with what is resident already), so
    that as much as fits is computed at once; what `training` sets is kept. `probe` measures a step of the entire batch,
    with checkpointing of that kind. `given` says where the settings of `training` are from.
    """
    asked, most = training.micro_batch, int(_MOST * free)
    recomputed = training.gradient_checkpointing or False
    cost, reasons = probe(recomputed), list[str]()
    needed = asked or 1
    without = _bytes(cost, needed, training.batch_size)
    if training.gradient_checkpointing is not None:
        reasons.append(f"{described(recomputed)}, {given}")
    elif without > most:
        for recomputed in STEPS_DOWN[1:]:
            cost = probe(recomputed)
            if _bytes(cost, needed, training.batch_size) <= most:
                break
        reasons.append(
            f"{described(recomputed)}, because {_images(needed)} without it would take {_gb(without)} of the "
            f"{_gb(free)} available"
        )
    fitting = (micro for micro in range(share, 1, -1) if _bytes(cost, micro, training.batch_size) <= most)
    micro = min(asked or next(fitting, 1), share)
    if asked:
        reasons.append(f"{_images(micro)} at once, {given}")
    elif micro == share:
        reasons.append(f"all {share} images of a step at once, which fit" if share > 1 else "one image per step")
    else:
        reasons.append(f"{_images(micro)} of {share} at once, as more would not fit into {_gb(free)}")
    memory = _bytes(cost, micro, training.batch_size)
    reasons.append(f"about {_gb(memory)} of {_gb(free)} available, from {cost.basis}")
    return Means(micro, recomputed, cost.seconds, memory, reasons)


def _bytes(cost: Cost, images: int, batch_size: int) -> int:
    return cost.resident + cost.activations * images // batch_size


def _images(count: int) -> str:
    return "one image" if count == 1 else f"{count} images"


def _gb(number: int) -> str:
    return f"{number / 2**30:.1f} GB"
