"""What the page's tests share: a browser, and a service on the tiny random base."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import browser

import sd_lora
from sd_lora.preview.service import PreviewService


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def pipe(random_sd_folder: Path) -> Any:
    return sd_lora.load_base(random_sd_folder)[0]


@pytest.fixture(scope="module")
def service(pipe: Any) -> Iterator[PreviewService]:
    opened = PreviewService(pipe)
    yield opened
    opened.close()
