"""Draws the pictures that are measured, each kept on disk under everything that makes it, so that it is drawn once."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from platformdirs import user_cache_path

from sd_lora.adapters.adapter import Adapter
from sd_lora.evaluation.probe import Watch, no_watch
from sd_lora.models.device import is_out_of_memory
from sd_lora.models.opening import family_of_pipe
from sd_lora.storage.atomic import write_atomically

#: pictures drawn at once, fewer once memory has been full
_BATCH = 16
_MOST_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Drawing:
    """How pictures that are measured are drawn: picture i of a set starts from noise that depends on (seed, i)."""

    inference_steps: int = 20
    guidance: float = 4.0
    seed: int = 0

    def noise_seed(self, index: int) -> int:
        return self.seed * 100_003 + index


class Illustrator:
    """Draws on `pipe`. Pictures are kept in `folder`; in none if it is None."""

    def __init__(self, pipe: Any, drawing: Drawing | None = None, folder: Path | None = None) -> None:
        self.pipe, self.drawing, self.family = pipe, drawing or Drawing(), family_of_pipe(pipe)
        self.side, self._batch, self._folder = self.family.native_size(pipe), _BATCH, folder
        self._base_key = "" if folder is None else _base_key(pipe)
        if folder is not None:
            _prune(folder)

    def draw(
        self,
        prompts: Sequence[str],
        adapter: Adapter | None = None,
        strength: float = 1.0,
        *,
        first: int = 0,
        watch: Watch = no_watch,
    ) -> list[Image.Image]:
        """One picture per prompt, by the base model or with `adapter`; the first has the noise of index `first`."""
        adapter = adapter if strength else None
        own = _adapter_key(adapter) if adapter and self._folder else ""
        seeds = [self.drawing.noise_seed(first + i) for i in range(len(prompts))]
        places = [self._place(own, strength if adapter else 0.0, *each) for each in zip(prompts, seeds, strict=True)]
        images = [_read(place) for place in places]
        todo = [i for i, image in enumerate(images) if image is None]
        done = len(prompts) - len(todo)
        with adapter.injected(self.pipe, strength) if adapter and todo else nullcontext():
            while todo:
                chunk = todo[: self._batch]
                try:
                    drawn = self._drawn([prompts[i] for i in chunk], [seeds[i] for i in chunk])
                except Exception as error:
                    if len(chunk) == 1 or not is_out_of_memory(error):
                        raise
                    self._batch = len(chunk) // 2
                    continue
                for i, image in zip(chunk, drawn, strict=True):
                    images[i] = image
                    _keep(places[i], image)
                todo, done = todo[len(chunk) :], done + len(chunk)
                watch(done, len(prompts))
        return [image for image in images if image is not None]

    def _drawn(self, prompts: list[str], seeds: list[int]) -> list[Image.Image]:
        noise = torch.cat([self.family.noise(self.pipe, (self.side, self.side), seed) for seed in seeds])
        return self.pipe(
            prompts,
            latents=self.family.packed(noise),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],  # for schedulers that add noise
            height=self.side,
            width=self.side,
            guidance_scale=self.drawing.guidance,
            num_inference_steps=self.drawing.inference_steps,
        ).images

    def _place(self, adapter: str, strength: float, prompt: str, seed: int) -> Path | None:
        if self._folder is None:
            return None
        how = [self.drawing.inference_steps, self.drawing.guidance, seed, self.side]
        key = json.dumps([self._base_key, adapter, strength, prompt, *how])
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.png"


def kept_pictures() -> Path:
    """Where pictures are kept between calls, on this machine."""
    return user_cache_path("sd-lora") / "pictures"


def _base_key(pipe: Any) -> str:
    family = family_of_pipe(pipe)
    scheduler = [type(pipe.scheduler).__name__, sorted((k, str(v)) for k, v in pipe.scheduler.config.items())]
    return json.dumps([family.denoiser_key(pipe), family.images_key(pipe), family.captions_key(pipe), scheduler])


def _adapter_key(adapter: Adapter) -> str:
    digest = hashlib.sha256()
    for name, weights in sorted(adapter.weights.items()):
        digest.update(f"{name} {weights.variant} {weights.alpha}".encode())
        for role, tensor in sorted(weights.tensors.items()):
            digest.update(role.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(place: Path | None) -> Image.Image | None:
    if place is not None:
        with contextlib.suppress(OSError), Image.open(place) as image:
            image.load()
            os.utime(place)  # the oldest are deleted by when they were last used
            return image.convert("RGB")
    return None


def _keep(place: Path | None, image: Image.Image) -> None:
    if place is not None:
        buffer = io.BytesIO()
        image.save(buffer, "png")
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place, buffer.getvalue())


def _prune(folder: Path) -> None:
    """Delete the pictures that were not used for the longest time, beyond what may be kept."""
    with contextlib.suppress(OSError):
        files = sorted(((file.stat(), file) for file in folder.glob("*.png")), key=lambda each: -each[0].st_mtime)
        kept = 0
        for facts, file in files:
            kept += facts.st_size
            if kept > _MOST_BYTES:
                file.unlink(missing_ok=True)
