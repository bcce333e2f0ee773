"""Mutants of good pictures are decoded or refused (more of them: python tests/attacks/picture_fuzzing.py --count N)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import picture_fuzzing
import pytest
from picture_fuzzing import fuzz, outcome, seeds
from rows import every_row

COUNT = 5_000


@every_row("name", seeds())
def test_the_seeds_are_good(name: str, tmp_path: Path) -> None:
    ending, content = seeds()[name]
    (tmp_path / f"a.{ending}").write_bytes(content)
    assert outcome(tmp_path / f"a.{ending}") == "read"


@pytest.mark.slow
def test_mutants_are_decoded_or_refused_in_little_memory() -> None:
    # in a process of its own: what others in this one have used must not count, and a crash must not take them along
    command = [sys.executable, picture_fuzzing.__file__, "--count", str(COUNT)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    rows = [line.split() for line in ran.stdout.splitlines()[1:-1]]
    assert len(rows) >= 11
    assert sum(int(row[-7]) for row in rows) >= COUNT
    for *_, mutants, read, unreadable, _, _, _, _ in rows:  # mutations that never or always harm would test little
        assert int(read) > int(mutants) / 200
        assert int(unreadable) > int(mutants) / 10


def test_a_fault_is_seen_and_its_mutant_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_fuzzing, "MOST_MEGABYTES", 1)
    with pytest.raises(AssertionError, match=r"MB for .*GIF\.gif"):
        fuzz("GIF", 1, 0, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["GIF.gif"]
