"""What is watched while training: NaN and infinity, layers that learn nothing, layers that outgrow the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sd_lora.errors import TrainingStopped, some
from sd_lora.lora.layers import Layer
from sd_lora.lora.norms import delta_norms
from sd_lora.models.quantize import plain_weight

#: steps between two looks at all weights
LOOK_EVERY = 10
#: looks after which a change that has not grown at all raises an alarm
_FLAT_LOOKS = 5
#: how large a change of a weight may be, relative to the weight, before it raises an alarm
_OVERGROWN = 4.0


class Guards:
    """Looks at the layers now and then; each alarm is raised once."""

    def __init__(self, layers: Mapping[str, Layer], targets: Mapping[str, nn.Module]) -> None:
        self._layers = dict(layers)
        self._base = {name: _norm_of(module) for name, module in targets.items()}
        self._norms: list[float] = []
        self._given: set[str] = set()

    @torch.no_grad()
    def look(self, step: int) -> tuple[str, ...]:
        """Alarms after `step` steps, as sentences."""
        if not self._layers or step % LOOK_EVERY:
            return ()
        norms = dict(zip(self._layers, delta_norms(list(self._layers.values())), strict=True))
        self._norms.append(sum(norm**2 for norm in norms.values()) ** 0.5)
        recent = self._norms[-_FLAT_LOOKS:]
        enough = len(recent) == _FLAT_LOOKS
        grown = [name for name, norm in norms.items() if norm > _OVERGROWN * self._base.get(name, float("inf"))]
        alarms = {
            "zero": enough and max(recent) == 0
            and f"after {step} steps the adapter still changes nothing: every up matrix is zero; "
            "raise optimizer.learning_rate",
            "still": enough and max(recent) > 0 and max(recent) - min(recent) <= 1e-7 * max(recent)
            and f"the adapter has not changed for {LOOK_EVERY * (_FLAT_LOOKS - 1)} steps (step {step}); raise "
            "optimizer.learning_rate",
            "overgrown": grown
            and f"at step {step} the change of {len(grown)} modules is over {_OVERGROWN:g} times their own weights "
            f"({some(grown, 3)}); lower optimizer.learning_rate or set optimizer.max_norm",
        }  # fmt: skip
        fresh = {alarm: text for alarm, text in alarms.items() if isinstance(text, str) and alarm not in self._given}
        self._given |= fresh.keys()
        return tuple(fresh.values())


def check_finite(named: Mapping[str, Tensor], what: str, step: int, names: Sequence[str]) -> None:
    """TrainingStopped if one of the `named` tensors holds NaN or infinity; `names` are the step's images."""
    wrong = [name for name, tensor in named.items() if not bool(torch.isfinite(tensor).all())]
    if wrong:
        raise stopped(f"{what} of {len(wrong)} tensors ({some(sorted(wrong), 2)})", step, names)


def stopped(what: str, step: int, names: Sequence[str]) -> TrainingStopped:
    """The error for `what` that is NaN or infinite in `step` (from 1)."""
    return TrainingStopped(
        f"training stopped at step {step}: {what} is NaN or infinite (images of the step: {some(names)}); "
        "lower optimizer.learning_rate, or look at these images"
    )


def _norm_of(module: nn.Module) -> float:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return float(torch.linalg.vector_norm(plain_weight(weight.detach()).float()))
