"""One process per run folder, and no lock that outlives its owner."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sd_lora.errors import ConfigError, StorageError
from sd_lora.runs.lock import RunLock
from sd_lora.runs.process import Process

OWNER = """
import sys
from pathlib import Path
from sd_lora.runs.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of `tmp_path` until it is killed or its input ends."""
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_by_a_sentence_that_names_the_first(
    owner: subprocess.Popen[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused, RunLock(tmp_path):
        pass
    said = str(refused.value)
    assert refused.value.exit_code == 2
    assert f"{tmp_path} is in use by process {owner.pid} on {socket.gethostname()} since 20" in said
    assert said.endswith("; wait until it ends, or stop it")  # resume has no --out
    assert said.isprintable()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_a_killed_owner_blocks_nobody(owner: subprocess.Popen[str], tmp_path: Path) -> None:
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == owner.pid
    with RunLock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_it_is_free_again_after_its_end_and_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), RunLock(tmp_path):
            raise ZeroDivisionError
    with RunLock(tmp_path), pytest.raises(ConfigError, match=f"process {os.getpid()} "), RunLock(tmp_path):
        pass
    with RunLock(tmp_path):
        pass


def test_a_refusal_leaves_the_owner_its_lock(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        for _ in range(2):
            with pytest.raises(ConfigError, match=f"process {os.getpid()} "), RunLock(tmp_path):
                pass


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"pid": 1}', b"\xff\x00", b"[" * 100_000])
def test_an_owner_that_cannot_be_read_is_another_process(tmp_path: Path, content: bytes) -> None:
    with RunLock(tmp_path):
        (tmp_path / ".lock").write_bytes(content)
        with pytest.raises(ConfigError, match="in use by another process;"), RunLock(tmp_path):
            pass


def test_what_an_owner_file_says_breaks_no_line(tmp_path: Path) -> None:
    with RunLock(tmp_path):
        owner = {"pid": "1\n2", "host": "\x1b[31m" * 1000, "since": 3}
        (tmp_path / ".lock").write_text(json.dumps(owner)[:4096])
        with pytest.raises(ConfigError) as refused, RunLock(tmp_path):
            pass
    assert str(refused.value).isprintable()


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "precious"
    elsewhere.write_text("precious")
    run = tmp_path / "run"
    run.mkdir()
    (run / ".lock").symlink_to(elsewhere)
    with pytest.raises(StorageError, match=r"\.lock cannot be written"), RunLock(run):
        pass
    assert elsewhere.read_text() == "precious"


def test_a_folder_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"), RunLock(tmp_path / "nowhere"):
        pass


def test_a_disk_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(handle: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(StorageError, match=r"\.lock cannot be locked: its disk has no locks; name"), RunLock(tmp_path):
        pass


def test_a_number_that_was_given_anew_is_another_process() -> None:
    started = psutil.Process().create_time()
    assert Process(os.getpid(), "", started + 1).running()
    assert not Process(os.getpid(), "", started - 3600).running()
    assert not Process(2**31 - 1, "", started).running()
