"""Checkpoints torn in every way: each is seen, and the older whole one is taken in its place."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import valid_steps
from storage_faults import same, state_after

from sd_lora.training.checkpoints import Checkpoints, _sealed

FILES = ["adapter.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]
links = pytest.mark.skipif(os.name == "nt", reason="links need rights there")


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asserted here does not depend on it; `test_storage_faults` asserts that it is done."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    """Valid checkpoints of the steps 1 and 2."""
    store = Checkpoints(tmp_path / "run" / "checkpoints", 2)
    for step in (1, 2):
        store.save(state_after(step))
    return store


def assert_falls_back(store: Checkpoints, reason: str = "") -> None:
    assert same(store.newest(), state_after(1))
    (said,) = store.passed_over
    assert said.startswith(f"checkpoint {store.folder / 'step-000002'} is passed over: ")
    assert reason in said
    assert said.isprintable()
    assert valid_steps(store) == [1]


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_seen(store: Checkpoints, name: str) -> None:
    path = store.folder / "step-000002" / name
    content = path.read_bytes()
    for length in {0, 1, 7, 8, 9, len(content) // 2, len(content) - 8, len(content) - 1}:
        path.write_bytes(content[:length])
        assert_falls_back(store, name)
    path.write_bytes(content + b"\0")
    assert_falls_back(store, name)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_seen(store: Checkpoints, name: str) -> None:
    path = store.folder / "step-000002" / name
    content = path.read_bytes()
    for place in [*range(0, len(content), max(1, len(content) // 60)), len(content) - 1]:
        for bit in (0, 5):  # 5: a letter turns to upper or lower case
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            assert_falls_back(store, name)


def deleted(path: Path) -> str:
    path.unlink()
    return path.name


def a_folder(path: Path) -> str:
    path.unlink()
    path.mkdir()
    return f"{path.name} is not a regular file"


def a_link_to_its_copy(path: Path) -> str:
    path.rename(path.parents[2] / path.name)
    path.symlink_to(path.parents[2] / path.name)
    return f"{path.name} is not a regular file"


def a_pipe(path: Path) -> str:
    path.unlink()
    os.mkfifo(path)
    return f"{path.name} is not a regular file"


def of_the_other(path: Path) -> str:
    shutil.copy(path.parents[1] / "step-000001" / path.name, path)
    return "manifest.json is of step 1" if path.name == "manifest.json" else path.name


@links
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("tear", [deleted, a_folder, a_link_to_its_copy, a_pipe, of_the_other])
def test_a_file_that_is_another_thing_is_seen(store: Checkpoints, name: str, tear: Callable[[Path], str]) -> None:
    assert_falls_back(store, tear(store.folder / "step-000002" / name))


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("x")


def a_link(folder: Path) -> None:
    folder.rename(folder.parents[1] / "elsewhere")
    folder.symlink_to(folder.parents[1] / "elsewhere")


def the_other(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("step-000001"), folder)


def with_more(folder: Path) -> None:
    (folder / "more.safetensors").write_bytes(b"")


@links
@pytest.mark.parametrize("tear", [empty, a_file, a_link, the_other, with_more])
def test_a_folder_that_is_another_thing_is_seen_and_saved_anew(
    store: Checkpoints, tear: Callable[[Path], None]
) -> None:
    tear(store.folder / "step-000002")
    assert_falls_back(store)
    store.save(state_after(2))
    assert same(store.newest(), state_after(2))
    assert sorted(p.name for p in store.folder.iterdir()) == ["step-000001", "step-000002"]


FORGED: dict[str, Any] = {
    "another schema": {"schema": 2},
    "no schema": {"schema": None},
    "step is text": {"step": "2"},
    "files are a list": {"files": []},
    "files are numbers": {"files": dict.fromkeys(FILES[:3], 1)},
    "tensors are missing": {"tensors": None},
    "tensors lie elsewhere": {"tensors": {"adapter": ["../step-000001/adapter.safetensors"]}},
    "tensors are json": {"tensors": {"adapter": ["state.json"], "optimizer": ["optimizer.safetensors"]}},
    "tensors are numbers": {"tensors": {"adapter": [1]}},
}


@pytest.mark.parametrize("change", FORGED.values(), ids=list(FORGED))
def test_a_sealed_manifest_that_makes_no_sense_is_seen(store: Checkpoints, change: dict[str, Any]) -> None:
    path = store.folder / "step-000002" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    path.write_bytes(_sealed(manifest | change))
    assert_falls_back(store, "schema" if "schema" in change else "")


@pytest.mark.parametrize("content", [b"[]", b"[" * 100_000, b"\xff", b'{"schema": NaN}', b"1" * 10_000])
def test_a_manifest_that_is_no_table_is_seen(store: Checkpoints, content: bytes) -> None:
    (store.folder / "step-000002" / "manifest.json").write_bytes(content)
    assert_falls_back(store, "manifest.json")
