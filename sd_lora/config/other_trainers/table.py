"""The table of other trainers' names: each is a setting here, or several, or does not exist, with what follows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sd_lora.config.other_trainers import ai_toolkit, kohya, onetrainer
from sd_lora.config.other_trainers.row import Made, Row, number, resolution
from sd_lora.config.schema import toml_value


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
        return f"{self.name}'s"

    def row(self, name: str) -> Row | None:
        """The row of a setting, or of the part of a file that it is in."""
        for row in self.rows:
            if name in row.names:
                return row
        found = [why for beginning, why in self.not_read.items() if name.startswith(beginning)]
        return Row((name,), None, found[0]) if found else None


KOHYA = Trainer("kohya", "kohya's scripts", kohya.ROWS, kohya.DEFAULTS, {
    "network_args.": "it belongs to a kind of layers that is not trained here",
    "optimizer_args.": "it is the optimizer's own default here",
    "lr_scheduler_args.": "the rate falls once, from the end of the warm-up to the last step",
    "sd3_": "it belongs to another family", "flux1_": "it belongs to another family", "flux_": "it belongs to another "
    "family", "t5xxl": "it belongs to another family", "clip_l": "it belongs to another family", "clip_g": "it belongs "
    "to another family", "img_": "it belongs to another family", "txt_": "it belongs to another family",
    "single_": "it belongs to another family", "double_": "it belongs to another family", "lumina_": "it belongs to "
    "another family",
})  # fmt: skip
ONETRAINER = Trainer("OneTrainer", "OneTrainer", onetrainer.ROWS, onetrainer.DEFAULTS, onetrainer.NOT_READ)
AI_TOOLKIT = Trainer("ai-toolkit", "ai-toolkit", ai_toolkit.ROWS, ai_toolkit.DEFAULTS, ai_toolkit.NOT_READ)
#: in the order in which a name is looked for
TRAINERS = (KOHYA, ONETRAINER, AI_TOOLKIT)


def found(name: str) -> tuple[Trainer, Row] | None:
    """The first trainer that has a setting of this name, with or without the path to it, and its row."""
    for trainer in TRAINERS:
        for row in trainer.rows:
            if name in row.names:
                return trainer, row
    for trainer in TRAINERS:
        for row in trainer.rows:
            if any(known.endswith(f"_args.{name}") for known in row.names):
                return trainer, row
    return None


def answer(name: str, value: Any = None) -> str:
    """What `name`, another trainer's, is here, with `value` as it is written here; "" for a name that none has."""
    pair = found(name)
    if pair is None:
        return ""
    trainer, row = pair
    mine = f"{name} is {trainer.whose} name"
    named = " and ".join(setting for setting in row.becomes)
    if row.convert is None:
        return f"{mine} for what does not exist here: {row.why}"
    if value in (None, "", "…"):
        return f"{mine}; here it is {named}"
    made, note = row.read(value, {name: value})
    if not made:
        return f"{mine}; here it is {named}: {note or f'with {value} there is nothing to write'}"
    return f"{mine}; here it is {named}: write {shlex.join(overrides(made))}" + (f" ({note})" if note else "")


def overrides(made: Made) -> list[str]:
    """Settings as they are written after ``sd-lora train``, before a shell's quotes."""
    return [f"{setting}={_written(setting, value)}" for setting, value in made.items()]


def _written(setting: str, value: Any) -> str:
    if isinstance(value, list) and setting != "preview.prompts":
        return ",".join(str(item) for item in value)
    if isinstance(value, list | dict | bool):
        return toml_value(value)
    return str(value)


def in_a_dataset(name: str, value: Any) -> str:
    """What a setting of a dataset TOML that is not read from it is in the run's own config, as a clause; "" for a name
    that nobody has."""
    row = KOHYA.row(name)
    if row is None:
        return ""
    made, note = row.read(value, {name: value})
    if made:
        return f"is not read; here that is {' '.join(overrides(made))}"
    if row.convert is None:
        return f"does not exist here: {row.why}"
    return f"is not read; here that is {' and '.join(row.becomes)}" + (f": {note}" if note else "")


def likely(setting: str, value: Any) -> str:
    """What `value` of a setting of ours, written as another trainer has it, was probably meant to be; "" if nothing
    shows it."""
    text = str(value).strip()
    if setting == "data.resolution" and re.fullmatch(r"[\[(]?\d+\s*[,x×]\s*\d+[\])]?", text):
        made = resolution(value if isinstance(value, list) else text, {})
        return str((made[0] if isinstance(made, tuple) else made)["data.resolution"])
    if re.fullmatch(r"[+-]?\d+,\d+", text):
        return f"{number(text)}"
    return ""
