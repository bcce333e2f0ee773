"""`Previewer`: prompts × strengths from the same seed, and the labelled sheet that shows them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from sd_lora.adapters.adapter import Adapter, base_name
from sd_lora.adapters.strengths import checked_strength
from sd_lora.config.schema import ModelConfig, PreviewConfig
from sd_lora.errors import AdapterError
from sd_lora.models.opening import family_of_pipe, open_base
from sd_lora.preview.painter import Painter, Strokes
from sd_lora.preview.sheet import draw_sheet
from sd_lora.storage.atomic import write_atomically
from sd_lora.version import __version__


@dataclass(frozen=True)
class PreviewGrid:
    """`images[row][column]`: one row a prompt, one column a strength, all of one seed; `recipe` says how."""

    prompts: tuple[str, ...]
    strengths: tuple[float, ...]
    images: tuple[tuple[Image.Image, ...], ...]
    recipe: Mapping[str, Any]

    def sheet(self) -> Image.Image:
        """The labelled sheet: strengths above the columns, prompts beside the rows."""
        return draw_sheet(self.images, [f"strength {s:g}" for s in self.strengths], self.prompts)

    def save(self, path: str | Path) -> Path:
        """Write the sheet as a PNG that carries its recipe in the text chunk ``sd_lora`` (JSON)."""
        path = Path(path)
        write_atomically(path, png(self.sheet(), self.recipe))
        return path


def png(image: Image.Image, recipe: Mapping[str, Any] | None = None) -> bytes:
    """`image` as PNG; `recipe`, if given, becomes its text chunk ``sd_lora`` (JSON)."""
    content, info = BytesIO(), PngInfo()
    if recipe is not None:
        info.add_text("sd_lora", json.dumps(dict(recipe)))
    image.save(content, "PNG", pnginfo=info)
    return content.getvalue()


class Previewer:
    """Draws one adapter on one pipeline. Works while the adapter is injected (in training) and while it is not."""

    def __init__(
        self,
        pipe: Any,
        adapter: Adapter,
        settings: PreviewConfig | None = None,
        *,
        batch_size: int = 4,
        size: int = 0,
    ) -> None:
        self.pipe, self.adapter, self.settings = pipe, adapter, settings or PreviewConfig()
        self.batch_size = batch_size
        #: side of the pictures in pixels; the base model's own if none is given
        self.size = size or family_of_pipe(pipe).native_size(pipe)
        self._prepared: dict[str, dict[str, Tensor]] = {}

    @classmethod
    def open(
        cls,
        adapter: str | Path,
        base: str = "",
        settings: PreviewConfig | None = None,
        model: ModelConfig | None = None,
    ) -> Self:
        """A previewer for an adapter file: loads `base`, or the embedded base if the adapter was trained on it. `model`
        says more of how the base is loaded.

        Raises AdapterError if the file is damaged, does not fit the base, or does not say which base it needs.
        """
        loaded = Adapter.load(adapter)
        opened = open_base(replace(model or ModelConfig(), base=base or base_for(loaded)))
        opened.pipe.to(opened.device)
        with loaded.injected(opened.pipe):  # whether it fits is known before anything is drawn
            return cls(opened.pipe, loaded, settings)

    def prepare(self, prompt: str, arguments: Mapping[str, Tensor]) -> None:
        """Give the encoded form of a prompt (pipeline arguments, batch of one), so that the pipeline's text encoders
        are no longer needed for it."""
        self._prepared[prompt] = dict(arguments)

    def grid(
        self, prompts: Sequence[str], strengths: Sequence[float] | None = None, seed: int | None = None
    ) -> PreviewGrid:
        """Pictures of every prompt at every strength. Strength 0, the base itself, always comes first.

        All strengths of a prompt start from the same noise, `batch_size` of them drawn at a time. Raises AdapterError
        for a strength that is no finite number, before anything is drawn.
        """
        if not prompts or not all(prompt.strip() for prompt in prompts):
            raise AdapterError("a preview needs at least one prompt that is not empty")
        wanted = self.settings.strengths if strengths is None else tuple(strengths)
        checked_strength(torch.tensor([float(s) for s in wanted]))
        columns = tuple(dict.fromkeys((0.0, *(float(s) for s in wanted))))
        seed = self.settings.seed if seed is None else seed
        with self._attached():
            images = tuple(tuple(self._row(prompt, columns, seed)) for prompt in prompts)
        return PreviewGrid(tuple(prompts), columns, images, self._recipe(prompts, columns, seed))

    def _row(self, prompt: str, strengths: Sequence[float], seed: int) -> Iterator[Image.Image]:
        settings = self.settings
        strokes = Strokes(self.size, self.size, settings.inference_steps, settings.guidance, seed)
        painter = Painter(self.pipe, self.batch_size)
        return painter.row(partial(self._prompt_arguments, prompt), strengths, self._set_strength, strokes)

    def _set_strength(self, strengths: Tensor) -> None:
        self.adapter.strength = strengths

    def _prompt_arguments(self, prompt: str, count: int) -> dict[str, Any]:
        if prompt in self._prepared:
            return {key: value.expand(count, *value.shape[1:]) for key, value in self._prepared[prompt].items()}
        return {"prompt": [prompt] * count}

    @contextmanager
    def _attached(self) -> Iterator[None]:
        """The adapter on the pipeline, with its strength put back afterwards."""
        if self.adapter.is_injected:
            before = self.adapter.strength
            try:
                yield
            finally:
                self.adapter.strength = before
        else:
            try:
                with self.adapter.injected(self.pipe):
                    yield
            finally:
                self.adapter.strength = 1.0

    def _recipe(self, prompts: Sequence[str], strengths: Sequence[float], seed: int) -> dict[str, Any]:
        drawn = asdict(self.settings) | {"prompts": list(prompts), "strengths": list(strengths), "seed": seed}
        del drawn["every"]
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
