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
class Batch:
    """One step's examples: `latents` (n, c, h, w), `conditioning` (each n, …), and the `names` of the images."""

    latents: Tensor
    conditioning: dict[str, Tensor]
    names: list[str]


@dataclass(frozen=True)
class EncodedSet:
    """All examples encoded: `latents` (n, 2, c, h, w) upright and mirrored (equal where an example must not be
    flipped), `conditioning` per caption and `empty`, the conditioning of no caption at all (batch of one)."""

    names: list[str]
    latents: Tensor
    conditioning: dict[str, Tensor]
    empty: dict[str, Tensor]

    def batch(self, step: int, size: int, seed: int, caption_dropout: float) -> Batch:
        """The batch of `step`, a pure function of its arguments: every epoch is one shuffle of all images, mirrored
        every second time."""
        count = len(self.names)
        positions = range(step * size, (step + 1) * size)
        chosen = torch.tensor([epoch_order(count, seed, p // count)[p % count] for p in positions])
        mirrored = torch.tensor([(p // count + i) % 2 for p, i in zip(positions, chosen.tolist(), strict=True)])
        dropped = torch.rand(size, generator=generator_for(seed, step, "captions")) < caption_dropout
        conditioning = {}
        for key, states in self.conditioning.items():
            mask = dropped.view(-1, *[1] * (states.ndim - 1)).to(states.device)
            conditioning[key] = torch.where(mask, self.empty[key], states[chosen])
        return Batch(self.latents[chosen, mirrored], conditioning, [self.names[i] for i in chosen.tolist()])


def encode_examples(
    examples: Sequence[Example],
    size: int,
    flip: bool,
    encode_images: Callable[[Tensor], Tensor],
    encode_captions: Callable[[Sequence[str]], dict[str, Tensor]],
) -> EncodedSet:
    """Encode every example at `size` × `size` pixels, one picture and its mirror image at a time."""
    latents = []
    for example in examples:
        picture = square(example.image, size)
        mirror = ImageOps.mirror(picture) if flip and example.may_flip else picture
        pixels = np.stack([np.asarray(picture), np.asarray(mirror)]).astype(np.float32) / 127.5 - 1
        latents.append(encode_images(torch.from_numpy(pixels).permute(0, 3, 1, 2)))
    captions = [encode_captions([example.caption]) for example in examples]
    return EncodedSet(
        [example.name for example in examples],
        torch.stack(latents),
        {key: torch.cat([states[key] for states in captions]) for key in captions[0]},
        encode_captions([""]),
    )


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The order in which `epoch` goes through `count` images."""
    return torch.randperm(count, generator=generator_for(seed, epoch, "order")).tolist()


def generator_for(seed: int, step: int, purpose: str) -> torch.Generator:
    """A CPU generator that depends on its arguments alone, so that any step can be drawn again."""
    mixed = np.random.SeedSequence([seed, step, *purpose.encode()]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(mixed[0]) << 31 ^ int(mixed[1]))
