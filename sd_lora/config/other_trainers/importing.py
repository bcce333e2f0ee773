"""A config of another trainer as ours: TOML in which each setting says where it comes from, and a line for each thing
that has no like here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sd_lora.config.conflicts import conflicts
from sd_lora.config.other_trainers.files import Flat, flat
from sd_lora.config.other_trainers.row import Made, Row
from sd_lora.config.reading import parse_config, unjudged, wrong_value
from sd_lora.config.schema import SECTIONS, RunConfig, toml_value
from sd_lora.errors import ConfigError, printable

#: what belongs to no computer but the one it was written on
_SECRET = ("_token", "api_key")
#: letters of a value that is repeated
_LONGEST = 1_000
_SETTING = rf"(?:{'|'.join(SECTIONS)})\.[a-z_0-9]+"
#: setting → others, without which its default counts
_INSTEAD = {
    "max_train_steps": ("max_train_epochs", "epoch"), "optimizer_type": ("use_8bit_adam", "use_lion_optimizer"),
    "lr_warmup_steps": ("lr_warmup",), "network.alpha": ("network.linear_alpha",),
    "caption_extension": ("LoRA_type", "dataset_config"),
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


def import_file(path: str | Path, judge: Callable[[RunConfig], list[str]] = conflicts) -> Imported:
    """What the config of another trainer in `path` is here. ConfigError if it is none, or cannot be trained here.

    `judge` says which settings cannot act, a sentence each; they are left out, with its reason.
    """
    read = flat(path)
    made = Imported(read.trainer.title, printable(Path(path).name))
    defaults = {name: value for name, value in read.trainer.defaults.items() if not _has(read, name)}
    given = {**defaults, **read.given}
    try:
        _fill(made, read, defaults, given)
    except ConfigError as error:
        raise ConfigError(f"{path} is not imported: {error}") from error
    _settle(made, judge)
    _checked(made, path)
    return made


def _fill(made: Imported, read: Flat, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Take over what is given, and then the defaults of what is not."""
    for name, value in read.given.items():
        _take(made, read, name, value, given)
    for name, why in read.more.items():
        made.not_here.append((printable(name), "…", why))
    for name, value in defaults.items():
        row = read.trainer.row(name)
        settings, note = _settings_of(row, value, given) if row else ({}, "")
        source = f"{_shown(name, value)}, {read.trainer.whose} default"
        for setting, read_value in settings.items():
            if setting not in made.settings:
                made.settings[setting] = read_value
                made.sources[setting] = [f"{name} = {source}"]
        if row and note and not settings and not row.becomes.keys() & made.settings.keys():
            made.not_here.append((name, source, note))


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
    settings, note = _settings_of(row, value, given)
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


def _settings_of(row: Row, value: Any, given: Mapping[str, Any]) -> tuple[Made, str]:
    """What a row makes of `value`. ConfigError if no part of the model is trained."""
    settings, note = row.read(value, given)
    if settings.get("lora.targets") == []:
        raise ConfigError(
            "neither the UNet nor a text encoder is trained, as rates of 0 or switches leave both out; give one a rate "
            "above 0, or switch it on"
        )
    return settings, note


def _settle(made: Imported, judge: Callable[[RunConfig], list[str]]) -> None:
    """Leave out, with the reason, what cannot act beside the other settings."""
    for _ in range(len(made.settings)):
        for sentence in judge(unjudged(_tree(made.settings))):
            remedy = re.findall(rf"leave ({_SETTING})", sentence)  # which the first setting of a sentence is elsewhere
            named = [setting for setting in remedy + re.findall(_SETTING, sentence) if setting in made.settings]
            if named:
                break
        else:
            return
        del made.settings[named[0]]
        for source in made.sources.pop(named[0]):
            name, _, value = source.partition(" = ")
            made.not_here.append((name, value, sentence.partition("; ")[0]))


def _tree(settings: Made) -> dict[str, dict[str, Any]]:
    tree: dict[str, dict[str, Any]] = {}
    for setting, value in settings.items():
        section, _, key = setting.partition(".")
        tree.setdefault(section, {})[key] = value
    return tree


def _checked(made: Imported, path: str | Path) -> None:
    """ConfigError if the settings, each usable alone, cannot act together."""
    try:
        parse_config([(made.file, _tree(made.settings))])
    except ConfigError as error:
        raise ConfigError(f"{path} becomes settings that cannot act together: {error}") from error


def _shown(name: str, value: Any) -> str:
    """A value on one line, cut if it is very long; a secret is not repeated."""
    if name.endswith(_SECRET) and value and isinstance(value, str):
        return "(not repeated)"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return printable(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
