"""Where a base model lies."""

from __future__ import annotations

from pathlib import Path


def variant_of(folder: Path) -> str | None:
    """``fp16`` if a component of the pipeline folder has its weights in that variant only."""
    return None
