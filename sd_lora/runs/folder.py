"""The run folder: config, log, loss curve, sample grids and adapters, each written as soon as there is one."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from sd_lora.config.reading import read_config
from sd_lora.config.schema import RunConfig
from sd_lora.errors import AdapterError, ConfigError, StorageError
from sd_lora.runs.reports import StepReport, ValidationReport
from sd_lora.storage.atomic import remove, storing, write_atomically
from sd_lora.storage.safetensors_header import read_header

Report = TypeVar("Report")


class RunFolder:
    """Holds ``config.toml``, ``log.jsonl``, ``loss.png``, ``samples/``, ``checkpoints/``, ``adapters/``,
    ``adapter.safetensors`` with its sidecars, and ``diffusers/``, the same adapter for a hub; ``validation.jsonl`` and
    ``validation.png`` if the validation loss is measured; ``init.safetensors``, a copy of the adapter it began with;
    ``selection.json``, ``report.html`` and ``adapter-last.safetensors`` where a checkpoint and strength were chosen.

    A run that was stopped has ``adapter.safetensors`` of its last step, without sidecars and export."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.adapter, self.export = path / "adapter.safetensors", path / "diffusers"
        self._card = self.export / "README.md"
        self.checkpoints = path / "checkpoints"
        self.config, self.log, self.loss_curve = path / "config.toml", path / "log.jsonl", path / "loss.png"
        #: the last step's adapter, where another checkpoint or strength was chosen for ``adapter.safetensors``
        self.unselected = path / "adapter-last.safetensors"
        self.selection, self.report = path / "selection.json", path / "report.html"
        self._init, self._validation_log = path / "init.safetensors", path / "validation.jsonl"
        self._reports: list[StepReport] = []
        self._validations: list[ValidationReport] = []

    @staticmethod
    def check_free(path: Path) -> None:
        """ConfigError if `path` exists already or cannot be made."""
        try:
            taken = path.exists() or path.is_symlink()
        except OSError as error:
            raise ConfigError(f"output folder {path} cannot be made: {error.strerror}") from error
        if taken:
            again = f'resume it with "sd-lora resume {path}", ' if (path / "config.toml").is_file() else ""
            raise ConfigError(f"output folder {path} exists; {again}name a new one with --out, or remove it")
        parent = next(p for p in path.absolute().parents if p.exists())
        if not parent.is_dir():
            raise ConfigError(
                f"output folder {path} cannot be made because {parent} is a file; name another with --out"
            )

    def create(self, config: RunConfig) -> None:
        """Make the folder with ``config.toml`` in it, and a copy of the adapter that it begins with.

        ConfigError if it exists, StorageError if it cannot be made."""
        self.check_free(self.path)
        init = _content(Path(config.lora.init)) if config.lora.init else None
        with storing(self.path):
            (self.path / "samples").mkdir(parents=True)
        if init is not None:
            write_atomically(self._init, init)
        write_atomically(self.config, config.to_toml().encode())

    @property
    def is_finished(self) -> bool:
        """Whether the run is finished, with a complete adapter: the export's card is the last thing that is written,
        and a run that is only stopped writes none."""
        with contextlib.suppress(AdapterError):
            return bool(read_header(self.adapter)) and self._card.is_file()
        return False

    @property
    def reached(self) -> int | None:
        """The step of ``adapter.safetensors``; None if there is none, or it does not say."""
        with contextlib.suppress(AdapterError, ValueError):
            return int(read_header(self.last)[1].get("sdlora.steps", ""))
        return None

    @property
    def last(self) -> Path:
        """The adapter of the last step."""
        return self.unselected if self.unselected.is_file() else self.adapter

    def kept(self) -> dict[int, Path]:
        """The adapters of the run by their steps, the last included."""
        adapters = {
            int(file.stem.removeprefix("step-")): file
            for file in (self.path / "adapters").glob("step-*.safetensors")
            if file.stem.removeprefix("step-").isdecimal()
        }
        return adapters | ({reached: self.last} if (reached := self.reached) is not None else {})

    def reopen(self) -> None:
        """Let a run that was finished before its last step be resumed, with the adapter of the step it reached."""
        with storing(self._card):
            remove(self._card)
            self.take_back()

    def take_back(self) -> None:
        """Make the last step's adapter the run's again, where another was chosen."""
        if self.unselected.is_file():
            self.unselected.replace(self.adapter)
        remove(self.selection)
        remove(self.report)

    @property
    def kept_init(self) -> Path | None:
        """The copy of the adapter that the run began with, if there is one."""
        return self._init if self._init.is_file() else None

    def read_config(self) -> RunConfig:
        """The config of the run in this folder, wherever that is now. ConfigError if there is none."""
        if not self.config.is_file():
            raise ConfigError(f"{self.path} is not a run: it has no config.toml; name the folder that --out made")
        config = read_config(self.config)
        return replace(config, output=replace(config.output, folder=str(self.path)))

    def rewind(self, step: int) -> None:
        """Forget the log of the steps after `step`, which are about to be trained again."""
        self._reports = [report for report in read_reports(self.log, StepReport) if report.step <= step]
        write_atomically(self.log, "".join(map(_line, self._reports)).encode())
        self._validations = [r for r in read_reports(self._validation_log, ValidationReport) if r.step <= step]

    def sync(self) -> None:
        """Make sure that the log is on disk before the checkpoint of its last step is."""
        with storing(self.log), contextlib.suppress(FileNotFoundError), self.log.open("rb") as file:
            os.fsync(file.fileno())

    def sample_sheet(self, step: int) -> Path:
        return self.path / "samples" / f"step-{step:06d}.png"

    def kept_adapter(self, step: int) -> Path:
        path = self.path / "adapters" / f"step-{step:06d}.safetensors"
        with storing(path):
            path.parent.mkdir(exist_ok=True)
        return path

    def record(self, report: StepReport) -> None:
        """Append one line to the log."""
        self._reports.append(report)
        try:
            with storing(self.log), self.log.open("a", encoding="utf-8") as file:
                file.write(_line(report))
        except StorageError as error:
            again = f", then: sd-lora resume {self.path}" if self.path.is_dir() else ""
            raise StorageError(f"{error}{again}") from error

    def record_validation(self, report: ValidationReport) -> None:
        """Write ``validation.jsonl`` and draw ``validation.png``."""
        from sd_lora.runs.curves import draw_validation

        self._validations = [r for r in self._validations if r.step < report.step] + [report]
        write_atomically(self._validation_log, "".join(map(_line, self._validations)).encode())
        draw_validation(self._validations, self.path / "validation.png")

    def draw_loss(self) -> None:
        """Write ``loss.png``."""
        from sd_lora.runs.curves import draw

        draw(self._reports, self.loss_curve)


def read_reports(path: Path, kind: type[Report]) -> list[Report]:
    """The reports in a file of lines; none if there is no such file. Lines that are not a complete report are left
    out."""
    reports, reader = [], TypeAdapter(kind)
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}; allow it, or move it away") from error
    for line in lines:
        with contextlib.suppress(ValueError):
            reports.append(reader.validate_json(line, strict=True))
    return reports


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror}; name an adapter file") from error


def _line(report: StepReport | ValidationReport) -> str:
    return json.dumps(asdict(report)) + "\n"
