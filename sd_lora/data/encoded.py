"""Encode once, train many times: latents and text states of all examples, in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor

from sd_lora.data.folder import Example, square


@dataclass(frozen=True)
class Framing:
    """Sizes in pixels, (height, width): of the `original` image and of the `target` crop, whose top left corner lies
    at `crop` (top, left) once the image is scaled."""

    original: tuple[int, int]
    crop: tuple[int, int]
    target: tuple[int, int]


@dataclass(frozen=True)
class Batch:
    """One step's examples: `latents` (n, c, h, w), `conditioning` (each n, …), the `captions` as they are trained
    (empty where dropped) and the `names` of the images."""

    latents: Tensor
    conditioning: dict[str, Tensor]
    captions: list[str]
    names: list[str]


@dataclass(frozen=True)
class Encoders:
    """How pictures, captions and framings become tensors; without `captions` they are left to the training loop."""

    images: Callable[[Tensor], Tensor]
    captions: Callable[[Sequence[str]], dict[str, Tensor]] | None
    framing: Callable[[Sequence[Framing]], dict[str, Tensor]]


@dataclass(frozen=True)
class EncodedSet:
    """All examples encoded: `latents` (n, 2, c, h, w) upright and mirrored (equal where an example must not be
    flipped), `conditioning` per caption and `empty`, the conditioning of no caption at all (batch of one), and
    `framing` per example, which is never dropped."""

    names: list[str]
    captions: list[str]
    latents: Tensor
    conditioning: dict[str, Tensor]
    empty: dict[str, Tensor]
    framing: dict[str, Tensor]

    def batch(self, step: int, size: int, seed: int, caption_dropout: float) -> Batch:
        """The batch of `step`, a pure function of its arguments: every epoch is one shuffle of all images, mirrored
        every second time."""
        count = len(self.names)
        positions = range(step * size, (step + 1) * size)
        chosen = torch.tensor([epoch_order(count, seed, p // count)[p % count] for p in positions])
        mirrored = torch.tensor([(p // count + i) % 2 for p, i in zip(positions, chosen.tolist(), strict=True)])
        dropped = torch.rand(size, generator=generator_for(seed, step, "captions")) < caption_dropout
        conditioning = {key: rows[chosen] for key, rows in self.framing.items()}
        for key, states in self.conditioning.items():
            mask = dropped.view(-1, *[1] * (states.ndim - 1)).to(states.device)
            conditioning[key] = torch.where(mask, self.empty[key], states[chosen])
        order = chosen.tolist()
        captions = ["" if drop else self.captions[i] for i, drop in zip(order, dropped.tolist(), strict=True)]
        return Batch(self.latents[chosen, mirrored], conditioning, captions, [self.names[i] for i in order])


def encode_examples(examples: Sequence[Example], size: int, flip: bool, encoders: Encoders) -> EncodedSet:
    """Encode every example at `size` × `size` pixels, one picture and its mirror image at a time."""
    latents = []
    for example in examples:
        picture = square(example.image, size)
        mirror = ImageOps.mirror(picture) if flip and example.may_flip else picture
        pixels = np.stack([np.asarray(picture), np.asarray(mirror)]).astype(np.float32) / 127.5 - 1
        latents.append(encoders.images(torch.from_numpy(pixels).permute(0, 3, 1, 2)))
    conditioning, empty = {}, {}
    if encoders.captions is not None:
        captions = [encoders.captions([example.caption]) for example in examples]
        conditioning = {key: torch.cat([states[key] for states in captions]) for key in captions[0]}
        empty = encoders.captions([""])
    return EncodedSet(
        [example.name for example in examples], [example.caption for example in examples], torch.stack(latents),
        conditioning, empty, encoders.framing([framing_of(example, size) for example in examples]),
    )  # fmt: skip


def framing_of(example: Example, size: int) -> Framing:
    """The framing of `example` when `square` has scaled and centre-cropped it to `size` pixels."""
    width, height = example.image.size
    scale = size / min(width, height)
    crop = round((height * scale - size) / 2), round((width * scale - size) / 2)
    return Framing((height, width), crop, (size, size))


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The order in which `epoch` goes through `count` images."""
    return torch.randperm(count, generator=generator_for(seed, epoch, "order")).tolist()


def generator_for(seed: int, step: int, purpose: str) -> torch.Generator:
    """A CPU generator that depends on its arguments alone, so that any step can be drawn again."""
    mixed = np.random.SeedSequence([seed, step, *purpose.encode()]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(mixed[0]) << 31 ^ int(mixed[1]))
