"""The shipped presets: TOML files under `configs/`, read and listed without torch."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from sd_lora.config import RunConfig, parse_config, read_toml
from sd_lora.errors import ConfigError, nearest


def preset_names() -> list[str]:
    """Names of the shipped presets, sorted."""
    return sorted(item.name[:-5] for item in files("sd_lora.configs").iterdir() if item.name.endswith(".toml"))


def preset_text(name: str) -> str:
    """The TOML of preset `name`; a ConfigError that suggests the nearest name if there is none."""
    if name not in preset_names():
        raise ConfigError(f'there is no preset "{name}"; {nearest(name, preset_names())}')
    return files("sd_lora.configs").joinpath(f"{name}.toml").read_text("utf-8")


def preset_summary(name: str) -> str:
    """The first comment line of a preset."""
    found = re.match(r"#\s*(.+)", preset_text(name))
    return found[1] if found else ""


def copy_preset(name: str, target: str | Path) -> Path:
    """Write preset `name` to `target` (a file or a folder) to be edited; refuses to overwrite."""
    text, path = preset_text(name), Path(target)
    path = path / f"{name}.toml" if path.is_dir() else path
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{path} exists; name another file") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    return path


def default_preset(base: str) -> str:
    """The preset for a base model when none is named."""
    return "tiny-style" if base == "tiny" else "sd15-style"


def load_config(
    preset: str = "", *overrides: str, options: Mapping[str, Mapping[str, Any]] | None = None
) -> RunConfig:  # fmt: skip
    """A run config from a preset name or a TOML file, then `options` (section → key → value), then
    ``section.key=value`` overrides.

    An empty `preset` takes the one that belongs to the base model.

    >>> load_config("tiny-style", "lora.rank=4", "data.folder=photos").lora.rank
    4
    """
    given = ("options", options or {})
    if not preset:
        preset = default_preset(parse_config([given], overrides).model.base)
    table: dict[str, Any]
    if preset.endswith(".toml"):
        label, table = Path(preset).name, read_toml(preset)
    else:
        label, table = f"preset {preset}", tomllib.loads(preset_text(preset))
    return parse_config([(label, table), given], overrides)
