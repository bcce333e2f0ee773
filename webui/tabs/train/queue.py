"""Runs that wait for others to end: files beside the runs, so that a page that is started again finds them."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

from sd_lora.config.reading import read_config
from sd_lora.config.schema import RunConfig
from sd_lora.errors import ConfigError, SdLoraError
from sd_lora.runs.control import start_run
from sd_lora.runs.state import list_runs, run_status
from sd_lora.storage.atomic import remove, storing, write_atomically

#: runs that are trained at once, and seconds between two looks at whether another can start
AT_ONCE, _EVERY = 1, 2.0


class RunQueue:
    """The runs in the folder `runs` that wait, the first that was added first."""

    def __init__(self, runs: Path) -> None:
        self.runs, self._home = runs, runs / ".queue"
        #: why runs could not be started when it was their turn, by name
        self.refused: dict[str, str] = {}
        self._changing = threading.Lock()

    def start(self) -> None:
        """From now on start runs whenever none is active, in a thread of its own."""
        threading.Thread(target=self._work, name="queue", daemon=True).start()

    def add(self, config: RunConfig, folder: Path) -> str:
        """Start a run now, or when those before it have ended; returns what to say. Raises SdLoraError."""
        with self._changing:
            ahead = len(self._active()) + len(self.waiting())
            if ahead < AT_ONCE:
                start_run(config, folder)
                return f"{folder.name} has started; it continues if this page is closed"
            if os.path.lexists(folder) or folder.name in self.waiting():
                raise ConfigError(f'"{folder.name}" exists already; choose another name')
            with storing(self._home):
                self._home.mkdir(parents=True, exist_ok=True)
            write_atomically(self._home / f"{time.time_ns():020d}-{folder.name}.toml", config.to_toml().encode())
        return f"{folder.name} starts when {'the run' if ahead == 1 else f'{ahead} runs'} before it ended"

    def waiting(self) -> list[str]:
        """The names of the runs that wait, in their order."""
        return [path.stem.partition("-")[2] for path in self._files()]

    def drop(self, name: str) -> bool:
        """Take a run out of the queue; whether it was there."""
        with self._changing:
            found = [path for path in self._files() if path.stem.partition("-")[2] == name]
            for path in found:
                remove(path)
        return bool(found)

    def advance(self) -> None:
        """Start the next run if none is active."""
        with self._changing:
            files = self._files()
            if not files or len(self._active()) >= AT_ONCE:
                return
            name = files[0].stem.partition("-")[2]
            try:
                start_run(read_config(files[0]), self.runs / name)
            except SdLoraError as error:  # its name is taken by now, or its file was changed
                self.refused[name] = str(error)
            remove(files[0])

    def _work(self) -> None:
        while True:
            with contextlib.suppress(OSError, SdLoraError):
                self.advance()
            time.sleep(_EVERY)

    def _files(self) -> list[Path]:
        return sorted(self._home.glob("*.toml"))

    def _active(self) -> list[str]:
        return [path.name for path in list_runs(self.runs) if run_status(path) in ("running", "starting")]
