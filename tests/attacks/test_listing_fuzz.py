"""Mutants of metadata, dataset and caption files are read or refused (more: tests/attacks/listing_fuzzing.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from listing_fuzzing import SEEDS, folder_of_pictures, fuzz, outcome, parquet

COUNT = 1_000


def test_the_seeds_are_read(tmp_path: Path) -> None:
    for name, content in {**SEEDS, "metadata.parquet": parquet()}.items():
        folder = folder_of_pictures(tmp_path / name.replace("/", "-"))
        (folder / name).write_bytes(content)
        assert outcome(folder) == "read"


@pytest.mark.slow
def test_mutants_are_read_or_refused(tmp_path: Path) -> None:
    found = fuzz(COUNT, 0, tmp_path)
    assert sum(sum(tally.outcomes.values()) for tally in found.values()) == COUNT
    assert set(found) == {*SEEDS, "metadata.parquet"}
    assert {result for tally in found.values() for result in tally.outcomes} == {"read", "nothing", "refused"}
    for name, tally in found.items():
        assert tally.outcomes["read"] > COUNT / 100, name  # mutations that never leave a good file would test little
