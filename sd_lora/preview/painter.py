"""The one place where pictures are drawn: a prompt with its adapters, at several strengths, from the same noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sd_lora.adapters.adapter import Adapter
from sd_lora.models.device import give_back, is_out_of_memory
from sd_lora.models.opening import family_of_pipe

#: called after each denoising step with the number of the first of the columns being drawn, how many steps are done,
#: and their latents; what it raises ends the drawing
OnStep = Callable[[int, int, Tensor], None]
#: adapters, each with the strength that multiplies the strengths of the row
Mix = Sequence[tuple[Adapter, Any]]
#: the share of the drawing time that may be spent on pictures of what is not finished yet
_SKETCHING = 0.15


@dataclass(frozen=True)
class Strokes:
    """How every picture of a row is drawn: its size in pixels, its steps and guidance, and the seed of its noise."""

    width: int
    height: int
    steps: int
    guidance: float
    seed: int


class Painter:
    """Draws rows on `pipe`, at most `batch_size` pictures at once; fewer once memory has been full."""

    def __init__(self, pipe: Any, batch_size: int = 4) -> None:
        self.pipe, self.family, self.batch_size = pipe, family_of_pipe(pipe), batch_size
        self._next_sketch = 0.0

    def row(
        self,
        arguments: Callable[[int], Mapping[str, Any]],
        mix: Mix,
        strengths: Sequence[float],
        strokes: Strokes,
        on_step: OnStep | None = None,
    ) -> Generator[Image.Image, None, None]:
        """Pictures with the adapters of `mix` at `strengths`, in order. The adapters are on the pipeline until the
        iterator ends or is closed.

        `arguments`, called with a number of pictures, returns the prompt as the pipeline takes it.
        """
        noise, done = self.family.noise(self.pipe, (strokes.width, strokes.height), strokes.seed), 0
        with _attached(self.pipe, mix):
            while done < len(strengths):
                chunk = strengths[done : done + self.batch_size]
                # One number for all where it can be: at 0 the layers are not even computed.
                factor = float(chunk[0]) if len(chunk) == 1 else torch.tensor(list(chunk))
                for adapter, _ in mix:
                    adapter.scale(factor)
                try:
                    images = self.pipe(
                        **arguments(len(chunk)),
                        **_watched(on_step, done),
                        latents=noise.expand(len(chunk), -1, -1, -1),
                        height=strokes.height,
                        width=strokes.width,
                        guidance_scale=strokes.guidance,
                        num_inference_steps=strokes.steps,
                    ).images
                except Exception as error:
                    if len(chunk) == 1 or not is_out_of_memory(error):
                        raise
                    self.batch_size = max(1, len(chunk) // 2)
                    give_back(noise.device)
                    continue
                yield from images
                done += len(chunk)

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


def _watched(on_step: OnStep | None, first: int) -> dict[str, Any]:
    """The arguments with which a pipeline calls `on_step`; none without it."""
    if on_step is None:
        return {}

    def after(pipe: Any, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG001
        on_step(first, step + 1, tensors["latents"])
        return tensors

    return {"callback_on_step_end": after}
