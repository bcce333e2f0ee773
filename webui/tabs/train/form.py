"""The form of a run, built from the typed config: a field for every setting, and from the fields back to a config."""

from __future__ import annotations

import math
import os
import re
import tomllib
import typing
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

import gradio as gr

from sd_lora.config.help import setting_help
from sd_lora.config.reading import unjudged
from sd_lora.config.schema import RunConfig
from sd_lora.errors import ConfigError

from ...site import Site
from ..dataset.upload import is_device
from . import sources
from .queue import RunQueue

#: the settings at the top; all others are under More settings
ESSENTIALS = (("data", "trigger"),)
#: what the page sets itself: the dataset, the run's name, and the base model that it was opened on
SET_BY_PAGE = {
    ("data", "folder"), ("output", "folder"), ("model", "base"), ("model", "revision"), ("model", "config"),
    ("model", "vae"),
}  # fmt: skip
_BY_ID: dict[tuple[str, str], Literal["dataset", "adapter", "cache"]] = {
    ("data", "regularisation"): "dataset", ("lora", "init"): "adapter", ("data", "cache"): "cache",
}  # fmt: skip
_SHARED_CACHE = ".cache"
#: settings whose field is named without its section
_SHORT = {
    ("data", "trigger"), ("training", "steps"), ("lora", "rank"), ("optimizer", "learning_rate"),
    ("training", "batch_size"), ("preview", "every"),
}  # fmt: skip
_NAME = r"[^\W_][\w .-]{0,59}"
_ANSWERS = {"absent": None, "yes": True, "no": False, "ff": "ff"}
_LABELS = {("preview", "every"): "Sample every", ("data", "trigger"): "Trigger word"}
#: settings that presets decide, in whose help a rule of thumb would contradict them
_BY_PRESET = {("optimizer", "learning_rate")}

Kind = Literal[
    "choice", "switch", "answer", "whole", "number", "list", "lines", "table", "text", "dataset", "adapter", "cache"
]


@dataclass(frozen=True)
class Setting:
    """A setting of the config, the `kind` of its field, and whether it can be `absent`."""

    section: str
    key: str
    kind: Kind
    default: Any
    choices: tuple[str, ...] = ()
    absent: bool = False

    @property
    def place(self) -> tuple[str, str]:
        return self.section, self.key

    @property
    def by_id(self) -> bool:
        """Whether it is chosen from datasets or adapters on this machine."""
        return self.kind in ("dataset", "adapter")

    @property
    def help(self) -> str:
        """The help under its field."""
        text = setting_help().get(f"{self.section}.{self.key}", "")
        text = text.partition("; rule of thumb")[0] if self.place in _BY_PRESET else text
        return text if self.kind == "answer" else text.replace("absent:", "left empty:")

    def help_with(self, config: RunConfig, reason: str = "") -> str:
        """The help under its field with a preset's `config`; first the `reason` why it has no effect, if any."""
        text = self.help
        if self.place in _BY_PRESET:
            batch = config.training.batch_size
            text += f"; this preset has {_text(_of(config, self))} for batches of {batch}"
        return f"Off: {reason}. {text}" if reason else text

    def to_field(self, value: Any) -> Any:
        """What its field holds for a `value` of the config."""
        if self.kind == "answer":
            return next(word for word, answer in _ANSWERS.items() if answer == value)
        if self.kind in ("list", "lines"):
            return (", " if self.kind == "list" else "\n").join(_text(part) for part in value)
        if self.absent:
            return "" if value is None else _text(value)
        if self.kind == "table":
            return "\n".join(f"{key} = {_text(number)}" for key, number in value.items())
        return value

    def from_field(self, raw: Any, site: Site) -> Any:
        """The value for the config from what its field holds. ConfigError."""
        if self.kind == "answer":
            return _ANSWERS.get(raw, raw)
        if self.kind in ("list", "lines"):
            return [part.strip() for part in re.split("," if self.kind == "list" else "\n", raw or "") if part.strip()]
        if self.kind == "table":
            return dict(self._row(line) for line in (raw or "").splitlines() if line.strip())
        if self.kind == "cache":
            return str(site.runs / _SHARED_CACHE) if raw else ""
        if self.kind in ("dataset", "adapter"):
            return str(getattr(site, self.kind)(raw)) if raw else ""
        raw = raw.strip() if isinstance(raw, str) else raw
        return None if self.absent and not raw else raw

    def differs(self, raw: Any, value: Any) -> bool:
        """Whether its field holds anything but a `value` of the config; an emptied number field does not."""
        unchanged = self.to_field(value)
        if isinstance(unchanged, str):
            return _normalized(raw) != _normalized(unchanged)
        return raw is not None and raw != unchanged

    def _row(self, line: str) -> tuple[str, str]:
        pattern, equals, number = line.rpartition("=")
        if not equals or not pattern.strip() or not number.strip():
            raise ConfigError(f'{self.section}.{self.key} has the line "{line.strip()[:80]}"; write pattern = number')
        return pattern.strip().strip('"'), number.strip()


def settings() -> list[Setting]:
    """Every setting that has a field, in the order of the config."""
    listed = []
    for section in fields(RunConfig):
        default: Any = cast(Any, section).default_factory()
        hints = typing.get_type_hints(type(default))
        for item in fields(default):
            if (section.name, item.name) not in SET_BY_PAGE:
                listed.append(_setting(section.name, item.name, hints[item.name], getattr(default, item.name)))
    return listed


def preset_config(site: Site, preset: str) -> RunConfig:
    """The settings of a preset, "" for that of the base model, of a saved one, or of a run."""
    return sources.config_from(site, preset)


def filled_config(site: Site, preset: str) -> RunConfig:
    """The settings that the form was filled with; those of the base model's preset if that source no longer exists."""
    try:
        return preset_config(site, preset)
    except ConfigError:
        return preset_config(site, "")


def overrides(config: RunConfig, values: Sequence[Any], site: Site) -> dict[str, dict[str, Any]]:
    """Section → key → value of the `values` of all `settings` that differ from those of `config`."""
    changed: dict[str, dict[str, Any]] = {}
    for setting, raw in zip(settings(), values, strict=True):
        if setting.differs(raw, _of(config, setting)):
            changed.setdefault(setting.section, {})[setting.key] = setting.from_field(raw, site)
    return changed


def config_of(site: Site, preset: str, dataset: str, values: Sequence[Any]) -> RunConfig:
    """The config of a run. ConfigError, one sentence for all values that cannot be used."""
    if not dataset:
        raise ConfigError("choose a dataset")
    pairs = zip(settings(), values, strict=True)
    empty = [s.key for s, raw in pairs if s.kind in ("whole", "number") and not s.absent and raw is None]
    if empty:
        raise ConfigError(f"{', '.join(empty)}: the field is empty; give a number, or choose the preset again")
    base = preset_config(site, preset)
    options = overrides(base, values, site)
    options.setdefault("data", {})["folder"] = str(site.dataset(dataset))
    return sources.with_options(base, options)


def tried_config(site: Site, preset: str, values: Sequence[Any]) -> RunConfig:
    """The settings as the form has them now, whether or not they can act together. SdLoraError or ValueError."""
    base = preset_config(site, preset)
    table = tomllib.loads(base.to_toml())
    for section, changed in overrides(base, values, site).items():
        table[section] = {**table[section], **changed}
    return unjudged(table)


def switched(site: Site, before: str, after: str, values: Sequence[Any]) -> list[Any]:
    """The fields when another preset is chosen: what was changed by hand stays, the rest becomes the new preset's."""
    old, new = filled_config(site, before), preset_config(site, after)
    return [
        gr.skip() if setting.differs(raw, _of(old, setting)) else setting.to_field(_of(new, setting))
        for setting, raw in zip(settings(), values, strict=True)
    ]


def run_name(site: Site, name: str, dataset: Path | None = None) -> str:
    """`name` if a run can have it: never a path, and nothing that exists already; without one that of its dataset.
    ConfigError."""
    name = (name or "").strip() or (suggested_name(site, dataset) if dataset else "")
    if not re.fullmatch(_NAME, name) or name.endswith(".") or is_device(name):
        given = f", but {name[:40]!r} was given" if name else "; give one"
        raise ConfigError(
            f"a run's name has up to 60 letters, digits, spaces, - _ and ., and begins with a letter or digit{given}"
        )
    if _is_taken(site, name):
        raise ConfigError(f'"{name}" exists already; choose another name')
    return name


def suggested_name(site: Site, dataset: Path, besides: str = "") -> str:
    """A free name for a run on a dataset: its own, with a number if that is taken."""
    names = (_stem(dataset) if number == 1 else f"{_stem(dataset)}-{number}" for number in range(1, 10_000))
    return next((name for name in names if not _is_taken(site, name) and name != besides), _stem(dataset))


def is_suggested(site: Site, name: str) -> bool:
    """Whether a run's name is one that follows from a dataset."""
    return re.sub(r"-\d+$", "", name) in {re.sub(r"-\d+$", "", _stem(folder)) for folder in site.datasets().values()}


def _stem(dataset: Path) -> str:
    return re.sub(r"[^\w .-]", "-", dataset.name)[:50].strip(" .-_") or "run"


def _is_taken(site: Site, name: str) -> bool:
    folder = site.runs / name
    holds_data = site.data.absolute().is_relative_to(folder.absolute())
    return os.path.lexists(folder) or holds_data or name in RunQueue(site.runs).waiting()


def elem_id(setting: Setting) -> str:
    """The id of the field of a setting."""
    name = setting.key if setting.place in _SHORT else f"{setting.section}-{setting.key}"
    return f"train-{name}".replace("_", "-")


def field_of(setting: Setting, site: Site, config: RunConfig) -> Any:
    """The component of a setting, filled as `config` says."""
    common: dict[str, Any] = {
        "label": _LABELS.get(setting.place, setting.key.replace("_", " ").capitalize()),
        "info": setting.help_with(config), "elem_id": elem_id(setting), "min_width": 150,
    }  # fmt: skip
    if setting.place == ("data", "trigger"):
        common["placeholder"] = "my-ink"
    value = setting.to_field(_of(config, setting))
    if setting.kind == "switch":
        return gr.Checkbox(value, **common)
    if setting.kind in ("choice", "answer", "dataset", "adapter", "cache"):
        return gr.Dropdown(choices_of(setting, site), value=value, **common)
    if setting.kind in ("whole", "number") and not setting.absent:  # a number field cannot be empty
        precision, step = (0, 1) if setting.kind == "whole" else (None, _stride(value or setting.default))
        return gr.Number(value, precision=precision, step=step, **common)
    lines, hint = 2 if setting.kind in ("lines", "table") else 1, "left empty" if setting.absent else None
    common = {"placeholder": hint, "lines": lines, "max_lines": 8 if lines > 1 else 1, "max_length": 20_000, **common}
    return gr.Textbox(value, **common)


def idle_update(setting: Setting, raw: Any, config: RunConfig, reason: str) -> Any:
    """The update of a field that has no effect for a `reason`; one that was changed can still be used, to undo that."""
    usable = not reason or setting.differs(raw, _of(config, setting))
    return gr.update(interactive=usable, info=setting.help_with(config, reason))


def choices_of(setting: Setting, site: Site) -> list[Any]:
    """The choices in the field of a setting."""
    if setting.kind == "cache":
        return [("in the run folder", ""), ("shared by all runs of this page", "shared")]
    if setting.kind == "adapter":
        return [("none", ""), *site.adapter_choices()]
    if setting.kind == "dataset":
        return [("none", ""), *site.dataset_choices()]
    return list(setting.choices)


def _setting(section: str, key: str, hint: Any, default: Any) -> Setting:
    options = typing.get_args(hint)
    absent = type(None) in options
    inner = next((option for option in options if option is not type(None)), hint) if absent else hint
    kind: Kind
    if (section, key) in _BY_ID:
        kind = _BY_ID[section, key]
    elif {True, False} < set(typing.get_args(inner)):
        return Setting(section, key, "answer", default, tuple(_ANSWERS), absent=True)
    elif typing.get_origin(inner) is Literal:
        return Setting(section, key, "choice", default, typing.get_args(inner))
    elif inner is bool:
        kind = "switch"
    elif typing.get_origin(inner) is tuple:
        kind = "lines" if key == "prompts" else "list"  # prompts contain commas
    elif typing.get_origin(inner) is dict:
        kind = "table"
    else:
        kinds: dict[Any, Kind] = {int: "whole", float: "number", str: "text"}
        kind = kinds[inner]
    return Setting(section, key, kind, default, absent=absent)


def _of(config: RunConfig, setting: Setting) -> Any:
    return getattr(getattr(config, setting.section), setting.key)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _normalized(text: Any) -> str:
    return re.sub(r"[ \t]*([,=\n])[ \t\n]*", r"\1", str(text or "").strip())


def _stride(value: float | None) -> float:
    """By how much the arrows of a number field change it."""
    return 10 ** (math.floor(math.log10(abs(value))) - 1) if value else 0.01
