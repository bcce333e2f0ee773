"""The gradient gate: a faster way to compute a step is used only if it gives the gradients of the plain way, on this
machine, for this model and batch.

A loss is no proof: compiled blocks were seen with gradients 34 % off at a loss that was equal to all digits.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

#: the most that two gradients of one parameter may differ by in float32: their distance as a share of the plain one
MOST_OFF = 1e-4
#: in lower precision: 1 - cosine. The plain gradients of SD1.5 in bfloat16 turn by .0014 when the input changes by a
#: part in 4,096, and a wrong kernel turns them by far more
MOST_TURNED = 5e-3
#: gradients with less than this share of the largest norm are noise; they are compared as if they had it
_SMALL = 1e-3


@dataclass(frozen=True)
class Technique:
    """A faster way: the `name` that notes call it by, and how it is switched `on` and `off`."""

    name: str
    on: Callable[[], None]
    off: Callable[[], None]


@dataclass(frozen=True)
class Verdict:
    """The techniques that are `used`, by name, and why others are not, as sentences."""

    used: tuple[str, ...]
    notes: tuple[str, ...] = ()


class Gate:
    """Compares gradients with the plain ones, which are computed when it is made: all techniques are off then. `loss`
    computes the loss of one batch, the same at each call; `exact` says whether that is in float32."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], loss: Callable[[], Tensor], *, exact: bool) -> None:
        self._parameters, self._loss, self._exact = parameters, loss, exact
        self._plain = self._gradients()

    @property
    def is_finite(self) -> bool:
        return all(bool(gradient.isfinite().all()) for gradient in self._plain.values())

    def choose(self, techniques: Sequence[Technique]) -> Verdict:
        """Switch on all of `techniques` if together they pass, else those that do one by one on top of each other."""
        for technique in techniques:
            technique.on()
        problem = self._problem()
        if not problem:
            return Verdict(tuple(technique.name for technique in techniques))
        for technique in techniques:
            technique.off()
        used, notes = list[str](), list[str]()
        for technique in techniques:
            if len(techniques) > 1:
                technique.on()
                problem = self._problem()
            if problem:
                technique.off()
                notes.append(f"{technique.name}: not used, because {problem}")
            else:
                used.append(technique.name)
        return Verdict(tuple(used), tuple(notes))

    def difference(self) -> tuple[float, str]:
        """By how much the gradients are off as they are computed now, and whose they are, as in `difference`."""
        return difference(self._plain, self._gradients(), exact=self._exact)

    def _problem(self) -> str:
        """Why what is on now cannot be used; "" if it can."""
        try:
            off, name = self.difference()
        except Exception as error:
            return f"it failed with {type(error).__name__} ({str(error).splitlines()[0]:.200})"
        return f"the gradient of {name} is {off:.2g} times as far off as rounding goes" if off > 1 else ""

    def _gradients(self) -> dict[str, Tensor]:
        """Of each parameter. New layers hold zeros, which hide the gradients of others: meanwhile they are small."""
        with _awake(self._parameters.values()):
            self._loss().backward()
            found = {name: p.grad.detach().clone() for name, p in self._parameters.items() if p.grad is not None}
            for parameter in self._parameters.values():
                parameter.grad = None
        return found


def difference(plain: Mapping[str, Tensor], fast: Mapping[str, Tensor], *, exact: bool) -> tuple[float, str]:
    """By how much two gradients of a parameter differ at most, as a multiple of what is allowed, and whose they are.

    Infinity for a gradient that only one side has, or that is not finite.
    """
    if odd := sorted(plain.keys() ^ fast.keys()):
        return float("inf"), odd[0]
    norms = {name: float(gradient.norm()) for name, gradient in plain.items()}
    least = _SMALL * max(norms.values(), default=0.0)
    worst = (0.0, "")
    for name, norm in norms.items():
        distance = float((fast[name] - plain[name]).norm()) / (max(norm, least) or 1.0)
        if exact:
            off = distance / MOST_OFF
        elif norm < least:  # a direction of noise means nothing
            off = distance
        else:
            off = (
                1 - float(functional.cosine_similarity(plain[name].flatten(), fast[name].flatten(), 0))
            ) / MOST_TURNED
        if not off <= worst[0]:
            worst = (float("inf") if math.isnan(off) else off, name)
    return worst


@contextlib.contextmanager
def _awake(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Small values in the parameters that are all zero, for the length of a ``with`` block."""
    asleep = [parameter for parameter in parameters if not bool(parameter.detach().any())]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in asleep:
            parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter in asleep:
                parameter.zero_()
