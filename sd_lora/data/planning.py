"""The plan of a run: its steps, the images held out, and the order in which the others are seen."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil

from sd_lora.config.schema import RunConfig, TrainingConfig
from sd_lora.data.examples import Example
from sd_lora.data.exposures import Schedule, Seen
from sd_lora.data.pictures.views import views_of
from sd_lora.data.seeds import generator_for
from sd_lora.errors import ConfigError


def default_exposures(images: int, *, prior: bool = False) -> int:
    """clamp(120 · images, 1200, 4000), and twice as many beside regularisation images."""
    return min(max(120 * images, 1200), 4000) * (2 if prior else 1)


def default_steps(images: int, batch_size: int, *, prior: bool = False) -> int:
    """The number of steps of `batch_size` closest to the default exposures."""
    return max(1, round(default_exposures(images, prior=prior) / batch_size))


def epoch_exposures(images: Sequence[Example] | Sequence[Seen]) -> int:
    """Exposures of an epoch that shows each of `images` as often as its repeats say, and beside regularisation images
    that many of those."""
    repeats = [image.repeats for image in images if not image.prior]
    return sum(repeats) * (2 if len(repeats) < len(images) else 1)


def steps_of(training: TrainingConfig, images: Sequence[Example]) -> int:
    """The steps of a run on `images`: as set, or from its epochs, or from the default exposures."""
    if training.steps:
        return training.steps
    if training.epochs:  # exactly: 0.1 epochs of 30 exposures are 3
        return max(1, ceil(epoch_exposures(images) * Fraction(str(training.epochs)) / training.batch_size))
    own = sum(not image.prior for image in images)
    return default_steps(max(1, own), training.batch_size, prior=own < len(images))


def hold_out(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """`examples` that are trained on, and those that are not: those in a folder of validation images, or else about the
    `share` of all, at least one, and never a regularisation image. ConfigError if fewer than two would remain."""
    if any(example.held for example in examples):
        return [e for e in examples if not e.held], [e for e in examples if e.held]
    images = [i for i, example in enumerate(examples) if not example.prior]
    if not share or not images:
        return list(examples), []
    count = max(1, round(share * len(images)))
    if (remaining := len(images) - count) < 2:
        raise ConfigError(f"training.hold_out is {share:g}, which leaves {remaining} of {len(images)} images; lower it")
    import torch

    order = torch.randperm(len(images), generator=generator_for(seed, 0, "held out")).tolist()
    held = {images[i] for i in order[:count]}
    return [e for i, e in enumerate(examples) if i not in held], [examples[i] for i in sorted(held)]


def schedule_for(examples: Sequence[Example], config: RunConfig, side: int, grain: int) -> Schedule:
    """The order, views and captions in which `examples` are seen in the run."""
    data = config.data
    sides = dict.fromkeys((side, *data.more_resolutions))
    seen = [
        Seen(
            tuple(views_of(e.width, e.height, s, grain, data) for s in sides),
            2 if data.flip and e.may_flip else 1,
            len(e.captions),
            e.repeats,
            e.prior,
        )
        for e in examples
    ]
    return Schedule(seen, config.training.batch_size, config.training.seed)


def exposures_of(schedule: Schedule, steps: int) -> list[int]:
    """How often each image of `schedule` is seen in `steps` steps."""
    times = [0] * len(schedule.images)
    for (image, _), count in schedule.count(steps).items():
        times[image] += count
    return times
