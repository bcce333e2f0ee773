"""Runs in processes of their own: started, stopped and resumed. Imports no torch.

A run does not notice when the process that started it ends; `sd_lora.runs.state` shows what became of it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import psutil

from sd_lora.config.schema import RunConfig
from sd_lora.errors import ConfigError, StorageError, printable
from sd_lora.runs.folder import RunFolder
from sd_lora.runs.process import (
    LOCK,
    LOGS,
    Notes,
    Process,
    changing,
    children,
    is_alive,
    is_run_of,
    lock_owner,
    read_record,
    write_record,
)
from sd_lora.runs.stage import VARIABLE
from sd_lora.runs.state import MARK, absolute, glob_of
from sd_lora.storage.atomic import remove, storing, write_atomically


def start_run(config: RunConfig, folder: str | Path, *, most: int = 0) -> int:
    """Train as `config` says in a process of its own, which makes the run folder `folder`; returns its number.

    ConfigError if the folder exists, or if `most` runs beside it (0: no limit) were started and are still running. What
    is wrong with the images or the base model is reported by the process, and shown by `read_run`.
    """
    folder = absolute(folder)
    if not config.data.folder:
        raise ConfigError("data.folder is empty; name a folder of images")
    try:
        text = config.to_toml().encode()
    except UnicodeEncodeError as error:
        raise ConfigError("a text of the config holds an invalid character; write it again") from error
    notes, images = Notes(folder), absolute(config.data.folder)
    with changing:
        if os.path.lexists(folder) or is_alive(folder):
            raise ConfigError(f"run {printable(folder.name)} exists in {folder.parent}; choose another name")
        _make_room(folder, most)
        with storing(notes.log):
            remove(notes.log)
        write_atomically(notes.config, text)
        return _spawn(folder, ["train", f"--preset={notes.config}", f"--out={folder}", "--", str(images)])


def resume_run(folder: str | Path, *, most: int = 0, finish: bool = False) -> int:
    """Resume a run that was stopped or killed, or `finish` it at the step it reached, in a process of its own; returns
    its number. ConfigError as in `start_run`, and if there is nothing to resume."""
    folder = absolute(folder)
    with changing:
        if not (folder / "config.toml").is_file():
            raise ConfigError(f"{printable(str(folder))} is not a run: it has no config.toml; start a new one")
        if lock_owner(folder) or is_alive(folder):
            raise ConfigError(f"run {printable(folder.name)} is already running; stop it first")
        if RunFolder(folder).is_finished:
            raise ConfigError(f"run {printable(folder.name)} is finished; nothing is left to train")
        _make_room(folder, most)
        return _spawn(folder, ["resume", *["--finish"] * finish, "--", str(folder)])


def stop_run(folder: str | Path) -> None:
    """Ask a run to finish its step, save and end; one that has not begun yet just ends. Asking again changes nothing:
    a second signal would end it at once (Windows has no such signal: there a run ends like one that was killed).

    ConfigError if it is not running, or if the process that its lock names may be another.
    """
    folder = absolute(folder)
    with changing:
        notes = Notes(folder)
        owner, record = lock_owner(folder), read_record(notes.record)
        target = owner or record
        if target is None or (owner is None and not is_alive(folder)):
            raise ConfigError(f"run {printable(folder.name)} is not running; there is nothing to stop")
        if not target.is_here:
            raise ConfigError(f"run {printable(folder.name)} runs on {printable(target.host)[:100]}; stop it there")
        if record and record.pid == target.pid and record.stopping:
            return
        process = is_run_of(target, folder, holds_lock=owner is not None)
        if process is None:
            raise ConfigError(
                f"process {target.pid}, which {printable(str(folder / LOCK))} names, may not be this run and was not "
                "stopped; stop it where it was started"
            )
        notes.make_home()
        write_record(notes.record, replace(target, stopping=True))
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)


def _spawn(folder: Path, arguments: Sequence[str]) -> int:
    """Start the command line on `folder`, in a session of its own, so that nothing that ends this process ends it."""
    notes = Notes(folder)
    command = [sys.executable, "-P", "-m", "sd_lora", *arguments]  # -P: this package, not one in the working folder
    write_atomically(notes.stage, b"starting the program")
    first_line = f"{MARK}{printable(shlex.join(arguments))}   ({datetime.now():%Y-%m-%d %H:%M:%S})\n"
    with storing(notes.log):
        output = notes.log.open("ab")
    with output:
        output.write(first_line.encode("utf-8", "replace"))
        output.flush()
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"PYTHONUNBUFFERED": "1", VARIABLE: str(notes.stage)},
            )
        except (OSError, ValueError) as error:
            raise ConfigError(f"the process for {printable(str(folder))} cannot be started: {error}") from error
    children.append(process)
    try:
        write_record(notes.record, Process(process.pid, socket.gethostname(), time.time()))
    except StorageError:
        process.terminate()  # nobody could stop it later
        raise
    return process.pid


def _make_room(folder: Path, most: int) -> None:
    """Make the hidden folder of run `folder`; ConfigError if `most` runs beside it (0: no limit) are running."""
    names = [record.stem for record in glob_of(folder.parent / LOGS, "*.json")] if most else []
    busy = sorted(name for name in names if is_alive(folder.with_name(name)))
    if busy and len(busy) >= most:
        raise ConfigError(
            f"{', '.join(busy)} {'is' if len(busy) == 1 else 'are'} running, and at most {most} may run at once; wait "
            "until one ends, or stop it"
        )
    Notes(folder).make_home()
