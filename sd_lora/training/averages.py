"""Averages of the trained weights over steps: a candidate beside the last step's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from sd_lora.config.schema import TrainingConfig

#: the last share of the steps, over which "tail" takes the mean
_TAIL = 0.25


class Average:
    """An exponential moving average of `parameters`, or their plain mean over the last quarter of the `steps`."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], steps: int, config: TrainingConfig) -> None:
        self._parameters, self._decay = dict(parameters), config.ema_decay
        self._first = steps - max(1, round(_TAIL * steps)) if config.average == "tail" else 0
        self._tail = config.average == "tail"
        #: the average by parameter name, float32; empty before the first step that counts
        self.tensors: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after `step` (from 0) to the average."""
        count = step - self._first
        if count < 0:
            return
        if not self.tensors:
            self.tensors = {name: p.detach().clone() for name, p in self._parameters.items()}
            return
        # Early on, a fixed decay would remember the start for too long.
        share = 1 / (count + 1) if self._tail else 1 - min(self._decay, (1 + count) / (10 + count))
        for name, parameter in self._parameters.items():
            self.tensors[name].lerp_(parameter.detach(), share)

    def applied(self) -> AbstractContextManager[None]:
        """The average in place of the weights, for the length of a ``with`` block."""
        return replaced(self._parameters, self.tensors)


@contextmanager
@torch.no_grad()
def replaced(parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """`tensors` in place of the values of `parameters`, which are as before afterwards, bit for bit."""
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    try:
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.copy_(before[name])
