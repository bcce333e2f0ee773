"""A run that is ready to start, and what it is trained on once that is encoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sd_lora.adapters.adapter import Adapter
from sd_lora.config.schema import RunConfig
from sd_lora.data.encoded import EncodedSet
from sd_lora.data.examples import Example
from sd_lora.data.exposures import Schedule
from sd_lora.models.opening import ModelFamily, OpenBase
from sd_lora.training.memory import Means

if TYPE_CHECKING:
    from sd_lora.training.samples import Samples


@dataclass
class Run:
    """A run whose inputs have all been checked; `config` is resolved, `notes` are warnings for the user."""

    config: RunConfig
    path: Path
    layout: str
    examples: list[Example]
    schedule: Schedule
    #: its denoiser may have no weights yet: they are loaded once all is encoded
    base: OpenBase
    adapter: Adapter
    notes: list[str]
    #: images that are not trained on, to measure the validation loss
    held: list[Example]
    #: how its steps are computed, and why
    means: Means
    #: whether it continues in an existing run folder
    resumed: bool = False
    #: the step of the checkpoint that it continues from; None without one
    resumed_from: int | None = None
    #: under which the cost of its steps is kept
    cost_key: str = ""

    @property
    def family(self) -> ModelFamily:
        return self.base.family

    @property
    def pipe(self) -> Any:
        return self.base.pipe

    @property
    def device(self) -> torch.device:
        return self.base.device

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    @property
    def images(self) -> int:
        """How many images the style is learnt from."""
        return sum(not example.prior for example in self.examples)


@dataclass(frozen=True)
class Encoded:
    """Examples to train on and, if any, `held` out ones; what draws the `samples`; and what identifies the `base` model
    (`encoders_of_base` and `denoising_of_base`)."""

    data: EncodedSet
    held: EncodedSet | None
    samples: Samples
    base: dict[str, Any]
