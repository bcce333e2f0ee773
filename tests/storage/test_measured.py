"""What was measured on this machine is kept, up to a number."""

from __future__ import annotations

from pathlib import Path

import pytest

from sd_lora.storage import measured as module
from sd_lora.storage.measured import keep_measured, measured


@pytest.fixture(autouse=True)
def nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "user_cache_path", lambda name: tmp_path / name)


def test_the_latest_facts_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 3)
    for number in range(3):
        keep_measured("topic", {f"key {number}": number})
    keep_measured("topic", {"key 0": "again"})
    keep_measured("topic", {"key 3": 3})
    assert measured("topic") == {"key 2": 2, "key 0": "again", "key 3": 3}
    assert measured("another") == {}


def test_what_cannot_be_written_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "sd-lora").write_text("a file")
    keep_measured("topic", {"key": 1})
    assert measured("topic") == {}
