"""The validation loss: always the same noise at the same levels, on images held out and on as many trained ones.

It tells overfitting; it does not choose a checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from sd_lora.data import EncodedSet, generator_for
from sd_lora.data.exposures import Exposure, Group
from sd_lora.training.loss_curve import write_figure
from sd_lora.training.step import QUARTERS, Computation

#: noise levels at which each image is tried, evenly over the schedule
LEVELS = 16


@dataclass(frozen=True)
class ValidationReport:
    """The mean loss after `step` steps on images `held` out and on `trained` ones, and by noise level, from little
    noise to much (LEVELS,)."""

    step: int
    held: float
    trained: float
    held_by_level: list[float]
    trained_by_level: list[float]


class Validation:
    """Measures the loss on `held` and on the first as many images of `trained`; both are encoded."""

    def __init__(self, computation: Computation, trained: EncodedSet, held: EncodedSet, seed: int) -> None:
        training = replace(computation.training, noise_offset=0.0, multires_noise=0.0, input_perturbation=0.0)
        self._computation, self._seed = replace(computation, training=training), seed
        self._sets = held, trained
        self._count = len(held.examples)

    @torch.no_grad()
    def measure(self, step: int) -> ValidationReport:
        held, trained = (self._levels(data) for data in self._sets)
        return ValidationReport(step, sum(held) / LEVELS, sum(trained) / LEVELS, held, trained)

    def _levels(self, data: EncodedSet) -> list[float]:
        length = len(self._computation.material.objective.alphas_cumprod)
        timesteps = [(2 * level + 1) * length // (2 * LEVELS) for level in range(LEVELS)]
        own = [i for i, example in enumerate(data.examples) if not example.prior][: self._count]
        losses = torch.zeros(LEVELS)
        for image in own:
            group = Group(data.schedule.images[image].views[0][0].size, (0,), (Exposure(image, 0, 0, 0, 0, 0),))
            batch = data.batch(group, 0, 0.0, (0,))
            for level, timestep in enumerate(timesteps):
                generator = generator_for(self._seed, image * LEVELS + level, "validation")
                noise = torch.randn(batch.latents.shape, generator=generator)
                _, by_noise = self._computation.losses(0, batch, (noise, torch.tensor([timestep]), [generator]))
                losses[level] += float(by_noise[:QUARTERS].sum())  # the plain loss
        return (losses / len(own)).tolist()


def draw(reports: Sequence[ValidationReport], path: Path) -> None:
    """The picture of the validation losses over the steps, and by noise level at the last. StorageError if it cannot be
    written."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 6.4), dpi=100, layout="constrained")
    over, levels = figure.subplots(2, 1)
    for name, colour, values, by_level in (
        ("held out", "#9c2f4f", [r.held for r in reports], reports[-1].held_by_level),
        ("trained", "#20478f", [r.trained for r in reports], reports[-1].trained_by_level),
    ):
        over.plot([r.step for r in reports], values, color=colour, marker=".", label=name)
        levels.plot(range(1, LEVELS + 1), by_level, color=colour, marker=".", label=name)
    over.set(xlabel="step", ylabel="loss", title="Validation loss")
    levels.set(
        xlabel=f"noise level, from least (1) to most ({LEVELS})", ylabel="loss",
        title=f"By noise level, after step {reports[-1].step}", ylim=(0, None),
    )  # fmt: skip
    for axes in (over, levels):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    write_figure(figure, path)
