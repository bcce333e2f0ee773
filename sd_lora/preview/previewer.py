"""`Previewer`: prompts × strengths of one adapter, all from the same seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image

from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.fit import base_name
from sd_lora.adapters.strengths import checked_strength
from sd_lora.config.schema import ModelConfig, PreviewConfig
from sd_lora.data.dialects.prompts import read_prompt
from sd_lora.errors import AdapterError
from sd_lora.models.opening import open_base
from sd_lora.preview.painter import Painter, Strokes, Words
from sd_lora.preview.sheet import PreviewGrid
from sd_lora.version import __version__


class Previewer:
    """Draws one adapter on one pipeline. Works while the adapter is injected (in training) and while it is not."""

    def __init__(
        self,
        pipe: Any,
        adapter: Adapter,
        settings: PreviewConfig | None = None,
        *,
        batch_size: int = 0,
        size: int = 0,
    ) -> None:
        """`batch_size`: the most pictures drawn at once; 0: as many as memory holds. `size`: their side in pixels."""
        self.pipe, self.adapter, self.settings = pipe, adapter, settings or PreviewConfig()
        self._painter = Painter(pipe, batch_size)
        #: side of the pictures in pixels; the base model's own if none is given
        self.size = size or self._painter.family.native_size(pipe)
        self._prepared: dict[str, dict[str, Any]] = {}
        #: of prompts that are prepared, drawn without the adapter
        self._bases: dict[tuple[str, Strokes], Image.Image] = {}

    @classmethod
    def open(
        cls,
        adapter: str | Path,
        base: str = "",
        settings: PreviewConfig | None = None,
        model: ModelConfig | None = None,
    ) -> Self:
        """A previewer for an adapter file: loads `base`, or the embedded base if the adapter was trained on it. `model`
        says in detail how the base is loaded.

        Raises AdapterError if the file is damaged, does not fit the base, or does not say which base it needs.
        """
        loaded = Adapter.load(adapter)
        opened = open_base(replace(model or ModelConfig(), base=base or base_for(loaded)))
        opened.pipe.to(opened.device)
        with loaded.injected(opened.pipe):  # whether it fits is known before anything is drawn
            return cls(opened.pipe, loaded, settings)

    def negative_of(self, prompt: str) -> str:
        """What not to draw, by the prompt itself or by the settings; nothing where guidance does not use it."""
        own = read_prompt(prompt)
        guidance = self.settings.guidance if own.guidance is None else own.guidance
        return (self.settings.negative if own.negative is None else own.negative) if guidance > 1 else ""

    def prepare(self, prompt: str, arguments: Mapping[str, Any]) -> None:
        """Give the encoded form of a prompt and its negative (pipeline arguments, batch of one), so that the pipeline's
        text encoders are no longer needed for it. The base model must not change from then on: its own picture of the
        prompt is drawn once for all grids."""
        self._prepared[prompt] = dict(arguments)

    def grid(
        self, prompts: Sequence[str], strengths: Sequence[float] | None = None, seed: int | None = None
    ) -> PreviewGrid:
        """Pictures of every prompt at every strength. Strength 0, the base itself, always comes first. What a prompt
        says itself (``a cat --n blurry --w 512``) replaces the settings.

        All strengths of a prompt start from the same noise, and are drawn at the same time as far as memory allows;
        what is asked for twice is drawn once. Raises AdapterError for a strength that is NaN or infinite, before
        anything is drawn.
        """
        if not prompts or not all(prompt.strip() for prompt in prompts):
            raise AdapterError("a preview needs at least one prompt that is not empty")
        wanted = self.settings.strengths if strengths is None else tuple(strengths)
        checked_strength(torch.tensor([float(s) for s in wanted]))
        columns = tuple(dict.fromkeys((0.0, *(float(s) for s in wanted))))
        seed = self.settings.seed if seed is None else seed
        self._painter.states.clear()  # the pipeline is the caller's, who may have changed it
        rows = {prompt: self._row(prompt, columns, self._strokes(prompt, seed)) for prompt in dict.fromkeys(prompts)}
        images = tuple(rows[prompt] for prompt in prompts)
        return PreviewGrid(tuple(prompts), columns, images, self._recipe(prompts, columns, seed))

    def _row(self, prompt: str, columns: Sequence[float], strokes: Strokes) -> tuple[Image.Image, ...]:
        """The pictures of a prompt at the strengths `columns`, of which the first is 0."""
        words = self._prepared.get(prompt) or Words(read_prompt(prompt).text, self.negative_of(prompt))
        base = self._bases.get((prompt, strokes))
        remaining = columns if base is None else columns[1:]
        drawn = [*self._painter.row(words, [(self.adapter, 1.0)], remaining, strokes)]
        images = tuple(drawn if base is None else (base, *drawn))
        if prompt in self._prepared:
            self._bases[prompt, strokes] = images[0]
        return images

    def _strokes(self, prompt: str, seed: int) -> Strokes:
        own, settings = read_prompt(prompt).options, self.settings
        plain = {
            "width": self.size, "height": self.size, "steps": settings.inference_steps, "guidance": settings.guidance,
            "seed": seed,
        }  # fmt: skip
        return Strokes(**{name: own.get(name, value) for name, value in plain.items()})

    def _recipe(self, prompts: Sequence[str], strengths: Sequence[float], seed: int) -> dict[str, Any]:
        drawn = asdict(self.settings) | {"prompts": list(prompts), "strengths": list(strengths), "seed": seed}
        del drawn["every"], drawn["prompts_file"]
        facts = {"adapter": Path(self.adapter.label).name, "base": base_name(self.pipe), "sd_lora": __version__}
        return facts | drawn | {"scheduler": type(self.pipe.scheduler).__name__}


def base_for(adapter: Adapter) -> str:
    """The base model to draw on if none is named: the embedded one, for an adapter that was trained on it.

    Raises AdapterError for any other.
    """
    if adapter.base != "tiny":
        trained = f"was trained on {adapter.base}" if adapter.base else "does not say what it was trained on"
        raise AdapterError(f"{adapter.label} {trained}; name the base model's folder with --base")
    return "tiny"
