"""What a step needs of memory: out of it, and how to do with less."""

from __future__ import annotations

import psutil
import torch
from torch import nn

from sd_lora.errors import SdLoraError


class OutOfMemory(SdLoraError):
    """A step that does not fit into memory, even in the leanest way."""

    exit_code = 5


def used_memory(device: torch.device) -> int:
    """Bytes in use: the device's peak on CUDA, this process's resident memory elsewhere."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def free_memory(device: torch.device) -> int:
    """Bytes that are to be had on `device` now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return int(psutil.virtual_memory().available)


def usable_memory(device: torch.device) -> int:
    """Bytes that this process may have on `device` in all: what it holds and what is free."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device)) + free_memory(device)
    return int(psutil.Process().memory_info().rss) + free_memory(device)


def checkpoint_activations(denoiser: nn.Module) -> None:
    """Have `denoiser` compute its activations again in the backward pass instead of keeping them."""
    denoiser.enable_gradient_checkpointing()  # type: ignore[operator]  # of every diffusers model


def too_large(device: torch.device, step: int, micro_batch: int, *, checkpointing: bool) -> OutOfMemory:
    """The error for a step that did not fit with that `micro_batch`."""
    used, free = (f"{number / 2**30:.1f} GB" for number in (used_memory(device), free_memory(device)))
    lean = micro_batch == 1 and checkpointing
    advice = (
        "lower data.resolution, choose model.dtype=bfloat16 or another device" if lean
        else "set training.micro_batch=1 and training.gradient_checkpointing=true"
    )  # fmt: skip
    return OutOfMemory(
        f"step {step} does not fit into the memory of {device.type}: {used} are used and {free} free, with "
        f"{micro_batch} images at once and {'with' if checkpointing else 'without'} gradient checkpointing; {advice}"
    )
