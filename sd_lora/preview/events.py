"""Events of a preview job while it is drawn, and the errors that end it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from sd_lora.errors import SdLoraError


class PreviewBusy(SdLoraError):
    """Too many jobs are waiting to take another."""


class PreviewStopped(SdLoraError):
    """A job that was stopped before all its pictures were drawn."""


@dataclass(frozen=True)
class PreviewWaiting:
    """How many jobs come first."""

    ahead: int


@dataclass(frozen=True)
class PreviewProgress:
    """How many steps of the pictures from (row, column) on are done; now and then `sketch` shows the first of them."""

    row: int
    column: int
    step: int
    steps: int
    sketch: Image.Image | None = None


@dataclass(frozen=True)
class PreviewCell:
    """A picture that is finished. `hashes`: of the adapters' files as drawn."""

    row: int
    column: int
    image: Image.Image
    hashes: Mapping[Path, str] = field(default_factory=dict)


PreviewEvent = PreviewWaiting | PreviewProgress | PreviewCell
