"""The gradient gate: a faster way to compute a step is used only if it gives the gradients of the plain way, on this
machine, for this model and batch.

A loss is no proof: compiled blocks were seen with gradients 34 % off at a loss that was equal to all digits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

#: what two gradients of one parameter may differ by: their distance as a share of the plain one's norm in float32; in
#: lower precision 1 - cosine, as rounding alone moves single values by more
_MOST = {torch.float32: 1e-4}
_MOST_LOWER = 1e-3
#: gradients of less than this share of the largest are compared as if they had that norm: they are noise
_SMALL = 1e-4


@dataclass(frozen=True)
class Technique:
    """A faster way, by the `name` that notes call it by, and how it is switched `on` and `off`."""

    name: str
    on: Callable[[], None]
    off: Callable[[], None]


@dataclass(frozen=True)
class Verdict:
    """The techniques that are `used`, by name, and why others are not, as sentences."""

    used: tuple[str, ...]
    notes: tuple[str, ...] = ()


def pass_gate(
    techniques: Sequence[Technique], parameters: Mapping[str, nn.Parameter], loss: Callable[[], Tensor]
) -> Verdict:
    """Switch on those of `techniques` whose gradients agree with the plain ones, together and so one by one if they do
    not; all are off before. `loss` computes the loss of one batch, the same at every call.

    Parameters that are zero, as those of new layers, hide the gradients of others: meanwhile they hold small values.
    """
    with _awake(parameters):
        plain, notes = gradients(parameters, loss), list[str]()
        used = list(techniques)
        for technique in techniques:
            technique.on()
        if found := _difference_or_error(plain, parameters, loss):
            used = []
            for technique in techniques:
                technique.off()
            for technique in techniques:
                technique.on()
                alone = found if len(techniques) == 1 else _difference_or_error(plain, parameters, loss)
                if alone:
                    technique.off()
                    notes.append(f"{technique.name} is not used: {alone}")
                else:
                    used.append(technique)
    return Verdict(tuple(technique.name for technique in used), tuple(notes))


def gradients(parameters: Mapping[str, nn.Parameter], loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    """The gradient of each parameter that has one; none is left behind."""
    loss().backward()
    found = {name: p.grad.detach().clone() for name, p in parameters.items() if p.grad is not None}
    for parameter in parameters.values():
        parameter.grad = None
    return found


def difference(plain: Mapping[str, Tensor], fast: Mapping[str, Tensor], dtype: torch.dtype) -> tuple[float, str]:
    """The largest distance between two gradients of one parameter, as `most_of` measures it, and whose it is."""
    if odd := sorted(plain.keys() ^ fast.keys()):
        return float("inf"), odd[0]
    if not plain:
        return 0.0, ""
    least = _SMALL * max(float(gradient.norm()) for gradient in plain.values())
    worst = (0.0, "")
    for name, gradient in plain.items():
        norm = max(float(gradient.norm()), least)
        if dtype in _MOST or norm == least:
            distance = float((fast[name] - gradient).norm()) / norm if norm else 0.0
            distance = distance if dtype in _MOST else distance * _MOST_LOWER
        else:
            other = fast[name].flatten().double()
            cosine = torch.nn.functional.cosine_similarity(gradient.flatten().double(), other, dim=0)
            distance = 1.0 - float(cosine)
        if not distance <= worst[0]:
            worst = (distance, name)
    return worst


def _difference_or_error(
    plain: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter], loss: Callable[[], Tensor]
) -> str:
    """Why the gradients as they are computed now are not the `plain` ones; "" if they are."""
    dtypes = {gradient.dtype for gradient in plain.values()}
    precision = torch.float32 if not torch.is_autocast_enabled("cpu") and dtypes <= {torch.float32} else torch.bfloat16
    try:
        fast = gradients(parameters, loss)
    except Exception as error:
        return f"it failed with {type(error).__name__}: {str(error).splitlines()[0]:.200}"
    distance, name = difference(plain, fast, precision)
    most = _MOST.get(precision, _MOST_LOWER)
    return "" if distance <= most else f"the gradient of {name} is {distance:.1%} off on this machine"


@contextlib.contextmanager
def _awake(parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Small values in the parameters that are all zero, for the length of a ``with`` block."""
    asleep = [parameter for parameter in parameters.values() if not bool(parameter.detach().any())]
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for parameter in asleep:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
        yield
    finally:
        with torch.no_grad():
            for parameter in asleep:
                parameter.zero_()
