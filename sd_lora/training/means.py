"""How the steps of a run are fitted into the memory at hand, from one step tried out here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from sd_lora.check.cost import Cost
from sd_lora.config.schema import TrainingConfig

#: the share of the memory at hand that a run may take
_MOST = 0.85


@dataclass(frozen=True)
class Means:
    """How a step is computed, what it then costs, and why, as sentences."""

    micro_batch: int
    gradient_checkpointing: bool
    seconds: float
    memory: int
    reasons: list[str]

    def applied(self, training: TrainingConfig) -> TrainingConfig:
        return dataclasses.replace(
            training, micro_batch=self.micro_batch, gradient_checkpointing=self.gradient_checkpointing
        )


def choose_means(
    training: TrainingConfig, share: int, free: int, probe: Callable[[bool], Cost], *, given: str = "as set"
) -> Means:  # fmt: skip
    """Micro-batch and checkpointing for `share` images of a step in `free` bytes (with what is resident already), so
    that as much as fits is computed at once; what `training` says itself is kept. `probe` measures a step of the whole
    batch, with checkpointing or without. `given` is why what `training` says is so.
    """
    asked, most = training.micro_batch, int(_MOST * free)
    checkpointing = training.gradient_checkpointing or False
    cost, reasons = probe(checkpointing), list[str]()
    needed = asked or 1
    if training.gradient_checkpointing is None and _bytes(cost, needed, training.batch_size) > most:
        checkpointing, leaner = True, probe(True)
        reasons.append(
            f"gradient checkpointing, because {_images(needed)} without it would take "
            f"{_gb(_bytes(cost, needed, training.batch_size))} of the {_gb(free)} at hand"
        )
        cost = leaner
    elif training.gradient_checkpointing is not None:
        reasons.append(f"{'gradient' if checkpointing else 'no gradient'} checkpointing, {given}")
    micro = asked or _largest(cost, share, training.batch_size, most)
    micro = min(micro, share)
    if asked:
        reasons.append(f"{_images(micro)} at once, {given}")
    elif micro == share:
        reasons.append(f"all {share} images of a step at once, which fit" if share > 1 else "one image a step")
    else:
        reasons.append(f"{_images(micro)} of {share} at once, as more would not fit into {_gb(free)}")
    memory = _bytes(cost, micro, training.batch_size)
    reasons.append(f"about {_gb(memory)} of {_gb(free)} at hand, from {cost.basis}")
    return Means(micro, checkpointing, cost.seconds, memory, reasons)


def _bytes(cost: Cost, images: int, batch_size: int) -> int:
    return cost.resident + cost.activations * images // batch_size


def _largest(cost: Cost, share: int, batch_size: int, most: int) -> int:
    return next((micro for micro in range(share, 1, -1) if _bytes(cost, micro, batch_size) <= most), 1)


def _images(count: int) -> str:
    return "one image" if count == 1 else f"{count} images"


def _gb(number: int) -> str:
    return f"{number / 2**30:.1f} GB"
