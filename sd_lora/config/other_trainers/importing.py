"""A config of another trainer as ours: TOML in which each setting says where it comes from, and a line for each thing
that has no like here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sd_lora.config.other_trainers.files import Flat, flat
from sd_lora.config.other_trainers.row import Made
from sd_lora.config.reading import parse_config, wrong_value
from sd_lora.config.schema import SECTIONS, toml_value
from sd_lora.errors import ConfigError, printable

#: what belongs to no computer but the one it was written on
_SECRET = ("_token", "api_key")
#: setting → others, without which its default counts
_INSTEAD = {
    "max_train_steps": ("max_train_epochs", "epoch"), "optimizer_type": ("use_8bit_adam", "use_lion_optimizer"),
    "lr_warmup_steps": ("lr_warmup",), "network.alpha": ("network.linear_alpha",),
}  # fmt: skip


@dataclass
class Imported:
    """What a file of `trainer` is here: settings (``section.key`` → value) with their `sources`, what is `not_here`
    (name, value, why), and names that are `unknown` (name, value)."""

    trainer: str
    file: str
    settings: Made = field(default_factory=dict)
    sources: dict[str, list[str]] = field(default_factory=dict)
    not_here: list[tuple[str, str, str]] = field(default_factory=list)
    unknown: list[tuple[str, str]] = field(default_factory=list)

    def to_toml(self) -> str:
        """As TOML, which `load_config` reads."""
        lines = [f"# from {self.file}, a config of {self.trainer}, by sd-lora import-config"]
        if self.not_here:
            lines += ["#", "# not in the settings below:"]
            lines += [f"#   {name} = {value}: {printable(why)}" for name, value, why in self.not_here]
        if self.unknown:
            lines += ["#", f"# not known as settings of {self.trainer}:"]
            lines += [f"#   {name} = {value}" for name, value in self.unknown]
        for section, kind in SECTIONS.items():
            keys = [key for key in kind.__dataclass_fields__ if f"{section}.{key}" in self.settings]  # type: ignore[attr-defined]
            lines += ["", f"[{section}]"] * bool(keys)
            for key in keys:
                lines += [f"# {printable(source)}" for source in self.sources[f"{section}.{key}"]]
                lines.append(f"{key} = {toml_value(self.settings[f'{section}.{key}'])}")
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        return {
            "trainer": self.trainer,
            "settings": self.settings,
            "sources": self.sources,
            "not_here": [{"name": name, "value": value, "why": why} for name, value, why in self.not_here],
            "unknown": [{"name": name, "value": value} for name, value in self.unknown],
            "toml": self.to_toml(),
        }


def import_file(path: str | Path) -> Imported:
    """What the config of another trainer in `path` is here. ConfigError if it is none, or cannot be trained here."""
    read = flat(path)
    made = Imported(read.trainer.title, printable(Path(path).name))
    defaults = {name: value for name, value in read.trainer.defaults.items() if not _has(read, name)}
    given = {**defaults, **read.given}
    for name, value in read.given.items():
        _take(made, read, name, value, given)
    for name, why in read.more.items():
        made.not_here.append((printable(name), "…", why))
    for name, value in defaults.items():
        row = read.trainer.row(name)
        settings, note = row.read(value, given) if row else ({}, "")
        source = f"{_shown(name, value)}, {read.trainer.whose} default"
        for setting, read_value in settings.items():
            if setting not in made.settings:
                made.settings[setting] = read_value
                made.sources[setting] = [f"{name} = {source}"]
        if row and note and not settings and not row.becomes.keys() & made.settings.keys():
            made.not_here.append((name, source, note))
    _checked(made, path)
    return made


def _has(read: Flat, name: str) -> bool:
    """Whether a file says anything on the setting `name`, perhaps by another name of the same row."""
    row = read.trainer.row(name)
    names = row.names if row else (name,)
    return any(read.given.get(known) not in (None, "") for known in (*names, *_INSTEAD.get(name, ())))


def _take(made: Imported, read: Flat, name: str, value: Any, given: Mapping[str, Any]) -> None:
    row, shown = read.trainer.row(name), _shown(name, value)
    if row is None:
        made.unknown.append((printable(name), shown))
        return
    settings, note = row.read(value, given)
    for setting, read_value in settings.items():
        wrong = wrong_value(setting, read_value)
        if not wrong and made.settings.get(setting, read_value) != read_value:
            wrong = f"{setting} is {made.settings[setting]}, from {made.sources[setting][0]}"
        if wrong:
            made.not_here.append((printable(name), shown, wrong))
            continue
        made.settings[setting] = read_value
        made.sources.setdefault(setting, []).append(f"{name} = {shown}{f' ({note})' if note else ''}")
    if not settings:
        made.not_here.append((printable(name), shown, note or "off, as it is here"))


def _checked(made: Imported, path: str | Path) -> None:
    """ConfigError if the settings, each usable alone, cannot act together."""
    table: dict[str, dict[str, Any]] = {}
    for setting, value in made.settings.items():
        section, _, key = setting.partition(".")
        table.setdefault(section, {})[key] = value
    try:
        parse_config([(made.file, table)])
    except ConfigError as error:
        raise ConfigError(f"{path} becomes settings that cannot act together: {error}") from error


def _shown(name: str, value: Any) -> str:
    """A value on one line; a secret is not repeated."""
    if name.endswith(_SECRET) and value and isinstance(value, str):
        return "(not repeated)"
    return printable(json.dumps(value, ensure_ascii=False, default=str))
