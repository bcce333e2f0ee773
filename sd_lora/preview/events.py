"""What is said of a preview job while it is drawn, and the errors that end it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from sd_lora.errors import SdLoraError


class PreviewBusy(SdLoraError):
    """So many jobs wait already that another is not taken."""


class PreviewStopped(SdLoraError):
    """A job that was stopped before all its pictures were drawn."""


@dataclass(frozen=True)
class PreviewWaiting:
    """So many jobs come first."""

    ahead: int


@dataclass(frozen=True)
class PreviewProgress:
    """So many steps of the pictures from (row, column) on are done; `sketch` shows the first of them, now and then."""

    row: int
    column: int
    step: int
    steps: int
    sketch: Image.Image | None = None


@dataclass(frozen=True)
class PreviewCell:
    """A picture that is finished; `cached` if it had been drawn before. `hashes`: of the adapters' files as drawn."""

    row: int
    column: int
    image: Image.Image
    cached: bool = False
    hashes: Mapping[Path, str] = field(default_factory=dict)


PreviewEvent = PreviewWaiting | PreviewProgress | PreviewCell
