"""Mutants of good files are read whole or refused in one line (more of them: python tests/attacks/fuzzing.py COUNT)."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing import fuzz, outcome, seeds

COUNT = 10_000


def test_the_seeds_are_good(tmp_path: Path) -> None:
    for number, content in enumerate(seeds(tmp_path)):
        (tmp_path / f"{number}.safetensors").write_bytes(content)
        assert outcome(tmp_path / f"{number}.safetensors") == "read"


@pytest.mark.slow
def test_mutants_are_read_whole_or_refused(tmp_path: Path) -> None:
    found = fuzz(COUNT, 0, tmp_path)
    assert sum(found.values()) == COUNT
    assert found["refused"] > COUNT / 2
    assert found["read"] > COUNT / 50  # mutations that never leave a good file would test little
