"""A service on the tiny random base, and adapters for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from preview_jobs import Maker

from sd_lora.preview.service import PreviewService


@pytest.fixture
def service(random_sd: Any) -> Iterator[PreviewService]:
    random_sd.set_progress_bar_config(disable=True)
    made = PreviewService(random_sd)
    yield made
    made.close()


@pytest.fixture
def files(random_sd: Any, trained_adapter: Maker, tmp_path: Path) -> list[Path]:
    """Three adapters that act: of other ranks and targets, and one of the text encoder too."""
    kinds = (("attn",), ("attn", "ff"), ("attn", "conv"))
    paths = []
    for number, targets in enumerate(kinds):
        adapter = trained_adapter(random_sd, *targets, rank=number + 2, std=0.2)
        paths.append(adapter.save(tmp_path / f"{number}.safetensors"))
    return paths
