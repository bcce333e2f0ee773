"""A share of what `killed_runs.py` does by command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_runs_that_are_killed_end_with_the_same_bytes() -> None:
    command = [sys.executable, str(Path(__file__).with_name("killed_runs.py")), "--kills", "4", "--seed", "1"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "4 kills" in done.stdout
    assert " 0 faults" in done.stdout
