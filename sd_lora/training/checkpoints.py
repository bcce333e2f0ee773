"""Checkpoints of a run: all that resuming needs, each a folder that is complete or absent.

A checkpoint is written under another name, synced, read back and only then renamed; older ones go after that.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as save_bytes
from torch import Tensor

from sd_lora.adapters.foreign import CHECKPOINT_KEY
from sd_lora.errors import AdapterError, StorageError, TrainingStopped, printable, some
from sd_lora.runs.process import Process
from sd_lora.storage.atomic import remove_tree, storing, sync_folder, write_synced
from sd_lora.storage.safetensors_header import read_header
from sd_lora.version import __version__

SCHEMA = 1
MANIFEST, STATE = "manifest.json", "state.json"
MAX_JSON = 64 * 2**20
#: a file holds about this much, so that memory stays flat and no file reaches the limits on headers
MAX_FILE, MAX_FILE_TENSORS = 256 * 2**20, 5_000


@dataclass
class State:
    """A run after `step` steps: tensors by file stem (``adapter``, ``optimizer``, …) and name, and JSON `facts`."""

    step: int
    tensors: dict[str, dict[str, Tensor]]
    facts: dict[str, Any]


class _InvalidError(Exception):
    """Why a folder is not a checkpoint."""


class Checkpoints:
    """The checkpoints in `folder`, of which the newest `keep` valid ones stay."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        #: why the last `newest` could not use a checkpoint, a sentence each
        self.passed_over: list[str] = []

    def save(self, state: State) -> Path:
        """Write `state` to ``step-000123`` and return that; a valid checkpoint of this step stays as it is.

        StorageError if the disk does not take it, TrainingStopped if a value is not finite; what was valid stays so.
        """
        target = self._path(state.step)
        document = _document(target, state)
        with storing(target):
            if not self.folder.is_dir():
                self.folder.mkdir(parents=True, exist_ok=True)
                sync_folder(self.folder.parent)
            self._remove_leftovers()
            if not self._valid(state.step):
                self._write(state, document)
            sync_folder(self.folder)
            self._prune(state.step)
        return target

    def newest(self, *, tensors: bool = True) -> State | None:
        """The newest valid checkpoint, without its `tensors` if they are not needed; newer ones that are not valid are
        named in `passed_over`."""
        self.passed_over = []
        for step in reversed(self._present()):
            path = self._path(step)
            try:
                return _load(path, _verified(path, step), tensors)
            except _InvalidError as error:
                self.passed_over.append(f"checkpoint {path} is passed over: {error}")
        return None

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"

    def _present(self) -> list[int]:
        """Steps by the names in the folder, ascending; these may belong to anything."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"{self.folder} cannot be read: {error.strerror}; allow it or name another") from error
        return sorted(int(name[5:]) for name in names if re.fullmatch(r"step-(\d{6}|[1-9]\d{6,17})", name))

    def _valid(self, step: int) -> bool:
        try:
            return bool(_verified(self._path(step), step))
        except _InvalidError:
            return False

    def _aside(self, step: int, suffix: str = "") -> Path:
        return self.folder / f".tmp-{step:06d}-{os.getpid()}{suffix}"

    def _write(self, state: State, document: bytes) -> None:
        target, partial = self._path(state.step), self._aside(state.step)
        try:
            os.mkdir(partial)
            _write_files(partial, state, document)
            sync_folder(partial)
            _verified(partial, state.step)
            if os.path.lexists(target):  # of this step, but damaged
                os.replace(target, self._aside(state.step, "-old"))
            os.replace(partial, target)
        except BaseException as error:
            with contextlib.suppress(OSError):
                remove_tree(partial)
            if isinstance(error, _InvalidError):
                raise StorageError(
                    f"{target} cannot be written: it does not read back as written ({error}); that disk is failing, "
                    "copy what is on it and name a folder on another"
                ) from error
            raise

    def _prune(self, saved: int) -> None:
        """Remove what is older than the newest `keep` valid ones. Damaged ones among those stay: otherwise a disk that
        cannot be read for a moment would cost a good checkpoint."""
        present = self._present()
        valid = (step for step in reversed(present) if step == saved or self._valid(step))
        kept = list(islice(valid, self.keep))
        for old in present if len(kept) == self.keep else []:
            if old < min(kept[-1], saved):
                # Renamed first, so that nothing half removed ever has a checkpoint's name.
                with contextlib.suppress(OSError):
                    os.replace(self._path(old), self._aside(old, "-old"))
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """Remove what this process or a dead one left behind."""
        for path in sorted(self.folder.glob(".tmp-*")):
            match = re.fullmatch(r"\.tmp-\d+-(\d{1,10})(-old)?", path.name)
            # The next save tries again: no run should end over useless files.
            with contextlib.suppress(OSError):
                if match and (
                    (pid := int(match[1])) == os.getpid() or not Process(pid, "", os.lstat(path).st_mtime).running()
                ):
                    remove_tree(path)


def _document(target: Path, state: State) -> bytes:
    """``state.json``; TrainingStopped if anything in `state` is NaN or infinite."""
    named = [(f"{stem}: {name}", tensor) for stem, tensors in state.tensors.items() for name, tensor in tensors.items()]
    wrong = [name for name, tensor in named if not _finite(tensor)]
    try:
        document = json.dumps({"step": state.step, "facts": state.facts}, allow_nan=False).encode()
    except ValueError:
        wrong.append("facts")
        document = b""
    if wrong:
        raise TrainingStopped(
            f"checkpoint {target} was not written: values in {some(wrong, 3)} are NaN or infinite; "
            "lower optimizer.learning_rate"
        )
    return document


def _finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    values = tensor.float() if tensor.element_size() == 1 else tensor  # isfinite knows no float8
    return bool(torch.isfinite(values).all())


def _write_files(folder: Path, state: State, document: bytes) -> None:
    files: dict[str, dict[str, Any]] = {}
    tensors: dict[str, list[str]] = {}
    # So that a file taken out by hand is recognised. The folder is in "checkpoints" of the run.
    whose = printable(f"step {state.step} of run {folder.absolute().parent.parent.name}")

    def write(name: str, content: bytes) -> None:
        write_synced(folder / name, content)
        files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}

    for stem, named in state.tensors.items():
        tensors[stem] = []
        for number, share in enumerate(_shares(named), 1):
            name = f"{stem}.safetensors" if number == 1 else f"{stem}.{number}.safetensors"
            write(name, save_bytes(share, {CHECKPOINT_KEY: whose}))
            tensors[stem].append(name)
    write(STATE, document)
    manifest = {"schema": SCHEMA, "version": __version__, "step": state.step, "files": files, "tensors": tensors}
    write_synced(folder / MANIFEST, _sealed(manifest))


def _shares(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Copies of `tensors` on the CPU, in tables of about a file's size each; none if there are no tensors."""
    share: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        if share and (size + tensor.nbytes > MAX_FILE or len(share) == MAX_FILE_TENSORS):
            yield share
            share, size = {}, 0
        # A copy, because safetensors refuses tensors that share memory.
        share[name] = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
        size += tensor.nbytes
    if share:
        yield share


def _sealed(manifest: dict[str, Any]) -> bytes:
    """`manifest` with its sha256, in the one spelling that is read."""
    digest = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    return json.dumps({**manifest, "sha256": digest}, indent=1).encode()


def _verified(folder: Path, step: int) -> dict[str, Any]:
    """The manifest of the checkpoint in `folder`; _InvalidError unless its files are complete and unchanged."""
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            raise _InvalidError("it is not a folder")
        manifest, content = _read_json(folder / MANIFEST)
        if manifest.get("schema") != SCHEMA:
            raise _InvalidError(f"{MANIFEST} has schema {manifest.get('schema')!r:.40}, this version reads {SCHEMA}")
        manifest.pop("sha256", None)
        if content != _sealed(manifest):
            raise _InvalidError(f"{MANIFEST} was changed")
        if manifest["step"] != step:
            raise _InvalidError(f"{MANIFEST} is of step {manifest['step']!r:.40}")
        files, names = manifest["files"], _names(folder)
        weights = [*chain(*manifest["tensors"].values())]
        expected = {*files, *weights, MANIFEST, STATE}
        if missing := sorted(expected - names):
            raise _InvalidError(f"{some(missing, 3)} is missing")
        if extra := sorted(names - expected):
            raise _InvalidError(f"{some(extra, 3)} does not belong there")
        for name, facts in files.items():
            _check_file(folder / name, facts["size"], facts["sha256"])
        for name in weights:
            read_header(folder / name)
    except OSError as error:
        raise _InvalidError(f"{Path(error.filename or folder).name}: {error.strerror or error}") from error
    except AdapterError as error:
        raise _InvalidError(str(error)) from error
    except (KeyError, TypeError, AttributeError) as error:
        raise _InvalidError(f"{MANIFEST} is not as sd_lora writes it ({error!r:.80})") from error
    return manifest


def _names(folder: Path) -> set[str]:
    """The files in `folder`, except those that file managers and network disks put there."""
    return {n for n in os.listdir(folder) if not n.startswith(".") and n.lower() not in ("thumbs.db", "desktop.ini")}


def _check_file(path: Path, size: int, digest: str) -> None:
    if (actual := _size(path)) != size:
        raise _InvalidError(f"{path.name} has {actual} bytes instead of {size}")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise _InvalidError(f"{path.name} was changed")


def _size(path: Path) -> int:
    facts = os.lstat(path)
    if not stat.S_ISREG(facts.st_mode):  # a link may lead anywhere, and a pipe never ends
        raise _InvalidError(f"{path.name} is not a regular file")
    return facts.st_size


def _read_json(path: Path) -> tuple[dict[str, Any], bytes]:
    if _size(path) > MAX_JSON:
        raise _InvalidError(f"{path.name} has more than {MAX_JSON // 2**20} MB")
    content = path.read_bytes()
    try:
        table = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _InvalidError(f"{path.name} is not JSON ({error})") from error
    if not isinstance(table, dict):
        raise _InvalidError(f"{path.name} is not a table")
    return table, content


def _load(folder: Path, manifest: dict[str, Any], with_tensors: bool) -> State:
    tensors: dict[str, dict[str, Tensor]] = {}
    try:
        facts = _read_json(folder / STATE)[0]["facts"]
        for stem, names in manifest["tensors"].items() if with_tensors else ():
            # Copied: safetensors returns views of the mapped file, which may be removed.
            tensors[stem] = {key: value.clone() for name in names for key, value in load_file(folder / name).items()}
    except (OSError, SafetensorError, KeyError) as error:
        raise _InvalidError(f"its files cannot be read ({error!r:.80})") from error
    return State(manifest["step"], tensors, facts)
