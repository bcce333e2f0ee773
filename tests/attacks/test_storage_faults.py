"""A failing disk and a killed process, at every operation of a save: what was saved before is never lost."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_runs import valid_steps
from storage_faults import End, Faults, in_a_child, same, state_after

from sd_lora.errors import StorageError
from sd_lora.storage.atomic import write_atomically
from sd_lora.training.checkpoints import Checkpoints

ERRORS = [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EXDEV]
POWER_CUTS: list[End] = ["no bytes", "no names"]
FATAL: list[End] = ["kill", *POWER_CUTS]
KEEP = 2
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


def first(folder: Path) -> int:
    return 1


def over_a_damaged_one(folder: Path) -> int:
    for step in (1, 2):
        Checkpoints(folder, KEEP).save(state_after(step))
    (folder / "step-000002" / "adapter.safetensors").write_bytes(b"")
    return 2


def with_two_to_prune(folder: Path) -> int:
    for step in (1, 2, 3):
        Checkpoints(folder, KEEP + 1).save(state_after(step))
    return 4


#: what lies there before; gives the step that is saved then
SETTINGS = [first, over_a_damaged_one, with_two_to_prune]


class Bench:
    """The setting of a save, laid out anew for each injection."""

    def __init__(self, home: Path, setting: Callable[[Path], int]) -> None:
        self._master, self.folder = home / "master", home / "checkpoints"
        self._master.mkdir()
        with Faults():
            self.step = setting(self._master)
        found = Checkpoints(self._master, KEEP)
        self.old, self.new, self.before = found.newest(), state_after(self.step), valid_steps(found)
        checkpoints = self.laid_out()
        self.whole = not (self.folder / f"step-{self.step:06d}").exists()
        with Faults() as counted:
            checkpoints.save(self.new)
        self.operations = counted.done

    def laid_out(self) -> Checkpoints:
        shutil.rmtree(self.folder, ignore_errors=True)
        if os.listdir(self._master):
            shutil.copytree(self._master, self.folder, copy_function=os.link)
        return Checkpoints(self.folder, KEEP)

    def check(self, where: str, end: End) -> None:
        """The old or the new state is there, as many as before, and the next saves leave no rubbish."""
        checkpoints = Checkpoints(self.folder, KEEP)
        steps = valid_steps(checkpoints)
        if self.whole and end not in POWER_CUTS:
            assert steps == [int(p.name[5:]) for p in sorted(self.folder.glob("step-*"))], where
        assert len(steps) >= min(KEEP, len(self.before)), where
        saved = self.step in steps
        assert same(checkpoints.newest(), self.new if saved else self.old), where
        with Faults():
            checkpoints.save(self.new)
        assert same(checkpoints.newest(), self.new), where
        kept = [f"step-{step:06d}" for step in [*self.before, self.step][-KEEP:]]
        assert sorted(os.listdir(self.folder)) == kept, where


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder in memory where there is such a disk, which halves the time."""
    memory = Path("/dev/shm")
    fits = memory.is_dir() and os.access(memory, os.W_OK)
    with tempfile.TemporaryDirectory(dir=memory if fits else None, prefix="sd_lora-") as path:
        yield Path(path)


@pytest.fixture(params=SETTINGS, ids=lambda setting: setting.__name__)
def bench(home: Path, request: pytest.FixtureRequest) -> Bench:
    return Bench(home, request.param)


def points(operations: list[str]) -> Iterator[tuple[int, End, int, bool]]:
    """Every error at every operation, a disk that stays broken from there on, and half writes."""
    for at, name in enumerate(operations):
        for code in ERRORS:
            yield at, "error", code, False
        yield at, "error", errno.EROFS, True
        if name == "write":
            yield at, "half", errno.ENOSPC, False
            yield at, "half", errno.ENOSPC, True


@pytest.mark.slow
def test_no_error_of_the_disk_costs_a_checkpoint(bench: Bench) -> None:
    tried, refusals = 0, list[tuple[StorageError, str]]()
    for at, end, code, lasting in points(bench.operations):
        where = f"{end} {errno.errorcode[code]} at {at}, {bench.operations[at]}, lasting: {lasting}"
        checkpoints = bench.laid_out()
        tried += 1
        try:
            with Faults(at, end, code, lasting):
                checkpoints.save(bench.new)
        except StorageError as error:
            refusals.append((error, os.strerror(code)))
        if at < bench.operations.index("replace") and not lasting:
            assert not list(bench.folder.glob(".tmp-*")), where
        bench.check(where, end)
    assert tried >= 120
    assert len(refusals) >= tried / 2
    for error, reason in refusals:
        assert error.exit_code == 7
        assert re.fullmatch(rf"{bench.folder}\S* cannot be written: {re.escape(reason)}; [^.;\n]+", str(error))


@pytest.mark.slow
@forks
@pytest.mark.parametrize("end", FATAL)
def test_no_kill_and_no_power_cut_costs_a_checkpoint(bench: Bench, end: End) -> None:
    assert {"mkdir", "write", "fsync", "replace"} <= set(bench.operations)
    for at in range(len(bench.operations)):
        checkpoints = bench.laid_out()
        ended = in_a_child(lambda: checkpoints.save(bench.new), Faults(at, end))  # noqa: B023 (done before the next)
        assert ended == signal.SIGKILL, (at, bench.operations[at:])
        bench.check(f"{end} at {at}, {bench.operations[at]}", end)


@pytest.mark.slow
@forks
@pytest.mark.parametrize("end", FATAL)
def test_once_saved_it_stays_whatever_happens_then(bench: Bench, end: End) -> None:
    """A save that has come back is on the disk."""
    checkpoints = bench.laid_out()

    def save_and_end() -> None:
        checkpoints.save(bench.new)
        os.mkdir(bench.folder / "later")

    assert in_a_child(save_and_end, Faults(len(bench.operations), end)) == signal.SIGKILL
    assert same(checkpoints.newest(), bench.new)


@pytest.mark.parametrize("code", ERRORS)
def test_a_file_written_atomically_is_the_old_or_the_new(home: Path, code: int) -> None:
    path = home / "file.json"
    with Faults() as counted:
        write_atomically(path, b"new content")
    assert {"open", "write", "fsync", "replace"} <= set(counted.done)
    for at in range(len(counted.done)):
        for end in ("error", "half"):
            path.write_bytes(b"old")
            said = ""
            try:
                with Faults(at, end, code):
                    write_atomically(path, b"new content")
            except StorageError as error:
                said = str(error)
            if said:
                assert f"{path} cannot be written: {os.strerror(code)}; " in said
            else:
                assert path.read_bytes() == b"new content"
            assert path.read_bytes() in (b"old", b"new content")
            assert list(home.iterdir()) == [path]


@pytest.mark.slow
@forks
@pytest.mark.parametrize("end", FATAL)
def test_a_killed_write_leaves_the_old_or_the_new(home: Path, end: End) -> None:
    path = home / "file.json"
    with Faults() as counted:
        write_atomically(path, b"new content")

    def write_and_end() -> None:
        write_atomically(path, b"new content")
        os.mkdir(home / "later")

    for at in range(len(counted.done) + 1):
        path.write_bytes(b"old")
        assert in_a_child(write_and_end, Faults(at, end)) == signal.SIGKILL
        written = [b"new content"] if at == len(counted.done) else [b"old", b"new content"]
        assert path.read_bytes() in written, f"{end} at {at}"
        with Faults():
            write_atomically(path, b"newer")
        assert path.read_bytes() == b"newer"


def test_what_a_dead_process_of_the_same_numbers_left_does_not_block(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.with_name(f".file.{os.getpid()}-{threading.get_native_id()}.partial").write_bytes(b"half of")
    write_atomically(path, b"whole")
    assert list(tmp_path.iterdir()) == [path]


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, content: write(handle, bytes(content)[:3]))
    write_atomically(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"
    checkpoints = Checkpoints(tmp_path / "checkpoints", KEEP)
    checkpoints.save(state_after(1))
    assert same(checkpoints.newest(), state_after(1))
