"""A config from TOML tables and `section.key=value` overrides: unknown keys, values out of range and settings that
cannot act are collected and raised together, each with the nearest known name."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from sd_lora.config.conflicts import conflicts
from sd_lora.config.old_spellings import OLD_SETTINGS, training_now
from sd_lora.config.schema import SECTIONS, RunConfig
from sd_lora.errors import ConfigError, nearest
from sd_lora.storage.text import read_text

#: what pydantic says of values of another kind, in our words
_PLAINLY = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "should be a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "should be a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "should be true or false"),
}


def parse_config(tables: Sequence[tuple[str, Mapping[str, Any]]], overrides: Sequence[str] = ()) -> RunConfig:
    """Merge `tables` (label, content), later ones winning, then `overrides` (``section.key=value``).

    Raises ConfigError naming every unknown key and unusable value at once.
    """
    merged: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    changes = [_override(text, problems) for text in overrides]
    changed = {key for _, table in changes for key in table.get("training", {})}  # together, whatever their order
    for number, (label, table) in enumerate([*tables, *changes]):
        _give_way(merged.get("training", {}), table.get("training") if number < len(tables) else changed)
        for section, content in table.items():
            if section not in SECTIONS:
                problems.append(f'{label}: unknown section "{section}"; {_suggest_section(section, content)}')
            elif not isinstance(content, Mapping):
                problems.append(f'{label}: "{section}" is a section; write {section}.key=value')
            else:
                merged.setdefault(section, {}).update(_known(label, section, content, problems))
    config = None
    try:
        merged["training"] = training_now(merged.get("training", {}))
        config = _adapter().validate_python(merged)
    except ValidationError as error:
        problems += [_sentence(detail) for detail in error.errors()]
    except ConfigError as error:
        problems.append(str(error))
    if config is not None:
        problems += conflicts(config)
    if problems or config is None:
        raise ConfigError("; ".join(dict.fromkeys(problems)))
    return config


def unjudged(tree: Mapping[str, Mapping[str, Any]]) -> RunConfig:
    """The config of settings that are usable each, whether or not they can act together."""
    return _adapter().validate_python(tree)


def wrong_value(setting: str, value: Any) -> str:
    """Why `value` cannot be that of `setting`, whatever the others are; "" if it can."""
    section, _, key = setting.partition(".")
    if unclear := _unclear(setting, value):
        return unclear
    try:
        _adapter().validate_python({section: {key: value}})
    except ValidationError as error:
        return "; ".join(_sentence(detail) for detail in error.errors())
    return ""


def read_config(path: str | Path) -> RunConfig:
    """The config in a TOML file."""
    return parse_config([(Path(path).name, read_toml(path))])


def read_toml(path: str | Path) -> dict[str, Any]:
    """The content of a TOML file; ConfigError with the likely cause if it is none."""
    from sd_lora.config.other_trainers.causes import cause, refuse_windows_paths

    text = ""
    try:
        text = read_text(path)
        table = tomllib.loads(text, parse_float=_float)
    except FileNotFoundError as error:
        raise ConfigError(f"config file {path} does not exist; name an existing TOML file or a preset") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"config file {path} cannot be read as TOML: {cause(text, error)}") from error
    refuse_windows_paths(path, text)
    return table


@functools.cache
def _adapter() -> TypeAdapter[RunConfig]:
    return TypeAdapter(RunConfig)


def _known(label: str, section: str, content: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """The settings in `content` that exist; what is wrong with the others goes to `problems`."""
    types = {f.name: f.type for f in fields(SECTIONS[section])}
    known = {**types, **OLD_SETTINGS.get(section, {})}
    for key, value in content.items():
        if key not in known:
            problems.append(f'{label}: unknown key "{section}.{key}"; {_suggest(section, key, list(types), value)}')
        elif isinstance(value, bool) and known[key] not in ("bool", "bool | None", "Recompute"):
            problems.append(f"{label}: {section}.{key} cannot be true or false")
        elif unclear := _unclear(f"{section}.{key}", value):
            problems.append(unclear)
    return {key: value for key, value in content.items() if key in known and not _unclear(f"{section}.{key}", value)}


def _give_way(before: dict[str, Any], training: object) -> None:
    """Take from `before` how long to train where a later table says it in the other way."""
    for key, other in (("steps", "epochs"), ("epochs", "steps")):
        if isinstance(training, Mapping | set) and key in training and other not in training:
            before.pop(other, None)


def _override(text: str, problems: list[str]) -> tuple[str, dict[str, Any]]:
    path, equals, value = text.partition("=")
    section, dot, key = path.strip().partition(".")
    if not equals or not dot or not key:
        problems.append(f'"{text}" is not an override; write section.key=value, such as lora.rank=8')
        return text, {}
    return text, {section: {key: override_value(value)}}


def override_value(text: str) -> Any:
    """The value in an override: as in TOML, or else text, so that a word needs no quotes."""
    try:
        return tomllib.loads(f"value = {text}", parse_float=_float)["value"]
    except tomllib.TOMLDecodeError:
        return text


def _float(text: str) -> Any:
    """A number; one such as ``1.000`` as it is written, because for a whole number it may be one thousand."""
    from sd_lora.config.other_trainers.row import in_thousands

    return text if in_thousands(text) else float(text)


def _unclear(setting: str, value: Any) -> str:
    """What is wrong with a whole number that is written such as ``1.000``; "" for all else."""
    from sd_lora.config.other_trainers.table import two_readings

    section, _, key = setting.partition(".")
    hint = get_type_hints(SECTIONS[section]).get(key)
    is_whole = hint is int or (int in get_args(hint) and type(None) in get_args(hint))
    return f"{setting}={both}" if is_whole and (both := two_readings(setting, value)) else ""


def _suggest_section(section: str, content: object) -> str:
    """What an unknown section is here, if another trainer has it; else the nearest name."""
    from sd_lora.config.other_trainers.table import answer

    inside = content.items() if isinstance(content, Mapping) else ()
    answers = [answer(section, content), *(answer(f"{section}.{key}", value) for key, value in inside)]
    return "; ".join(filter(None, answers)) or nearest(section, SECTIONS)


def _suggest(section: str, key: str, known: list[str], value: object) -> str:
    from sd_lora.config.other_trainers.table import answer

    everywhere = {f.name: name for name, kind in SECTIONS.items() for f in fields(kind)}
    if key not in known and key in everywhere:
        return f'did you mean "{everywhere[key]}.{key}"?'
    theirs = answer(f"{section}.{key}", value) or answer(key, value)
    return theirs or nearest(key, known).replace('mean "', f'mean "{section}.')


def _sentence(detail: Any) -> str:
    place = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "string_unicode":
        return f"{place} has bytes that are not text: {detail['input']!r} was given"
    message = _PLAINLY.get(detail["type"]) or str(detail["msg"]).removeprefix("Input ").removeprefix("Value ")
    message = message.replace("True or False", "true or false")
    from sd_lora.config.other_trainers.table import likely

    meant = likely(place, detail["input"])
    hint = f"; did you mean {meant}?" if meant else ""
    return f"{place} {message[:1].lower()}{message[1:]}{_or_else(place)}, but {detail['input']!r} was given{hint}"


def _or_else(place: str) -> str:
    """What a setting that may be absent may be besides: `auto`, if that is another word for it."""
    section, _, key = place.partition(".")
    hint = get_type_hints(SECTIONS[section]).get(key) if section in SECTIONS else None
    if type(None) not in get_args(hint):
        return ""
    try:
        _adapter().validate_python({section: {key: "auto"}})
    except ValidationError:
        return ", or absent"
    return ", or auto"
