"""Checkpoints: what is saved comes back bit for bit, and what is not whole is passed over for what is."""

from __future__ import annotations

import json
import os
import shutil
from itertools import product
from pathlib import Path

import psutil
import pytest
import torch
from rows import every_row
from small_runs import valid_steps
from torch import Tensor

from sd_lora.errors import StorageError, TrainingStopped
from sd_lora.training import checkpoints as module
from sd_lora.training.checkpoints import Checkpoints, State

FILES = ["adapter.safetensors", "manifest.json", "optimizer.safetensors", "state.json"]
links = pytest.mark.skipif(os.name == "nt", reason="links need rights there")


def state_after(step: int, **tensors: dict[str, Tensor]) -> State:
    generator = torch.Generator().manual_seed(step)
    weights = {f"layer.{i}": torch.randn(3, 4, generator=generator) for i in range(2)}
    kept = {"adapter": weights, "optimizer": {"step": torch.tensor(step), "first": weights["layer.0"] ** 2}}
    return State(step, kept | tensors, {"loss": step / 7, "names": ["é", "\ud83d"], "none": None})


def assert_same(found: State | None, expected: State) -> None:
    assert found is not None
    assert (found.step, found.facts) == (expected.step, expected.facts)
    assert list(found.tensors) == list(expected.tensors)
    for stem, tensors in expected.tensors.items():
        assert set(found.tensors[stem]) == set(tensors)
        for name, tensor in tensors.items():
            other = found.tensors[stem][name]
            assert (other.dtype, other.shape) == (tensor.dtype, tensor.shape)
            same = [t.detach().contiguous().flatten().view(torch.uint8) for t in (other, tensor)]
            assert torch.equal(*same), name


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


def test_nothing_saved_is_nothing_found(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path / "none", 2)
    assert (store.newest(), valid_steps(store), store.passed_over) == (None, [], [])


def test_every_kind_of_tensor_comes_back_bit_for_bit(tmp_path: Path) -> None:
    kinds = {
        str(kind): torch.arange(-3, 9).reshape(3, 4).to(kind)
        for kind in (
            torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
            torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
        )
    }  # fmt: skip
    whole = torch.randn(4, 6)
    odd = {
        "scalar": torch.tensor(-0.0),
        "empty": torch.empty(0, 3),
        "turned": whole.T,
        "part": whole[1],
        "whole": whole,
        "again": whole,
        "learned": torch.nn.Parameter(torch.randn(2)),
        "smallest": torch.tensor([5e-324, 1.0], dtype=torch.float64),
    }
    state = state_after(3, kinds=kinds, odd=odd, nothing={})
    store = Checkpoints(tmp_path, 1)
    assert store.save(state) == tmp_path / "step-000003"
    assert_same(store.newest(), state)


def test_large_tensors_are_spread_over_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILE", 100)
    monkeypatch.setattr(module, "MAX_FILE_TENSORS", 4)
    many = {f"{i}": torch.full((n,), float(i)) for i, n in enumerate([10, 10, 60, 1, 1, 1, 1, 1])}
    state = state_after(1, many=many)
    store = Checkpoints(tmp_path, 1)
    names = sorted(path.name for path in store.save(state).glob("many*"))
    assert names == ["many.2.safetensors", "many.3.safetensors", "many.4.safetensors", "many.safetensors"]
    assert_same(store.newest(), state)


def test_what_is_loaded_outlives_its_file(store: Checkpoints) -> None:
    found = store.newest()
    for path in store.folder.glob("*/*"):
        path.write_bytes(b"")
    assert_same(found, state_after(2))


def test_the_manifest_says_what_there_is(store: Checkpoints) -> None:
    folder = store.folder / "step-000002"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["schema"], manifest["step"]) == (1, 2)
    assert sorted([*manifest["files"], "manifest.json"]) == sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    for name, facts in manifest["files"].items():
        assert facts["size"] == (folder / name).stat().st_size


NOT_FINITE = [float("nan"), float("inf"), float("-inf")]


@every_row("value, kind", product(NOT_FINITE, [torch.float32, torch.bfloat16, torch.float8_e5m2]))
def test_values_that_are_not_finite_are_refused_before_a_byte(tmp_path: Path, value: float, kind: torch.dtype) -> None:
    bad = torch.ones(4)
    bad[2] = value
    store = Checkpoints(tmp_path / "none", 2)
    with pytest.raises(TrainingStopped, match=r"values in average: a are NaN or infinite; "):
        store.save(state_after(1, average={"a": bad.to(kind)}))
    assert not store.folder.exists()


def test_facts_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingStopped, match="values in facts are NaN"):
        Checkpoints(tmp_path / "none", 2).save(State(1, {}, {"loss": float("nan")}))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_stay(tmp_path: Path, keep: int) -> None:
    store = Checkpoints(tmp_path, keep)
    for step in (1, 2, 999_999, 1_000_000, 1_000_001):
        store.save(state_after(step))
    assert valid_steps(store) == [1, 2, 999_999, 1_000_000, 1_000_001][-keep:]
    assert len(list(tmp_path.iterdir())) == keep
    assert_same(store.newest(), state_after(1_000_001))


def test_only_valid_ones_count_when_old_ones_go(store: Checkpoints) -> None:
    (store.folder / "step-000002" / "state.json").unlink()
    store.save(state_after(3))
    assert valid_steps(store) == [1, 3]
    store.save(state_after(4))
    assert valid_steps(store) == [3, 4]
    assert sorted(p.name for p in store.folder.iterdir()) == ["step-000003", "step-000004"]


def test_what_has_just_been_saved_stays_though_newer_ones_exist(store: Checkpoints) -> None:
    store.save(state_after(10))
    assert valid_steps(store) == [2, 10]
    Checkpoints(store.folder, 1).save(state_after(5))
    assert valid_steps(store) == [5, 10]


def test_a_valid_checkpoint_is_not_written_again(store: Checkpoints) -> None:
    files = {path: path.stat().st_mtime_ns for path in store.folder.rglob("*")}
    other = state_after(2)
    other.facts["loss"] = 0.5
    store.save(other)
    assert {path: path.stat().st_mtime_ns for path in store.folder.rglob("*")} == files


@pytest.mark.parametrize("alive", [True, False])
def test_leftovers_of_dead_processes_go(store: Checkpoints, alive: bool) -> None:
    pid = psutil.Process().parent()
    assert pid is not None
    left = [store.folder / f".tmp-000009-{pid.pid if alive else 2**31 - 1}{end}" for end in ("", "-old")]
    for folder in left:
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "file").write_text("x")
    other = store.folder / ".tmp-notes"
    other.write_text("of the user")
    store.save(state_after(3))
    assert [folder.exists() for folder in left] == [alive, alive]
    assert other.exists()


@links
def test_pruning_removes_links_and_not_what_they_lead_to(store: Checkpoints, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    (store.folder / "step-000000").symlink_to(precious)
    (store.folder / "step-000001" / "link").symlink_to(precious)
    for step in (3, 4):
        store.save(state_after(step))
    assert sorted(p.name for p in store.folder.iterdir()) == ["step-000003", "step-000004"]
    assert (precious / "file").read_text() == "x"


def test_what_does_not_read_back_is_not_a_checkpoint(store: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    write = module.write_synced

    def flipping(path: Path, content: bytes) -> None:
        write(path, content[:-1] + bytes([content[-1] ^ 1]) if path.name == "optimizer.safetensors" else content)

    monkeypatch.setattr(module, "write_synced", flipping)
    with pytest.raises(StorageError, match=r"does not read back as written \(optimizer.safetensors was changed\); "):
        store.save(state_after(3))
    assert valid_steps(store) == [1, 2]
    assert len(list(store.folder.iterdir())) == 2


def test_a_folder_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(StorageError, match="cannot be read: Not a directory; "):
        Checkpoints(path, 2).newest()
    with pytest.raises(StorageError, match=f"{path.name}.* cannot be written: "):
        Checkpoints(path, 2).save(state_after(1))


def test_files_of_file_managers_do_no_harm(store: Checkpoints) -> None:
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", ".nfs0001"):
        (store.folder / "step-000002" / name).write_bytes(b"x")
    (store.folder / ".DS_Store").write_bytes(b"x")
    assert_same(store.newest(), state_after(2))
    assert store.passed_over == []


def test_other_names_are_left_alone(store: Checkpoints) -> None:
    for name in ("step-3", "step-0000003", "step-abcdef", "step-000003x", "notes"):
        shutil.copytree(store.folder / "step-000001", store.folder / name)
    store.save(state_after(4))
    assert valid_steps(store) == [2, 4]
    assert (store.folder / "notes").exists()
