"""The validation loss: always the same noise at the same levels, on images held out and on as many trained ones.

It shows overfitting; it does not choose a checkpoint.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from sd_lora.data.encoded import EncodedSet
from sd_lora.data.exposures import Exposure, Group
from sd_lora.data.seeds import generator_for
from sd_lora.runs.reports import LEVELS, ValidationReport
from sd_lora.training.step import QUARTERS, Computation


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
        timesteps = self._computation.material.objective.levels(LEVELS)
        images = [i for i, example in enumerate(data.examples) if not example.prior][: self._count]
        losses = torch.zeros(LEVELS)
        for image in images:
            group = Group(data.schedule.images[image].views[0][0].size, (0,), (Exposure(image, 0, 0, 0, 0, 0),))
            batch = data.batch(group, 0, 0.0, (0,))
            for level, timestep in enumerate(timesteps):
                generator = generator_for(self._seed, image * LEVELS + level, "validation")
                noise = torch.randn(batch.latents.shape, generator=generator)
                _, by_noise = self._computation.losses(0, batch, (noise, timestep[None], [generator]))
                losses[level] += float(by_noise[:QUARTERS].sum())  # the plain loss
        return (losses / len(images)).tolist()
