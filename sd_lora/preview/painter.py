"""One prompt at several strengths, from the same noise: the one place where pictures are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sd_lora.models.device import give_back, is_out_of_memory
from sd_lora.models.opening import family_of_pipe

#: called after each denoising step with the number of the first of the columns being drawn, how many steps are done,
#: and their latents; what it raises ends the drawing
OnStep = Callable[[int, int, Tensor], None]


@dataclass(frozen=True)
class Strokes:
    """How every picture of a row is drawn: its size in pixels, its steps and guidance, and the seed of its noise."""

    width: int
    height: int
    steps: int
    guidance: float
    seed: int


class Painter:
    """Draws rows on `pipe`, at most `batch_size` pictures at once; fewer from then on, once memory was full."""

    def __init__(self, pipe: Any, batch_size: int = 4) -> None:
        self.pipe, self.family, self.batch_size = pipe, family_of_pipe(pipe), batch_size

    def row(
        self, arguments: Callable[[int], Mapping[str, Any]], strengths: Sequence[float],
        set_strength: Callable[[Tensor], None], strokes: Strokes, on_step: OnStep | None = None,
    ) -> Iterator[Image.Image]:  # fmt: skip
        """Pictures at `strengths`, in order. `arguments` gives the prompt, as the pipeline takes it, for so many
        pictures; `set_strength` is called with the strengths (n,) of the next ones."""
        noise, done = self.family.noise(self.pipe, (strokes.width, strokes.height), strokes.seed), 0
        while done < len(strengths):
            chunk = torch.tensor(list(strengths[done : done + self.batch_size]))
            set_strength(chunk)
            try:
                images = self._draw(arguments(len(chunk)), noise, strokes, _told(on_step, done))
            except Exception as error:
                if len(chunk) == 1 or not is_out_of_memory(error):
                    raise
                self.batch_size = max(1, len(chunk) // 2)
                give_back(noise.device)
                continue
            yield from images
            done += len(chunk)

    def _draw(
        self, arguments: Mapping[str, Any], noise: Tensor, strokes: Strokes, after: Callable[..., Any] | None
    ) -> list[Image.Image]:
        count = next(len(value) for value in arguments.values())
        watched = {} if after is None else {"callback_on_step_end": after}
        return self.pipe(
            **arguments, **watched, latents=noise.expand(count, -1, -1, -1), height=strokes.height,
            width=strokes.width, guidance_scale=strokes.guidance, num_inference_steps=strokes.steps,
        ).images  # fmt: skip

    def sketch(self, latents: Tensor) -> list[Image.Image]:
        """Latents (n, c, h, w) of a drawing that is not finished, as pictures."""
        return self.pipe.image_processor.postprocess(self.family.decode(self.pipe, latents), output_type="pil")


def _told(on_step: OnStep | None, first: int) -> Callable[..., Any] | None:
    if on_step is None:
        return None

    def after(pipe: Any, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG001
        on_step(first, step + 1, tensors["latents"])
        return tensors

    return after
