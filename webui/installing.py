"""Adapters copied into the folders of other programs on this machine."""

from __future__ import annotations

import filecmp
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sd_lora.errors import ConfigError

#: program → what its folder contains, and where its LoRAs are in it; of A1111 and Forge both are the same
_PROGRAMS = {"ComfyUI": ("comfy", Path("models", "loras")), "A1111": ("webui.py", Path("models", "Lora"))}


@dataclass(frozen=True)
class Program:
    """Another program: what it is called, and the folder in which it looks for LoRAs."""

    name: str
    folder: Path


def program_at(folder: Path) -> Program:
    """The program in `folder`, or the one whose folder of LoRAs it is. ConfigError if it is not a folder."""
    folder = folder.expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; --install-to takes the folder of A1111, Forge or ComfyUI")
    for name, (mark, inner) in _PROGRAMS.items():
        if (folder / mark).exists() or (folder / inner).is_dir():
            (folder / inner).mkdir(parents=True, exist_ok=True)
            return Program(name, folder / inner)
        if folder.parts[-len(inner.parts) :] == inner.parts:
            return Program(name, folder)
    return Program(folder.name, folder)


def install(files: Sequence[Path], program: Program) -> str:
    """Copy `files` to `program`; what was done, in a sentence. A file of other content is never replaced.

    Raises ConfigError if there is one, or the folder cannot be written.
    """
    places = {file: program.folder / file.name for file in files}
    try:
        missing = [file for file, place in places.items() if not place.exists()]
        same = [file for file in files if file not in missing and filecmp.cmp(file, places[file], shallow=False)]
        if other := [places[file].name for file in files if file not in (*missing, *same)]:
            raise ConfigError(
                f"{program.name} has {', '.join(other)} with other content; rename or remove it there, then copy again"
            )
        with tempfile.TemporaryDirectory(prefix=".sd-lora-", dir=program.folder) as unfinished:
            for file in missing:
                shutil.copyfile(file, Path(unfinished) / file.name).replace(places[file])
    except OSError as error:
        raise ConfigError(f"nothing could be copied to {program.name}: {error.strerror or error}; check it") from error
    if not missing:
        return f"{program.name} has {files[0].stem} already"
    return f"{', '.join(file.name for file in missing)} copied to {program.name}; refresh the list of LoRAs there"
