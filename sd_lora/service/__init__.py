"""The preview service: what page, command line and programs draw with."""

from sd_lora.service.events import (
    PreviewBusy,
    PreviewCell,
    PreviewEvent,
    PreviewProgress,
    PreviewStopped,
    PreviewWaiting,
)
from sd_lora.service.job import MixedAdapter, PreviewJob, PreviewLimits, PreviewRow
from sd_lora.service.preview_service import PreviewService
from sd_lora.service.recipe import a1111_line, png_with_recipe, read_recipe

__all__ = [
    "MixedAdapter",
    "PreviewBusy",
    "PreviewCell",
    "PreviewEvent",
    "PreviewJob",
    "PreviewLimits",
    "PreviewProgress",
    "PreviewRow",
    "PreviewService",
    "PreviewStopped",
    "PreviewWaiting",
    "a1111_line",
    "png_with_recipe",
    "read_recipe",
]  # fmt: skip
