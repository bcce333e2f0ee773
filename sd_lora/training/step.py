"""What one step computes: its images in parts that fit into memory, each with its loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sd_lora.config.schema import TrainingConfig
from sd_lora.data.encoded import Batch, EncodedSet
from sd_lora.data.seeds import generator_for
from sd_lora.models.families.base import Conditioning, ModelFamily
from sd_lora.models.noise import draw_noise
from sd_lora.models.objectives import Denoising

#: parts of the noise schedule whose losses are reported separately
QUARTERS = 4


@dataclass(frozen=True)
class Material:
    """What is trained on: encoded examples and the base model's objective; `encode` turns captions into conditioning
    in the loop, where text encoders are trained too. `prior` are the weights of regularisation images by name."""

    data: EncodedSet
    objective: Denoising
    encode: Callable[[Sequence[str]], Conditioning] | None = None
    prior: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """Some images of a step, all of one size: their share of the step's `loss`, their `names`, and the sums and counts
    of their plain losses by quarter of the noise schedule (2 · QUARTERS,)."""

    loss: Tensor
    by_noise: Tensor
    names: list[str]


@dataclass(frozen=True)
class Computation:
    """How the losses of steps are computed with `denoiser`, which has the layers in it."""

    family: ModelFamily
    denoiser: nn.Module
    material: Material
    training: TrainingConfig
    device: torch.device

    def parts(self, step: int, share: range, micro_batch: int) -> Iterator[Part]:
        """The images of `step` (from 0) whose places in its batch are in `share`, at most `micro_batch` at once.

        Their losses add up to the mean over `share`: each image counts the same, whatever its size. All is drawn for
        the whole batch, so that neither processes nor micro-batches change what an image is shown with.
        """
        training, objective, data = self.training, self.material.objective, self.material.data
        groups = data.schedule.groups(step)
        generator = generator_for(training.seed, step, "noise")
        noises = [draw_noise(len(g.places), data.shape(g.size), training, generator) for g in groups]
        sizes = {place: noise[0, 0].numel() for g, noise in zip(groups, noises, strict=True) for place in g.places}
        latent_places = torch.tensor([sizes[place] for place in range(training.batch_size)])
        timesteps = objective.sample_timesteps(training.batch_size, training, generator, latent_places)
        for group, noise in zip(groups, noises, strict=True):
            rows = [row for row, place in enumerate(group.places) if place in share]
            for start in range(0, len(rows), micro_batch):
                some = rows[start : start + micro_batch]
                places = [group.places[row] for row in some]
                batch = data.batch(group, step, training.caption_dropout, places)
                dice = [generator_for(training.seed, step, f"perturbation {place}") for place in places]
                losses, by_noise = self.losses(step, batch, (noise[some], timesteps[places], dice))
                yield Part(losses.mean() * (len(some) / len(share)), by_noise, batch.names)

    def losses(
        self, step: int, batch: Batch, drawn: tuple[Tensor, Tensor, list[torch.Generator]]
    ) -> tuple[Tensor, Tensor]:
        """The loss (n,) of each image of a batch with its noise, its timestep and what its perturbation is drawn from;
        and their plain losses by noise, as in `Part`: without the weights of noise levels and regularisation images."""
        device, training, objective = self.device, self.training, self.material.objective
        noise, timesteps, dice = drawn
        noised = objective.noised(batch.latents.to(device), noise.to(device), timesteps.to(device), training, dice)
        conditioning = {key: states.to(device) for key, states in batch.conditioning.items()}
        precision = next(self.denoiser.parameters()).dtype
        with torch.autocast(device.type, precision, enabled=precision is not torch.float32):
            if self.material.encode is not None:
                with torch.set_grad_enabled(training.text_steps is None or step < training.text_steps):
                    conditioning |= self.material.encode(batch.captions)
            prediction = self.family.denoise(self.denoiser, noised.latents, noised.timesteps, conditioning)
        places = None if batch.weights is None else batch.weights.to(device)
        losses = objective.losses(prediction, noised, training, places)
        weight, prior = noised.weight, self.material.prior
        if prior:
            weight = weight * torch.tensor([prior.get(name, 1.0) for name in batch.names], device=device)
        return losses, _by_noise(losses.detach() / weight, noised.share)


def _by_noise(losses: Tensor, share: Tensor) -> Tensor:
    quarter = (share * QUARTERS).long().clamp(max=QUARTERS - 1)
    sums = torch.zeros(2 * QUARTERS, device=losses.device)
    sums.index_add_(0, quarter, losses)
    sums.index_add_(0, quarter + QUARTERS, torch.ones_like(losses))
    return sums
