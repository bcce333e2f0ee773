"""Which image is seen when, in which view and with which caption: pure functions of (seed, position), fair to all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np

from sd_lora.data.pictures.views import Size, View
from sd_lora.data.seeds import generator_for


@dataclass(frozen=True)
class Seen:
    """How one image may be seen: `views` (a tuple per resolution), `flips` (1, or 2 with its mirror image), the number
    of `captions`, how often it is in an epoch (`repeats`), and whether it is a regularisation image."""

    views: tuple[tuple[View, ...], ...]
    flips: int = 1
    captions: int = 1
    repeats: int = 1
    prior: bool = False


@dataclass(frozen=True)
class Exposure:
    """One image as it is seen once: indices of the image, its resolution, view and caption."""

    image: int
    resolution: int
    view: int
    mirrored: int
    caption: int
    #: how often the image was seen before
    visit: int


@dataclass(frozen=True)
class Group:
    """Exposures of one size (width, height) within a step, and their `places` in its batch."""

    size: Size
    places: tuple[int, ...]
    exposures: tuple[Exposure, ...]


class Schedule:
    """The order of all exposures of a run.

    An epoch has every image as often as its `repeats` say, relative to the others, and if there are regularisation
    images as many exposures of those, in turn and as often as their repeats say. Steps are cut from the sequence of
    epochs: all have the same size and no image is left out. Within an epoch images of one size are together as far as
    they fill complete batches.
    """

    def __init__(self, images: Sequence[Seen], batch_size: int, seed: int) -> None:
        self.images, self.batch_size, self.seed = tuple(images), batch_size, seed
        self._slots, self._priors = _slots_of(images, prior=False), _slots_of(images, prior=True)
        self._priors.sort(key=lambda slot: (2 * slot[1] + 1) / slot[2])  # an epoch may have only some of them
        self._orders: dict[int, list[Exposure]] = {}

    @property
    def epoch_size(self) -> int:
        """Exposures in one epoch."""
        return len(self._slots) * (2 if self._priors else 1)

    def exposure(self, position: int) -> Exposure:
        """The exposure at `position` (from 0) of the whole run."""
        epoch, place = divmod(position, self.epoch_size)
        return self._order(epoch)[place]

    def groups(self, step: int) -> list[Group]:
        """The exposures of `step` (from 0), those of one size together, in the order of their first place."""
        by_size: dict[Size, list[tuple[int, Exposure]]] = {}
        for place in range(self.batch_size):
            exposure = self.exposure(step * self.batch_size + place)
            by_size.setdefault(self.view(exposure).size, []).append((place, exposure))
        return [Group(size, *zip(*placed, strict=True)) for size, placed in by_size.items()]

    def view(self, exposure: Exposure) -> View:
        return self.images[exposure.image].views[exposure.resolution][exposure.view]

    def count(self, steps: int) -> Counter[tuple[int, Size]]:
        """How often each (image, size) is seen in `steps` steps."""
        total = steps * self.batch_size
        epochs = total // self.epoch_size
        rest = (self.exposure(position) for position in range(epochs * self.epoch_size, total))
        seen = Counter((exposure.image, self.view(exposure).size) for exposure in rest)
        for image, visits in self._visits(epochs).items():
            views = self.images[image].views
            for resolution, (first, *_) in enumerate(views):
                seen[image, first.size] += len(range((resolution - image) % len(views), visits, len(views)))
        return +seen

    def _visits(self, epochs: int) -> Counter[int]:
        """How often each image is seen in the first `epochs` epochs."""
        visits = Counter({image: epochs * repeats for image, _, repeats in self._slots})
        turns = epochs * len(self._slots)
        for place, (image, *_) in enumerate(self._priors):
            visits[image] += len(range(place, turns, len(self._priors)))
        return visits

    def _order(self, epoch: int) -> list[Exposure]:
        """All exposures of `epoch` in the order in which they are seen."""
        if epoch not in self._orders:
            import torch

            shuffled = torch.randperm(self.epoch_size, generator=generator_for(self.seed, epoch, "order")).tolist()
            exposures = [self._exposure(epoch, slot) for slot in shuffled]
            if len(self._orders) > 1:  # a step is in two epochs at most, unless it is larger than one
                self._orders.pop(next(iter(self._orders)))
            self._orders[epoch] = self._arranged(exposures, -epoch * self.epoch_size % self.batch_size)
        return self._orders[epoch]

    def _arranged(self, exposures: list[Exposure], missing: int) -> list[Exposure]:
        """`exposures` in an order that gives as many steps as possible a single size; the first `missing` complete the
        last step of the epoch before."""
        sizes: dict[Size, list[Exposure]] = {}
        for exposure in exposures:
            sizes.setdefault(self.view(exposure).size, []).append(exposure)
        if len(sizes) == 1:
            return exposures
        batch = self.batch_size
        full = [alike[k : k + batch] for alike in sizes.values() for k in range(0, len(alike) - batch + 1, batch)]
        rest = [exposure for alike in sizes.values() for exposure in alike[len(alike) // batch * batch :]]
        place = {exposure: number for number, exposure in enumerate(exposures)}
        full.sort(key=lambda step: place[step[0]])  # in the shuffled order, not size after size
        if len(rest) < missing and full:
            rest += full.pop()
        return [*rest[:missing], *(exposure for step in full for exposure in step), *rest[missing:]]

    def _exposure(self, epoch: int, slot: int) -> Exposure:
        """How the image of `slot` is seen in `epoch`: resolutions, mirror images and views in turn, so that all
        combinations are equally frequent; captions in a new order each time round."""
        if slot < len(self._slots):
            image, repeat, repeats = self._slots[slot]
            visit = epoch * repeats + repeat
        else:
            turn = epoch * len(self._slots) + slot - len(self._slots)
            image, repeat, repeats = self._priors[turn % len(self._priors)]
            visit = turn // len(self._priors) * repeats + repeat
        seen = self.images[image]
        resolutions, caption = len(seen.views), 0
        resolution, turn = (visit + image) % resolutions, visit // resolutions
        view = (turn // seen.flips + image) % len(seen.views[resolution])
        if seen.captions > 1:
            order = np.random.default_rng([self.seed, image, visit // seen.captions]).permutation(seen.captions)
            caption = int(order[visit % seen.captions])
        return Exposure(image, resolution, view, (turn + image) % seen.flips, caption, visit)


def _slots_of(images: Sequence[Seen], *, prior: bool) -> list[tuple[int, int, int]]:
    """An epoch's slots: image, the number of the exposure among its exposures in the epoch, and how many those are."""
    repeats = {i: seen.repeats for i, seen in enumerate(images) if seen.prior is prior}
    common = gcd(*repeats.values()) or 1
    return [(i, repeat, times // common) for i, times in repeats.items() for repeat in range(times // common)]
