"""The one place where pictures are drawn: a prompt with its adapters, at several strengths, from the same noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from cachetools import LRUCache
from PIL import Image
from torch import Tensor, nn

from sd_lora.adapters.adapter import Adapter
from sd_lora.models.device import give_back, is_out_of_memory
from sd_lora.models.fast.allocation import keep_freed_memory
from sd_lora.models.opening import family_of_pipe
from sd_lora.models.schedulers import scheduler_named
from sd_lora.preview.batches import fitting, peak_bytes

#: called after each denoising step with the number of the first of the columns being drawn, how many steps are done,
#: and their latents; what it raises ends the drawing
OnStep = Callable[[int, int, Tensor], None]
#: adapters, each with the strength that multiplies the strengths of the row
Mix = Sequence[tuple[Adapter, Any]]
#: the share of the drawing time that may be spent on pictures of what is not finished yet
_SKETCHING = 0.15
#: denoiser → what a picture takes while it is drawn, by its size in pixels and whether it is guided
_BYTES = WeakKeyDictionary[nn.Module, dict[tuple[int, int, bool], int]]()


@dataclass(frozen=True)
class Strokes:
    """How every picture of a row is drawn: its size in pixels, its steps, guidance and scheduler, the seed of its
    noise."""

    width: int
    height: int
    steps: int
    guidance: float
    seed: int
    #: a name of `SCHEDULERS`; empty: the base model's own
    scheduler: str = ""


@dataclass(frozen=True)
class Words:
    """A prompt, and what not to draw."""

    text: str
    negative: str = ""

    def times(self, count: int) -> dict[str, list[str]]:
        """As arguments of a pipeline, for `count` pictures."""
        negative = {"negative_prompt": [self.negative] * count} if self.negative else {}
        return {"prompt": [self.text] * count, **negative}


class Painter:
    """Draws rows on `pipe`, as many pictures at once as memory holds, or at most `batch_size`; fewer once memory has
    been full."""

    def __init__(self, pipe: Any, batch_size: int = 0) -> None:
        self.pipe, self.family, self.batch_size = pipe, family_of_pipe(pipe), batch_size
        #: encoded prompts, as arguments for one picture; to be cleared if the text encoders may have changed
        self.states: LRUCache[Words, Mapping[str, Any]] = LRUCache(256)
        self._next_sketch = 0.0

    def row(
        self,
        prompt: Words | Mapping[str, Any],
        mix: Mix,
        strengths: Sequence[float],
        strokes: Strokes,
        on_step: OnStep | None = None,
    ) -> Generator[Image.Image, None, None]:
        """Pictures with the adapters of `mix` at `strengths`, in order. The adapters are on the pipeline until the
        iterator ends or is closed.

        `prompt`: in words, or encoded as arguments of the pipeline for one picture. A picture depends on its batch only
        as far as sums are rounded: each has noise of its own.
        """
        done = 0
        if self._device.type == "cpu":
            keep_freed_memory()
        with _attached(self.pipe, mix), _decoding_one_by_one(self.pipe), _scheduled(self.pipe, strokes.scheduler):
            if isinstance(prompt, Words):
                prompt = self._encoded(prompt, mix)
            while done < len(strengths):
                chunk = strengths[done : done + self._at_once(prompt, mix, len(strengths) - done, strokes)]
                # One number for all where it can be: at 0 the layers are not even computed.
                _scale(mix, float(chunk[0]) if len(chunk) == 1 else torch.tensor(list(chunk)))
                try:
                    images = self._draw(prompt, len(chunk), strokes, **self._watched(on_step, done, strokes))
                except Exception as error:
                    if len(chunk) == 1 or not is_out_of_memory(error):
                        raise
                    self.batch_size = max(1, len(chunk) // 2)
                    give_back(self._device)
                    continue
                yield from images
                done += len(chunk)

    @property
    def _device(self) -> torch.device:
        return getattr(self.pipe, self.family.denoiser).device

    def _draw(self, prompt: Words | Mapping[str, Any], count: int, strokes: Strokes, **more: Any) -> Any:
        """`count` pictures from the same noise, in one batch."""
        noise = self.family.noise(self.pipe, (strokes.width, strokes.height), strokes.seed)
        generators = [torch.Generator().manual_seed(strokes.seed) for _ in range(count)]
        for generator in generators:  # what some schedulers add in each step comes after what `noise` is made of
            torch.randn(noise.shape, generator=generator)
        if isinstance(prompt, Words):
            words: Mapping[str, Any] = prompt.times(count)
        else:
            words = {key: _times(value, count) for key, value in prompt.items()}
        drawn = {
            "latents": self.family.packed(noise.expand(count, -1, -1, -1)), "generator": generators,
            "height": strokes.height, "width": strokes.width, "guidance_scale": strokes.guidance,
            "num_inference_steps": strokes.steps,
        }  # fmt: skip
        return self.pipe(**words, **drawn, **more).images

    def _encoded(self, words: Words, mix: Mix) -> Words | Mapping[str, Any]:
        """`words` encoded, once for all strengths; as they are, where each strength or the pipeline reads them in its
        own way: with layers on text encoders, or words of a textual inversion."""
        on_text = any(name.partition(".")[0] in self.family.text_encoders for a, _ in mix for name in a.targets)
        tokenizers = [part for part in self.pipe.components.values() if hasattr(part, "get_added_vocab")]
        added = {token for tokenizer in tokenizers for token in tokenizer.get_added_vocab()}
        if on_text or any(token in text for token in added for text in (words.text, words.negative)):
            return words
        if words not in self.states:
            with torch.no_grad():
                states = [self.family.encode_captions(self.pipe, [text]) for text in (words.text, words.negative)]
            self.states[words] = self.family.pipeline_arguments(states[0], states[1])
        return self.states[words]

    def _at_once(self, prompt: Words | Mapping[str, Any], mix: Mix, count: int, strokes: Strokes) -> int:
        """How many of `count` pictures are drawn in one batch. What one takes is measured in a step of its kind."""
        if self.batch_size or count == 1:
            return self.batch_size or 1
        kind = (strokes.width, strokes.height, strokes.guidance > 1)
        known = _BYTES.setdefault(getattr(self.pipe, self.family.denoiser), {})
        if kind not in known:
            _scale(mix, 1.0)
            known[kind] = peak_bytes(partial(self._draw, prompt, 1, replace(strokes, steps=1), output_type="latent"))
        return fitting(self._device, known[kind])

    def _watched(self, on_step: OnStep | None, first: int, strokes: Strokes) -> dict[str, Any]:
        """The arguments with which a pipeline calls `on_step`; none without it."""
        if on_step is None:
            return {}

        def after(pipe: Any, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG001
            size = strokes.width, strokes.height
            on_step(first, step + 1, self.family.unpacked(self.pipe, tensors["latents"], size))
            return tensors

        return {"callback_on_step_end": after}

    def sketch(self, latents: Tensor) -> Image.Image | None:
        """The first of the unfinished pictures `latents` (n, c, h, w), or None if it is too early for another: sketches
        take a small share of the time."""
        started = time.monotonic()
        if started < self._next_sketch:
            return None
        decoded = self.family.decode(self.pipe, latents[:1])
        image = self.pipe.image_processor.postprocess(decoded, output_type="pil")[0]
        self._next_sketch = started + (time.monotonic() - started) / _SKETCHING
        return image


def _times(value: Any, count: int) -> Any:
    """An argument for one picture, a tensor or a list of them, as one for `count`."""
    return value * count if isinstance(value, list) else value.expand(count, *value.shape[1:])


def _scale(mix: Mix, factor: float | Tensor) -> None:
    for adapter, _ in mix:
        adapter.scale(factor)


@contextmanager
def _decoding_one_by_one(pipe: Any) -> Iterator[None]:
    """The pipeline decodes pictures one after the other, which takes no longer, and far less memory than the denoiser
    would leave for it."""
    before = getattr(pipe.vae, "use_slicing", None)
    if before is None:
        yield
        return
    pipe.vae.use_slicing = True
    try:
        yield
    finally:
        pipe.vae.use_slicing = before


@contextmanager
def _scheduled(pipe: Any, name: str) -> Iterator[None]:
    """The pipeline with the scheduler of that name."""
    own = pipe.scheduler
    pipe.scheduler = scheduler_named(name, own)
    try:
        yield
    finally:
        pipe.scheduler = own


@contextmanager
def _attached(pipe: Any, mix: Mix) -> Iterator[None]:
    """The adapters of `mix` on the pipeline. One that is injected already, in training, stays, as does its strength."""
    with ExitStack() as stack:
        for number, (adapter, strength) in enumerate(mix):
            if adapter.is_injected:
                stack.callback(setattr, adapter, "strength", adapter.strength)
                adapter.strength = strength
            else:
                stack.enter_context(adapter.injected(pipe, strength, name=f"mix{number}"))
                stack.callback(adapter.scale, 1.0)
        yield
