"""What the page's tests share: a browser, and a service on the tiny random base."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import Tab, browser
from serving import Served

import sd_lora
from sd_lora.preview.service import PreviewService


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as opened:
        yield opened


@pytest.fixture
def tab(chromium: Any, page: Served) -> Iterator[Tab]:
    """A tab on the `page` of the test's own module, which must have printed no traceback."""
    opened = Tab(chromium, page.address)
    yield opened
    opened.close()
    assert not any("Traceback" in line for line in page.printed), "".join(page.printed)


@pytest.fixture(scope="module")
def pipe(random_sd_folder: Path) -> Any:
    return sd_lora.load_base(random_sd_folder)[0]


@pytest.fixture(scope="module")
def service(pipe: Any) -> Iterator[PreviewService]:
    opened = PreviewService(pipe)
    yield opened
    opened.close()
