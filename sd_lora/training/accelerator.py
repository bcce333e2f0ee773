"""The accelerator of one run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

_PRECISION = {torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}


@contextmanager
def accelerator_for(device: torch.device, dtype: torch.dtype) -> Iterator[Accelerator]:
    """An accelerator for one run; its process-wide state is cleared afterwards so that the next may differ."""
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=_PRECISION[dtype])
    try:
        yield accelerator
    finally:
        if accelerator.num_processes == 1:
            AcceleratorState._reset_state(reset_partial_state=True)
