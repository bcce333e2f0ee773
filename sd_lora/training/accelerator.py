"""The accelerator of one run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from sd_lora.errors import ConfigError


@contextmanager
def accelerator_for(
    device: torch.device, dtype: torch.dtype, trackers: Sequence[str] = (), folder: Path | None = None
) -> Iterator[Accelerator]:
    """An accelerator for one run; its process-wide state is cleared afterwards so that the next may differ.
    `trackers` write to `folder`."""
    # The loop runs autocast itself; accelerate adds the gradient scaler that float16 needs.
    mixed = "fp16" if dtype is torch.float16 else "no"
    accelerator = Accelerator(
        cpu=device.type == "cpu", mixed_precision=mixed, log_with=list(trackers) or None, project_dir=folder
    )
    if mixed == "fp16" and accelerator.num_processes > 1:
        raise ConfigError("float16 trains in one process only; set model.dtype=bfloat16 for several")
    try:
        yield accelerator
    finally:
        if accelerator.num_processes == 1:
            AcceleratorState._reset_state(reset_partial_state=True)
