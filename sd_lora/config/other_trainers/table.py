"""The table of other trainers' names: each is a setting here, or several, or does not exist, with what follows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sd_lora.config.other_trainers import ai_toolkit, diffusers_scripts, kohya, onetrainer
from sd_lora.config.other_trainers.optimizers import OWN_SETTINGS
from sd_lora.config.other_trainers.row import Given, Made, Row, in_thousands, is_unset, no, number, readings, resolution
from sd_lora.config.schema import SECTIONS, toml_value


@dataclass(frozen=True, eq=False)
class Trainer:
    """Another trainer: its rows, what counts there where nothing is set, and parts of its files that are not read."""

    name: str
    title: str
    rows: tuple[Row, ...]
    defaults: Mapping[str, Any]
    not_read: Mapping[str, str]

    @property
    def whose(self) -> str:
        return f"{self.name}'" if self.name.endswith("s") else f"{self.name}'s"

    def row(self, name: str) -> Row | None:
        """The row of a setting, or of the part of a file that it is in."""
        for row in self.rows:
            if name in row.names:
                return row
        found = [why for beginning, why in self.not_read.items() if name.startswith(beginning)]
        return Row((name,), None, found[0]) if found else None


KOHYA = Trainer("kohya", "kohya's scripts", kohya.ROWS, kohya.DEFAULTS, {
    "network_args.": "it belongs to a kind of layers that is not trained here",
    "optimizer_args.": OWN_SETTINGS,
    "lr_scheduler_args.": "the rate falls once, from the end of the warm-up to the last step",
    "sd3_": "it belongs to another family", "flux1_": "it belongs to another family", "flux_": "it belongs to another "
    "family", "t5xxl": "it belongs to another family", "clip_l": "it belongs to another family", "clip_g": "it belongs "
    "to another family", "img_": "it belongs to another family", "txt_": "it belongs to another family",
    "single_": "it belongs to another family", "double_": "it belongs to another family", "lumina_": "it belongs to "
    "another family",
})  # fmt: skip
_FILE = "it names a file of the other trainer, which sd-lora import-config FILE reads"
ONETRAINER = Trainer(
    "OneTrainer",
    "OneTrainer",
    (*onetrainer.ROWS, no("config_path", _FILE), no("secrets_path callback_path command_path", "it is about the other "
     "program")),
    onetrainer.DEFAULTS,
    onetrainer.NOT_READ,
)  # fmt: skip
AI_TOOLKIT = Trainer(
    "ai-toolkit",
    "ai-toolkit",
    (*ai_toolkit.ROWS, no("config_file_list", _FILE), no("recover log", "it is about the other program")),
    ai_toolkit.DEFAULTS,
    ai_toolkit.NOT_READ,
)
DIFFUSERS = Trainer("diffusers", "diffusers' training scripts", diffusers_scripts.ROWS, {}, {})
#: in the order in which a name is looked for
TRAINERS = (KOHYA, ONETRAINER, AI_TOOLKIT, DIFFUSERS)


def found(name: str) -> tuple[Trainer, Row] | None:
    """The trainer that has a setting of this name, with or without the path to it, and its row: of several the first,
    but one that is a setting here before one that is not."""
    for known_as in (lambda known: known == name, lambda known: known.rpartition(".")[2] == name):
        pairs = [(trainer, row) for trainer in TRAINERS for row in trainer.rows if any(map(known_as, row.names))]
        if pairs:
            return min(pairs, key=lambda pair: pair[1].convert is None)
    return None


def answer(name: str, value: Any = None) -> str:
    """What `name`, another trainer's, is here, with `value` as it is written here; "" for a name that none has."""
    if inside := _inside(name, value):
        return "; ".join(inside)
    pair = found(name)
    return _answer(name, value, *pair) if pair else ""


def is_switch(name: str) -> bool:
    """Whether `name`, another trainer's, is an option without a value."""
    pair = found(name)
    return bool(pair and pair[1].is_switch)


def _inside(name: str, value: Any) -> list[str]:
    """The answers to ``network_args=conv_dim=4``, each of whose values is a setting of its own."""
    trainers = [trainer for trainer in TRAINERS for row in trainer.rows for known in row.names
                if known.startswith(f"{name}.")]  # fmt: skip
    parts = value if isinstance(value, list) else re.split(r"\s+|(?<=['\"]),(?=['\"])", str(value).strip("[] "))
    pairs = [str(part).strip("'\",").partition("=") for part in parts]
    if not trainers or not all(equals for _, equals, _ in pairs):
        return []
    given = {f"{name}.{key}": inner for key, _, inner in pairs}
    rows = {known: trainers[0].row(known) for known in given}
    return [
        _answer(known, given[known], trainers[0], row, given) if row else f"{known} is not known here; leave it out"
        for known, row in rows.items()
    ]


def _answer(name: str, value: Any, trainer: Trainer, row: Row, given: Given | None = None) -> str:
    mine = f"{name} is {trainer.whose} name"
    named = " and ".join(setting for setting in row.becomes)
    if row.convert is None:
        return f"{mine} for what does not exist here: {row.why}"
    value = None if value == "…" else value
    value = True if is_unset(value) and row.is_switch else value
    if is_unset(value):
        return f"{mine}; here it is {named}"
    made, note = row.read(value, given or {name: value})
    if not made:
        return f"{mine}; here it is {named}: {note or f'with {value} there is nothing to write'}"
    needed = {setting: inner for setting, inner in row.beside.items() if _is_ours(setting) and setting not in made}
    notes = [note] * bool(note) + [f"beside {shlex.join(overrides(needed))}, for instance"] * bool(needed)
    more = f" ({'; '.join(notes)})" if notes else ""
    return f"{mine}; here it is {named}: write {shlex.join(overrides(made))}{more}"


def _is_ours(setting: str) -> bool:
    section, _, key = setting.partition(".")
    return section in SECTIONS and key in SECTIONS[section].__dataclass_fields__


def overrides(made: Made) -> list[str]:
    """Settings as they are written after ``sd-lora train``, before a shell's quotes."""
    return [f"{setting}={_written(setting, value)}" for setting, value in made.items()]


def _written(setting: str, value: Any) -> str:
    if isinstance(value, list) and setting != "preview.prompts":
        return ",".join(str(item) for item in value)
    if isinstance(value, list | dict | bool):
        return toml_value(value)
    return str(value)


def in_a_dataset(name: str, value: Any, given: Mapping[str, Any] | None = None) -> str:
    """What a setting of a dataset TOML that is not read from it is in the run's own config, as a clause; "" for a name
    that nobody has. `given`: those beside it, on which it may depend."""
    row = KOHYA.row(name)
    if row is None:
        return ""
    made, note = row.read(value, given or {name: value})
    if made:
        return f"is not read; here that is {' '.join(overrides(made))}"
    if row.convert is None:
        return f"does not exist here: {row.why}"
    return f"is not read; here that is {' and '.join(row.becomes)}" + (f": {note}" if note else "")


#: two sides, which for one whole number could be taken for a thousand
_SIDES = re.compile(r"[\[(]?\d{2,}\s*[,x×]\s*\d+[\])]?")


def likely(setting: str, value: Any) -> str:
    """What `value` of a setting of ours, written as another trainer has it, was probably meant to be, if that can be
    its value; "" if nothing shows it."""
    from sd_lora.config.reading import wrong_value

    text = str(value).strip()
    meant: Any = ""
    if setting == "data.resolution" and _SIDES.fullmatch(text):
        made = resolution(value if isinstance(value, list) else text, {})
        meant = (made[0] if isinstance(made, tuple) else made)["data.resolution"]
    elif re.fullmatch(r"[+-]?\d+,\d+", text) and not in_thousands(text):
        meant = number(text)
    return f"{meant}" if meant != "" and not wrong_value(setting, meant) else ""


def two_readings(setting: str, value: Any) -> str:
    """The two numbers that ``1.000`` may be; "" if `value` is not written so, or has two sides."""
    sides = setting == "data.resolution" and _SIDES.fullmatch(str(value))
    return readings(value) if isinstance(value, str) and in_thousands(value) and not sides else ""
