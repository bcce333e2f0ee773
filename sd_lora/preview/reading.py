"""What other threads read of a base model that draws: its size, and texts as its tokenizers cut them."""

from __future__ import annotations

import copy
import threading
from types import SimpleNamespace
from typing import Any

from torch import nn

from sd_lora.models.families import ModelFamily
from sd_lora.models.opening import OpenBase

#: weights of a denoiser that is small
_SMALL = 5e7


class BaseReader:
    """Reads from an open base model while another thread draws with it; waits for no drawing.

    A tokenizer remembers how it was last asked to cut, so the pipeline's are for the drawing thread alone.
    """

    def __init__(self, pipe: Any, family: ModelFamily) -> None:
        self._pipe, self._family = pipe, family
        self._parts, self._lock = _copied(pipe.components), threading.Lock()

    def token_count(self, text: str) -> tuple[int, int]:
        """How many tokens `text` has, ends included, in the tokenizer that needs the most, and how many are read."""
        with self._lock:
            parts = SimpleNamespace(**self._parts)
            return self._family.token_counts(parts, [text])[0], self._family.token_limit(parts)

    @property
    def is_small(self) -> bool:
        """Whether the base model is so small that loading it once more takes seconds on any machine."""
        return sum(parameter.numel() for parameter in self._denoiser.parameters()) < _SMALL

    def open_base(self) -> OpenBase:
        """The base model for a thread that only reads its sizes and texts: with tokenizers of its own, while the models
        stay those that draw."""
        with self._lock:
            parts = _copied(self._parts)
        scale = {"vae_scale_factor": self._pipe.vae_scale_factor}
        return OpenBase(SimpleNamespace(**parts | scale), self._family, self._denoiser.device, self._pipe.dtype)

    @property
    def _denoiser(self) -> Any:
        return getattr(self._pipe, self._family.denoiser)


def _copied(parts: dict[str, Any]) -> dict[str, Any]:
    """The parts of a pipeline with copies of those that are no models."""
    return {name: part if isinstance(part, nn.Module) else copy.deepcopy(part) for name, part in parts.items()}
