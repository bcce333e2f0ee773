"""Encode once, train many times: latents and text states in a cache on disk, read as they are needed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from sd_lora.data.cache import Cache, key_of
from sd_lora.data.examples import Example
from sd_lora.data.exposures import Group, Schedule
from sd_lora.data.pictures.decode import decode, decode_mask, digest_of, read_bytes
from sd_lora.data.pictures.pixels import mask_of
from sd_lora.data.pictures.views import Framing, Size, View
from sd_lora.data.seeds import generator_for
from sd_lora.errors import DataError, TrainingStopped

#: called with how many images and captions are done, and how many there are
Watch = Callable[[int, int], None]
#: captions that are encoded in one call
_AT_ONCE = 8


@dataclass(frozen=True)
class Batch:
    """Examples of one size: `latents` (n, c, h, w), `conditioning` (each n, …), the `captions` as they are trained
    (empty where dropped), the `names` of the images, and `weights` (n, 1, h, w) of the loss, if any is not 1."""

    latents: Tensor
    conditioning: dict[str, Tensor]
    captions: list[str]
    names: list[str]
    weights: Tensor | None = None


@dataclass(frozen=True)
class Encoders:
    """How pictures, captions and framings become tensors, and the keys that distinguish results from those of other
    weights or types. Without `captions` the training loop encodes them."""

    images: Callable[[Tensor], Tensor]
    captions: Callable[[Sequence[str]], dict[str, Tensor]] | None
    framing: Callable[[Sequence[Framing]], dict[str, Tensor]]
    images_key: str = ""
    captions_key: str = ""


class _NotFiniteError(Exception):
    """Latents that are NaN or infinite."""


class EncodedSet:
    """All examples of a run, encoded. Holds keys, not tensors: memory does not grow with the latents."""

    def __init__(
        self,
        examples: Sequence[Example],
        schedule: Schedule,
        encoders: Encoders,
        cache: Cache,
        prior_weight: float = 1.0,
    ) -> None:
        self.examples, self.schedule, self.cache = list(examples), schedule, cache
        self._encoders, self._prior_weight = encoders, prior_weight
        self._weighted = any(e.mask is not None or e.alpha or (e.prior and prior_weight != 1) for e in self.examples)
        #: key of the latents of each (image, resolution)
        self._latents: dict[tuple[int, int], str] = {}
        self._shapes: dict[Size, tuple[int, ...]] = {}

    def encode(self, share: tuple[int, int] = (0, 1), watch: Watch | None = None) -> None:
        """Make what the cache lacks. With `share` (k, n) only every n-th example from the k-th on, for n processes that
        share the work; a last call without it then finds everything in the cache."""
        first, step = share
        indices = range(first, len(self.examples), step)
        captions = sorted({caption for i in indices for caption in self.examples[i].captions} | {""})
        total = len(indices) + (len(captions) if self._encoders.captions is not None else 0)
        for done, index in enumerate(indices, 1):
            self._encode_image(index)
            if watch is not None:
                watch(done, total)
        if self._encoders.captions is None:
            return
        for start in range(0, len(captions), _AT_ONCE):
            together = captions[start : start + _AT_ONCE]
            self._encode_captions(together)
            if watch is not None:
                watch(len(indices) + start + len(together), total)

    def caption(self, text: str) -> dict[str, Tensor]:
        """The conditioning (1, …) of a caption, made now if the cache lacks it; not without encoders for captions."""
        self._encode_captions([text])
        return self.cache.load(self._caption_key(text))

    def fingerprints(self) -> dict[str, str]:
        """For each image, after encoding, a hash of its latents' keys, its captions and its part in the run."""
        return {
            example.name: key_of(
                latents=[self._latents[i, r] for r in range(len(self.schedule.images[i].views))],
                captions=example.captions, repeats=example.repeats, prior=example.prior,
            )[:16]
            for i, example in enumerate(self.examples)
        }  # fmt: skip

    def shape(self, size: Size) -> tuple[int, ...]:
        """The shape (c, h, w) of latents of pictures of `size` pixels."""
        return self._shapes[size]

    def batch(self, group: Group, step: int, caption_dropout: float, among: Collection[int]) -> Batch:
        """The exposures of `group`, which belongs to `step`, whose places are `among` those given (at least one is).
        A pure function of its arguments and the schedule's seed."""
        draws = torch.rand(self.schedule.batch_size, generator=generator_for(self.schedule.seed, step, "captions"))
        latents, weights, captions, names, states, framings = [], [], [], [], [], []
        for place, exposure in zip(group.places, group.exposures, strict=True):
            if place not in among:
                continue
            example = self.examples[exposure.image]
            tensors = self.cache.load(self._latents[exposure.image, exposure.resolution])
            latents.append(tensors["latents"][exposure.view, exposure.mirrored])
            if self._weighted:
                weights.append(self._weight(example, tensors, latents[-1], exposure.view, exposure.mirrored))
            caption = "" if draws[place] < caption_dropout else example.captions[exposure.caption]
            captions.append(caption)
            names.append(example.name)
            framing = self.schedule.view(exposure).framing(example.width, example.height, bool(exposure.mirrored))
            framings.append(framing)
            if self._encoders.captions is not None:
                states.append(self.cache.load(self._caption_key(caption)))
        conditioning = dict(self._encoders.framing(framings))
        for key in states[0] if states else ():
            conditioning[key] = torch.cat([state[key] for state in states])
        rows = torch.stack(latents).contiguous(memory_format=torch.channels_last)  # fastest for convolutions
        return Batch(rows, conditioning, captions, names, torch.stack(weights) if weights else None)

    def _encode_image(self, index: int) -> None:
        example, seen = self.examples[index], self.schedule.images[index]
        content = read_bytes(example.file)
        digest = digest_of(content)
        if example.digest not in ("", digest):
            raise DataError(f"{example.name} was changed while the run was prepared; start again")
        # read once, as the bytes that are hashed must be those that are decoded
        masked = read_bytes(example.mask) if example.mask is not None else None

        @functools.cache  # at most once, and only if something must be made
        def decoded() -> tuple[Image.Image, Image.Image | None]:
            return _decoded(example, content, masked)

        for resolution, views in enumerate(seen.views):
            key = key_of(
                kind="latents",
                image=digest,
                mask=(digest_of(masked) if masked is not None else "") + "+alpha" * example.alpha,
                background=example.background,
                size=[example.width, example.height],
                flips=seen.flips,
                views=[[*view.size, view.position] for view in views],
                encoder=self._encoders.images_key,
            )
            self._latents[index, resolution] = key
            try:
                self.cache.ensure(key, lambda shown=views: self._latents_of(*decoded(), shown, seen.flips))
            except _NotFiniteError as error:
                raise TrainingStopped(
                    f"the latents of {example.name} are NaN or infinite; set model.dtype=float32"
                ) from error
            size = views[0].size
            if size not in self._shapes:
                self._shapes[size] = tuple(self.cache.load(key)["latents"].shape[2:])

    def _encode_captions(self, captions: Sequence[str]) -> None:
        """Make the entries of `captions` that the cache lacks, all in one call: these captions have the same last bits
        whatever the cache has."""

        @functools.cache
        def encoded() -> dict[str, Tensor]:
            assert self._encoders.captions is not None
            return self._encoders.captions(captions)

        for row, caption in enumerate(captions):
            self.cache.ensure(
                self._caption_key(caption),
                lambda row=row: {key: states[row : row + 1] for key, states in encoded().items()},
            )

    def _latents_of(
        self, picture: Image.Image, mask: Image.Image | None, views: Sequence[View], flips: int
    ) -> dict[str, Tensor]:
        """``latents`` (views, flips, c, h, w) and, with a mask, ``mask`` (views, flips, 1, h, w)."""
        pixels = (_stacked(_flipped(view.cut(picture), flips), 127.5, -1) for view in views)
        tensors = {"latents": torch.stack([self._encoders.images(rows) for rows in pixels])}
        if not bool(torch.isfinite(tensors["latents"]).all()):
            raise _NotFiniteError
        if mask is not None:
            height, width = tensors["latents"].shape[-2:]
            small = [
                [m.resize((width, height), Image.Resampling.BOX) for m in _flipped(v.cut(mask), flips)] for v in views
            ]
            tensors["mask"] = torch.stack([_stacked(row, 255) for row in small])
        return tensors

    def _weight(
        self, example: Example, tensors: dict[str, Tensor], latents: Tensor, view: int, mirrored: int
    ) -> Tensor:
        """Weight (1, h, w) of each place of an exposure in the loss."""
        weight = self._prior_weight if example.prior else 1.0
        if "mask" in tensors:
            return tensors["mask"][view, mirrored] * weight
        return torch.full((1, *latents.shape[-2:]), weight)

    def _caption_key(self, caption: str) -> str:
        return key_of(kind="caption", caption=caption, encoder=self._encoders.captions_key)


def _decoded(example: Example, content: bytes, masked: bytes | None) -> tuple[Image.Image, Image.Image | None]:
    """The picture and its mask. DataError if its size is not the one that its views and framings were made for."""
    decoded = decode(content, example.name, example.background or "white")
    picture = decoded.image
    if picture.size != (example.width, example.height):
        raise DataError(
            f"{example.name} was replaced while it was being read: {example.width} × {example.height} pixels, now "
            f"{picture.width} × {picture.height}; start again"
        )
    mask = decode_mask(masked, example.mask.name, picture.size) if masked is not None and example.mask else None
    return picture, mask_of(mask, decoded.alpha if example.alpha else None)


def _flipped(picture: Image.Image, flips: int) -> Iterator[Image.Image]:
    yield picture
    if flips > 1:
        yield ImageOps.mirror(picture)


def _stacked(pictures: Iterable[Image.Image], white: float, black: float = 0) -> Tensor:
    """Pictures of one size as (n, channels, h, w): levels divided by `white`, plus `black`."""
    rows = np.stack([np.asarray(picture) for picture in pictures]).astype(np.float32) / white + black
    tensor = torch.from_numpy(rows[:, None] if rows.ndim == 3 else rows.transpose(0, 3, 1, 2))
    return tensor.clone()  # in torch's memory: kernels round differently if numpy's is aligned differently
