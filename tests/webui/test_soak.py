"""A minute of callers without a pause; half an hour with ``python tests/webui/soaking.py``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sd_lora.webui.temp_files import QUOTA
from serving import served
from soaking import OPTIONS, soak

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("SD_LORA_SOAK", "60"))


def test_a_busy_page_neither_grows_nor_hangs_nor_fails(tmp_path: Path) -> None:
    temp = tmp_path / "temp"
    temp.mkdir()
    with served(tmp_path, *OPTIONS, env={"TMPDIR": str(temp)}) as page:
        result = soak(page, SECONDS, temp)
    assert result.calls > 50
    assert result.wrong == []
    assert (result.tracebacks, result.stuck) == (0, 0)
    # 5 MB per 1,000 calls; memory is taken in steps of 2 to 8 MB with level stretches between, of which so short a
    # time may see one
    assert result.growth < 5 * result.judged / 1000 + 8
    assert result.folder < QUOTA
