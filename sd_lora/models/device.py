"""Which device and precision to use, how much of its memory is available, and when it is full."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psutil
import torch

from sd_lora.config.schema import ModelConfig
from sd_lora.errors import ConfigError

#: weights from which the precision of a denoiser decides what a step takes on a CPU
_LARGE = 10**8


def choose_device(config: ModelConfig) -> torch.device:
    """CUDA, else MPS, else the CPU; or the one asked for. ConfigError if it is not available."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if config.device == "auto":
        return torch.device(next(name for name in ("cuda", "mps", "cpu") if available[name]))
    if not available[config.device]:
        names = ", ".join(name for name, is_available in available.items() if is_available)
        raise ConfigError(
            f"model.device is {config.device}, which is not available on this machine; available: {names}"
        )
    return torch.device(config.device)


def choose_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    """The precision of the base model and of the computation; LoRA weights are float32 always."""
    if config.dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if config.dtype == "float16" and device.type == "cpu":
        raise ConfigError("model.dtype is float16, which the CPU does not train in; use float32 or bfloat16")
    return getattr(torch, config.dtype)


def faster_dtype(config: ModelConfig, device: torch.device, weights: int) -> str:
    """What a user may gain from bfloat16 with a denoiser of that many `weights`, as a sentence; "" if nothing is known.

    It is never chosen unasked on a CPU, because it changes results.
    """
    can = getattr(torch.cpu, "get_capabilities", dict[str, bool])()
    if device.type != "cpu" or config.dtype != "auto" or weights < _LARGE:
        return ""
    if not (can.get("avx512_bf16") or can.get("amx_bf16")):
        return ""
    return (
        "this processor has instructions for bfloat16: model.dtype=bfloat16 is likely to be faster and halves the "
        "memory of the base model, with slightly different results"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory is full: the CPU's allocator and MPS raise plain RuntimeErrors."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        text in str(error) for text in ("can't allocate memory", "not enough memory", "out of memory")
    )


def free_memory(device: torch.device) -> int:
    """Bytes that are available on `device` now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return int(psutil.virtual_memory().available)


@contextlib.contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Have torch compute with that many processor threads for the length of a ``with`` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def give_back(device: torch.device) -> None:
    """Return the allocator's unused memory."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
