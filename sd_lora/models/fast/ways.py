"""Which of several ways computes a shape fastest, by timing them on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

#: a way to compute something: what it gives, with the gradients
Way = Callable[[], Sequence[Tensor]]
#: the name of the way that changes nothing
PLAIN = "plain"
#: how often ways are timed: at least and at most, and the seconds of all after which it is enough
_LEAST_TRIES, _MOST_TRIES, _TRY_SECONDS = 2, 5, 0.04
#: a first try that took this many times the fastest one's is not repeated
_HOPELESS = 3
#: by how much results may differ, as a share of their length: in float32, and in lower precision
_MOST_OFF, _MOST_OFF_LOW = 1e-4, 2e-2
#: another way must be faster by this share, or the plain one stays: timings are noisy
_GAIN = 0.05


@dataclass
class Choices:
    """For each shape by name the way that computes it; `new` is True once a shape was timed that was not known."""

    known: dict[str, str] = field(default_factory=dict)
    new: bool = False

    def way(self, shape: str, ways: Callable[[], Mapping[str, Way]]) -> str:
        """The name of the fastest of `ways`, which are asked for if `shape` is new. Pictures that are drawn on the way
        may be of any shape: what is met without gradients is not timed."""
        if shape not in self.known:
            if not torch.is_grad_enabled():
                return PLAIN
            self.known[shape], self.new = fastest(ways()), True
        return self.known[shape]


@torch.no_grad()
def fastest(ways: Mapping[str, Way]) -> str:
    """The name of the fastest way of those that give what the first does, which is the plain one."""
    best, results, began = dict.fromkeys(ways, float("inf")), dict[str, Sequence[Tensor]](), _clock()
    for tried in range(_MOST_TRIES):
        if tried >= _LEAST_TRIES and _clock() - began > _TRY_SECONDS:
            break
        least = min(best.values())
        for name, way in ways.items():
            if not tried or best[name] <= _HOPELESS * least:
                started = _clock()
                results[name] = way()
                best[name] = min(best[name], _clock() - started)
    (plain, seconds), *others = best.items()
    right = {name: s for name, s in others if s < seconds * (1 - _GAIN) and _same(results[plain], results[name])}
    return min(right, key=lambda name: right[name], default=plain)


def _clock() -> float:
    """Seconds: of this thread, if it computes alone, as other programs run too."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def _same(plain: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    most = _MOST_OFF if plain[0].dtype is torch.float32 else _MOST_OFF_LOW
    return all(float((b - a).norm()) <= most * float(a.norm()) for a, b in zip(plain, other, strict=True))
