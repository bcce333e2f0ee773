"""Randomness as a pure function of (seed, step, purpose), so that any step can be repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def generator_for(seed: int, step: int, purpose: str) -> torch.Generator:
    """A CPU generator that depends only on its arguments."""
    import torch

    mixed = np.random.SeedSequence([seed, step, *purpose.encode()]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(mixed[0]) << 31 ^ int(mixed[1]))
