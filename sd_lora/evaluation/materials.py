"""Where the pictures come from that adapters are measured against: folders, and the run that an adapter is from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from PIL import Image

from sd_lora.config.reading import read_config
from sd_lora.config.schema import DataConfig
from sd_lora.data.dialects.prompts import prompts_in
from sd_lora.data.folders.entries import Entry
from sd_lora.data.folders.listing import list_folder
from sd_lora.data.pictures.decode import read_picture
from sd_lora.data.planning import hold_out
from sd_lora.errors import ConfigError, SdLoraError, shown
from sd_lora.evaluation.energy import LEAST_REFERENCES

#: more pictures of a folder add nothing to a score but time
_MOST = 64


@dataclass(frozen=True)
class Trained:
    """The pictures and captions that a run was trained on, and those that it held out."""

    pictures: tuple[Image.Image, ...]
    captions: tuple[str, ...]
    held: tuple[Image.Image, ...]


def pictures_in(folder: str | Path, setting: str) -> list[Image.Image]:
    """The pictures in `folder`, which the option `setting` names, of any layout; DataError if one cannot be read."""
    entries = [e for e in list_folder(DataConfig(folder=str(folder))).entries if not e.prior]
    if not entries:
        raise ConfigError(f"{setting} {shown(str(folder))} holds no pictures")
    return _opened(entries)


def bank_in(folder: str | Path) -> dict[str, list[Image.Image]]:
    """Pictures of several styles: the folders in `folder`, each with at least `LEAST_REFERENCES` of one style."""
    try:
        styles = sorted(path for path in Path(folder).iterdir() if path.is_dir())
    except OSError as error:
        raise ConfigError(f"--bank {shown(str(folder))} cannot be read: {error.strerror}") from error
    bank = {path.name: pictures_in(path, "--bank") for path in styles}
    few = [name for name, pictures in bank.items() if len(pictures) < LEAST_REFERENCES]
    if few or not bank:
        what = f"too few pictures in {', '.join(few)}" if few else "no folders"
        raise ConfigError(
            f"--bank {shown(str(folder))} has {what}; it needs a folder for each style, each with "
            f"{LEAST_REFERENCES} pictures or more"
        )
    return bank


def trained_by(adapter: Path) -> Trained | None:
    """What the run in whose folder `adapter` is was trained on; None if it is in none, or its images are gone."""
    folder = run_folder(adapter)
    if folder is None:
        return None
    try:
        config = read_config(folder / "config.toml")
        entries = [entry for entry in list_folder(config.data).entries if not entry.prior]
        # entries have what examples are divided by
        rest, held = hold_out(cast(Any, entries), config.training.hold_out, config.training.seed)
        captions = dict.fromkeys(caption for entry in entries for caption in entry.captions if caption)
        return Trained(tuple(_opened(cast(Any, rest))), tuple(captions), tuple(_opened(cast(Any, held))))
    except SdLoraError:
        return None


def run_folder(adapter: Path) -> Path | None:
    """The folder of the run that `adapter`, a file or the folder itself, is in; None if it is in none."""
    places = (adapter.absolute(), *adapter.absolute().parents[:2])
    return next((folder for folder in places if (folder / "config.toml").is_file()), None)


def content_prompts(file: str) -> list[str]:
    """The prompts of `file`, without their options. ConfigError for a file without any."""
    return list(dict.fromkeys(prompt.text for prompt in prompts_in(file)))


def _opened(entries: Sequence[Entry]) -> list[Image.Image]:
    step = max(1, len(entries) // _MOST)
    return [read_picture(entry.file).image for entry in entries[::step][:_MOST]]
