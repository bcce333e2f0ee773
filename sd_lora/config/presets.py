"""The shipped presets: TOML files under `configs/`, read and listed without torch."""

from __future__ import annotations

import itertools
import re
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sd_lora.config.old_spellings import OLD_PRESETS, preset_now
from sd_lora.config.reading import override_value, parse_config, read_toml, wrong_value
from sd_lora.config.schema import SECTIONS, RunConfig, toml_value
from sd_lora.errors import ConfigError, nearest

#: endings of config files; those of ours are TOML
SUFFIXES = (".toml", ".json", ".yaml", ".yml")


def preset_names() -> list[str]:
    """Names of the shipped presets, sorted."""
    return sorted(item.name[:-5] for item in files("sd_lora.configs").iterdir() if item.name.endswith(".toml"))


def preset_text(name: str) -> str:
    """The TOML of preset `name`; a ConfigError that suggests the nearest name if there is none."""
    name = preset_now(name)
    if name not in preset_names():
        raise ConfigError(f'there is no preset "{name}"; {nearest(name, preset_names())}')
    return files("sd_lora.configs").joinpath(f"{name}.toml").read_text("utf-8")


def preset_summary(name: str) -> str:
    """The first comment line of a preset."""
    comment = re.match(r"#\s*(.+)", preset_text(name))
    return comment[1] if comment else ""


def all_settings(name: str, comments: Mapping[str, str]) -> str:
    """Every setting of preset `name` as TOML, each under its comment (by ``section.key``) and its choices; settings
    without a value are commented out."""
    config, lines = load_config(name), [f"# {preset_summary(name)}"]
    for section, kind in SECTIONS.items():
        values, hints = getattr(config, section), get_type_hints(kind)
        lines += ["", *_commented(comments.get(section, "")), f"[{section}]"]
        for key in (field.name for field in fields(kind)):
            choices = ", ".join(get_args(hints[key])) if get_origin(hints[key]) is Literal else ""
            lines += _commented(comments.get(f"{section}.{key}", "")) + _commented(choices and f"one of {choices}")
            value = getattr(values, key)
            lines.append(f"# {key} =" if value is None else f"{key} = {toml_value(value)}")
    return "\n".join(lines) + "\n"


def _commented(text: str) -> list[str]:
    return textwrap.wrap(text, 118, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def settings_named(key: str) -> list[str]:
    """The settings, as ``section.key``, that `key`, with or without its section, may mean."""
    known = [f"{section}.{field.name}" for section, kind in SECTIONS.items() for field in fields(kind)]
    return [name for name in known if key.strip() in (name, name.partition(".")[2])]


def suggested_setting(key: str, value: str) -> str:
    """``did you mean "training.steps=20"?`` for ``steps`` and ``20``, or what another trainer's setting is here; "" if
    no setting has that name. An empty `value`, or ``…``, is one that was not given."""
    from sd_lora.config.other_trainers.table import answer, likely

    name, named = key.strip(), settings_named(key)
    theirs = answer(name, value.strip("\"' "))
    if not named:
        return theirs
    given = {setting: likely(setting, value) or value for setting in named}
    if value in ("", "…"):
        given = {setting: "true" if is_switch(setting) else value for setting in named}
        wrong = []
    else:
        wrong = [why for setting, text in given.items() if (why := wrong_value(setting, override_value(text)))]
    if len(wrong) == len(named):
        more = [theirs] if theirs and not any(setting in theirs for setting in named) else []
        return "; ".join([f"here it is {' or '.join(named)}", *wrong, *more])
    meant = " or ".join(f'"{setting}={text}"' for setting, text in given.items())
    return f"did you mean {meant}?"


def is_switch(name: str) -> bool:
    """Whether `name`, a setting of ours or of another trainer, is on or off."""
    from sd_lora.config.other_trainers.table import is_switch

    section, _, key = name.partition(".")
    hints = get_type_hints(SECTIONS[section]) if section in SECTIONS else {}
    hint = hints.get(key)
    return hint is bool or bool in get_args(hint) or is_switch(name)


def suggested_option(option: str, words: Sequence[str]) -> str:
    """What is wrong with a setting that is written like an option, ``--steps 20``, among the `words` of a command; ""
    if no setting has that name."""
    from sd_lora.config.other_trainers.row import is_flag

    name = option.lstrip("-").replace("-", "_")
    values = [word.partition("=")[2] for word in words if word.startswith(f"{option}=")]
    if not values and option in words:
        after = itertools.takewhile(lambda word: not word.startswith("--"), words[words.index(option) + 1 :])
        values = list(itertools.islice(after, 1))
        more = itertools.takewhile(lambda word: "=" in word and not settings_named(word.partition("=")[0]), after)
        values = [" ".join([*values, *more])] if "=" in "".join(values) else values
        switches = all(is_switch(setting) for setting in settings_named(name) or [name])
        values = [] if switches and values and not is_flag(values[0]) else values  # the next word is not its value
    suggestion = suggested_setting(name, *values[:1] or ["…"])
    return suggestion and f"no such option: {option}; {suggestion}"


def copy_preset(name: str, target: str | Path) -> Path:
    """Write preset `name` to `target` (a file or a folder) to be edited; refuses to overwrite."""
    text, path = preset_text(name), Path(target)
    path = path / f"{OLD_PRESETS.get(name, name)}.toml" if path.is_dir() else path
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
    return "tiny-style" if base == "tiny" else "style"


def preset_misfit(name: str, base: str, suiting: Sequence[str] = ()) -> str:
    """Why preset `name` is not for the base model `base`, as a sentence; "" if it is, or nothing shows that it is not.

    `suiting`: the presets for the base model's family, the usual one first, if that is known.
    """
    meant = tomllib.loads(preset_text(name)).get("model", {}).get("base", "")
    advice = f"use {suiting[0] if suiting else default_preset(base)}, or leave the preset out"
    if base != meant and "tiny" in (base, meant):
        which = f'the base model "{meant}"' if meant else "Stable Diffusion models"
        return f'preset "{name}" is for {which}, but "{base}" was given; {advice}'
    if suiting and name not in suiting:
        return f'preset "{name}" is for another family of models than the base model "{base}"; {advice}'
    return ""


def load_config(preset: str = "", *overrides: str, options: Mapping[str, Mapping[str, Any]] | None = None) -> RunConfig:
    """A run config from a preset name or a TOML file, then `options` (section → key → value), then
    ``section.key=value`` overrides.

    An empty `preset` means the one that belongs to the base model.

    >>> load_config("tiny-style", "lora.rank=4", "data.folder=photos").lora.rank
    4
    """
    _refuse_bare(overrides)
    given = ("options", options or {})
    if not preset:
        preset = default_preset(parse_config([given], overrides).model.base)
    table: dict[str, Any]
    if preset.lower().endswith(SUFFIXES):
        label, table = Path(preset).name, _own_config(preset)
    else:
        label, table = f"preset {preset}", tomllib.loads(preset_text(preset))
    return parse_config([(label, table), given], overrides)


def _own_config(path: str) -> dict[str, Any]:
    """The content of a config file of ours. ConfigError for one of another trainer, or a dataset file."""
    from sd_lora.config.other_trainers.files import read_any, refuse

    table = read_toml(path) if path.lower().endswith(".toml") else read_any(path)
    refuse(path, table)
    return table


def _refuse_bare(overrides: Sequence[str]) -> None:
    """ConfigError for overrides such as ``steps=20``, which lack their section."""
    pairs = [text.partition("=") for text in overrides]
    wrong = [
        f'"{key}{equals}{value}" is not an override; {suggestion}'
        for key, equals, value in pairs
        if "." not in key and (suggestion := suggested_setting(key, value))
    ]
    if wrong:
        raise ConfigError("; ".join(wrong))
