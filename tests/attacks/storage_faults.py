"""A disk that fails at a chosen operation, and a machine that stops there, with or without its power.

`Faults` numbers the calls of ``os`` that change a disk. What a power cut may take is what nobody has waited for: the
bytes of files, and the names in folders, that were not synced; both extremes are played.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from sd_lora.training.checkpoints import State

CALLS = ("open", "write", "fsync", "replace", "rename", "unlink", "mkdir", "rmdir")
End = Literal["error", "half", "kill", "no bytes", "no names"]


class Faults:
    """Inside ``with``, the operation of number `at` (from 0) ends as `end` says instead of being done.

    "error" raises `code`; "half" writes half of what it should and raises; "kill" is ``kill -9``; "no bytes" and "no
    names" are power cuts after which unsynced files are cut in half, or unsynced names are as they were. With
    `lasting`, all later operations raise too. ``fsync`` waits for no disk: what a kill leaves does not depend on it.
    """

    def __init__(self, at: int = -1, end: End = "error", code: int = 0, lasting: bool = False) -> None:
        self.at, self.end, self.code, self.lasting = at, end, code, lasting
        self.done: list[str] = []
        self._real: dict[str, Callable[..., Any]] = {}
        self._opened: dict[int, Path] = {}
        self._unsynced: dict[int, int] = {}  # inode → a handle of our own, which follows a file that is renamed
        self._undo: list[tuple[Path, Callable[[], object]]] = []  # by folder: what takes back a new name in it
        self._moves: list[tuple[Path, Path]] = []

    def __enter__(self) -> Faults:
        for name in CALLS:
            self._real[name] = getattr(os, name)
            setattr(os, name, self._counted(name))
        return self

    def __exit__(self, *_: object) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)
        for handle in self._unsynced.values():
            os.close(handle)

    def _counted(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            number = len(self.done)
            self.done.append(name)
            if number == self.at or (self.lasting and 0 <= self.at < number):
                return self._strike(name, args)
            if name == "fsync":
                return self._synced(args[0])
            before = Path(args[1]) if name in ("replace", "rename") else Path()
            content = before.read_bytes() if before.is_file() else None
            result = self._real[name](*args, **options)
            if not options:  # not shutil's own, which removes what is of no use by handles of folders
                self._note(name, args, result, content)
            return result

        return call

    def _strike(self, name: str, args: tuple[Any, ...]) -> Any:
        if self.end == "half" and name == "write":
            self._real["write"](args[0], bytes(args[1])[: len(args[1]) // 2])
        if self.end in ("error", "half"):
            raise OSError(self.code, os.strerror(self.code))
        for call, real in self._real.items():  # what follows is no operation of the program
            setattr(os, call, real)
        if self.end == "no bytes":
            for handle in self._unsynced.values():
                os.ftruncate(handle, os.fstat(handle).st_size // 2)
        if self.end == "no names":
            for _, undo in reversed(self._undo):
                undo()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def _note(self, name: str, args: tuple[Any, ...], result: Any, replaced: bytes | None) -> None:
        """Remember what would be lost."""
        if name == "open":
            path = self._opened[result] = Path(args[0])
            if args[1] & os.O_CREAT:
                self._undo.append((path.parent, lambda: self._now(path).unlink(missing_ok=True)))
        elif name == "write" and (inode := os.fstat(args[0]).st_ino) not in self._unsynced:
            self._unsynced[inode] = os.dup(args[0])
        elif name == "mkdir":
            folder = Path(args[0])
            self._undo.append((folder.parent, lambda: shutil.rmtree(self._now(folder), ignore_errors=True)))
        elif name in ("replace", "rename"):
            old, new = Path(args[0]), Path(args[1])
            self._moves.append((old, new))
            self._undo.append((new.parent, lambda: _move_back(old, new, replaced)))

    def _now(self, path: Path) -> Path:
        """Where what was made as `path` lies after renames."""
        for old, new in self._moves:
            if not path.exists() and path.is_relative_to(old):
                path = new / path.relative_to(old)
        return path

    def _synced(self, handle: int) -> None:
        facts = os.fstat(handle)
        if stat.S_ISDIR(facts.st_mode):
            self._undo = [(folder, undo) for folder, undo in self._undo if folder != self._opened[handle]]
        elif facts.st_ino in self._unsynced:
            os.close(self._unsynced.pop(facts.st_ino))


def _move_back(old: Path, new: Path, replaced: bytes | None) -> None:
    if new.exists():  # what was renamed and then removed stays removed
        new.rename(old)
    if replaced is not None:
        new.write_bytes(replaced)


def in_a_child(work: Callable[[], object], faults: Faults) -> int | None:
    """Do `work` under `faults` in a forked process: the signal that ended it, or None if it came to its end."""
    child = os.fork()
    if not child:
        try:
            with faults:
                work()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else None


def state_after(step: int) -> State:
    generator = torch.Generator().manual_seed(step)
    weights = {f"layer.{i}": torch.randn(3, 4, generator=generator) for i in range(2)}
    moments = {"step": torch.tensor(step), "first": torch.randn(5, generator=generator)}
    return State(step, {"adapter": weights, "optimizer": moments}, {"seed": 7, "loss": step / 7})


def same(found: State | None, expected: State | None) -> bool:
    if found is None or expected is None:
        return found is expected
    tensors = [
        {
            (stem, name): (tensor.dtype, tensor.numpy().tobytes())
            for stem in s.tensors
            for name, tensor in s.tensors[stem].items()
        }
        for s in (found, expected)
    ]
    return (found.step, found.facts, tensors[0]) == (expected.step, expected.facts, tensors[1])
