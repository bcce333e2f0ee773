"""docs/python.md: its code blocks run in order, and it names every public name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import sd_lora

PAGE = (Path(__file__).parents[1] / "docs" / "python.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_blocks_of_the_page_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(BLOCKS)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sheet.png").is_file()


@pytest.mark.parametrize("name", sd_lora.__all__)
def test_every_public_name_is_used_on_the_page(name: str) -> None:
    assert re.search(rf"\bsd_lora\.{name}\b", "\n".join(BLOCKS))
