"""What the page works on: a preview service and folders of runs and datasets; all by id, never by path."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sd_lora.commands.demo import write_pictures
from sd_lora.errors import ConfigError
from sd_lora.preview.job import MixedAdapter
from sd_lora.preview.prompts import plain_name
from sd_lora.runs.state import list_runs, run_status, trained_folder

from .installing import Program

if TYPE_CHECKING:
    from sd_lora.preview.service import PreviewService

#: folders of a run in which no adapters are listed: copies, and what only training reads
_SKIPPED = {"diffusers", "checkpoints", "cache", "samples"}
_DEEPEST = 4


@dataclass(frozen=True)
class Site:
    """The service that draws, and the folders that the page may look into. `work` is a private folder for files
    that are sent to browsers; the janitor cleans it."""

    service: PreviewService
    runs: Path
    data: Path
    work: Path
    #: as `sd-lora train --base` takes it
    base: str = "tiny"
    #: more folders of adapters
    libraries: tuple[Path, ...] = ()
    #: folders of other programs, into which adapters can be copied
    programs: tuple[Program, ...] = ()
    #: the captioning model that drafts captions; empty: none
    captioner: str = ""
    #: other base models that the page can change to, and what does that
    models: tuple[Path, ...] = ()
    restart: Callable[[str], None] | None = None

    @property
    def demo(self) -> Callable[[Path], str] | None:
        """Makes a folder of the demo's pictures and gives their trigger word; None on a base model they do not suit."""
        return write_pictures if self.base == "tiny" else None

    def adapters(self) -> dict[str, Path]:
        """Every adapter file by id, in the order of their names."""
        adapters: dict[str, Path] = {}
        for root in (self.runs, *self.libraries):
            for path in sorted(_adapter_files(root, _DEEPEST)):
                adapters[self.id_of(path)] = path
        return adapters

    def adapter_choices(self) -> list[tuple[str, str]]:
        """Names and ids of all adapters, for a list."""
        return [(self.name_of(path), identity) for identity, path in self.adapters().items()]

    def adapter(self, identity: str) -> Path:
        """The file of an adapter. ConfigError for an unknown id."""
        return _listed(self.adapters(), identity, "adapter")

    def run_folders(self) -> dict[str, Path]:
        """Every run folder by id, the newest first."""
        return {self.id_of(path): path for path in list_runs(self.runs) if path.is_dir()}

    def run(self, identity: str) -> Path:
        """The folder of a run. ConfigError for an unknown id."""
        return _listed(self.run_folders(), identity, "run")

    def datasets(self) -> dict[str, Path]:
        """Every folder of images by id, in the order of their names."""
        if not self.data.is_dir():
            return {}
        folders = [p for p in sorted(self.data.iterdir()) if p.is_dir() and not p.name.startswith(".")]
        return {self.id_of(path): path for path in folders if _inside(path, self.data)}

    def dataset_choices(self) -> list[tuple[str, str]]:
        """Names and ids of all datasets, for a list."""
        return [(path.name, identity) for identity, path in self.datasets().items()]

    def dataset(self, identity: str) -> Path:
        """A folder of images. ConfigError for an unknown id."""
        return _listed(self.datasets(), identity, "dataset")

    def unfinished_runs_on(self, dataset: Path) -> list[str]:
        """The names of runs on a dataset that are running or can be resumed."""
        runs = [run for run in list_runs(self.runs) if trained_folder(run) == dataset]
        return [run.name for run in runs if run_status(run) != "finished"]

    def id_of(self, path: Path) -> str:
        """The id of a file or folder: the same as long as it is not moved."""
        return hashlib.sha256(str(path.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:12]

    def name_of(self, path: Path) -> str:
        """What the page calls an adapter: its path below the folder that is listed, shortened."""
        for root in (self.runs, self.data, *self.libraries):
            if path.is_relative_to(root):
                inner = path.relative_to(root)
                if inner.stem == "adapter" and len(inner.parts) > 1:
                    return str(inner.parent)
                folder = inner.parent
                if folder.name == "adapters" and (path.parent.parent / "config.toml").is_file():  # a run's
                    folder = folder.parent
                return str(folder / inner.stem)
        return path.stem

    def named(self, name: str) -> list[Path]:
        """The adapters that are called `name`: on the page, in prompts, or as files to download."""
        names = [(path, self.name_of(path)) for path in self.adapters().values()]
        exact = [path for path, shown in names if shown == name]
        return exact or [path for path, shown in names if name in (MixedAdapter(path).name, plain_name(shown))]


def _adapter_files(folder: Path, depth: int) -> Iterator[Path]:
    try:
        entries = list(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if depth and entry.name not in _SKIPPED and not entry.is_symlink():
                yield from _adapter_files(entry, depth - 1)
        elif entry.suffix == ".safetensors" and _inside(entry, folder):
            yield entry


def _inside(path: Path, folder: Path) -> bool:
    """Whether `path`, with links followed, is in `folder`."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        return False


def _listed(paths: dict[str, Path], identity: str, what: str) -> Path:
    if identity not in paths:
        raise ConfigError(f"that {what} no longer exists; rescan and choose another")
    return paths[identity]
