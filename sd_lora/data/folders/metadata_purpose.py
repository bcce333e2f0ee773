"""Columns of a metadata file that say what an image is for: its split, and pictures that steer a ControlNet."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from sd_lora.data.folders.role_names import Use, meaning_of, role_of
from sd_lora.data.pictures.decode import FOREIGN_SUFFIXES, IMAGE_SUFFIXES, suffix_of

SPLITS = ("split", "partition")
_STEERING = re.compile(r"(conditioning|cond|control|control_?net)(_(images?|img|picture|path|file|file_?name|\d+))*")
_TRAINED = re.compile(r"(train|trn|learn).*|\s*", re.IGNORECASE)
_TRUE = ("true", "1", "yes", "y")


def is_purpose(column: str) -> bool:
    """Whether a column, in small letters, says what an image is for."""
    return column in SPLITS or bool(_STEERING.fullmatch(column)) or _role_of_flag(column) is not None


def use_of(values: Iterable[tuple[str, Any]]) -> tuple[Use | Literal[""], str]:
    """What the columns of one row say its image is used as, and a split that says nothing of the kind."""
    unknown = ""
    for column, value in _plain(values):
        text = str(value).strip()
        if column in SPLITS and not _TRAINED.fullmatch(text):
            role = role_of(text)
            if role:
                return role.use, ""
            unknown = f'{column} "{text}"'
        elif (use := _role_of_flag(column)) and text.lower() in _TRUE:
            return use, ""
    return "", unknown


def steering_of(values: Iterable[tuple[str, Any]]) -> tuple[Sequence[str], str]:
    """The pictures that the columns of one row name to steer a ControlNet, and the last such column."""
    named = [
        (value.strip(), column)
        for column, value in _plain(values)
        if _STEERING.fullmatch(column)
        and isinstance(value, str)
        and suffix_of(value.strip()) in IMAGE_SUFFIXES | FOREIGN_SUFFIXES.keys()
    ]
    return [name for name, _ in named], named[-1][1] if named else ""


def _role_of_flag(column: str) -> Use | None:
    """The role that ``is_reg``, ``is_val`` and those like them say of an image where they are true."""
    meaning = meaning_of(column.removeprefix("is_")) if column.startswith("is_") else None
    return meaning.role.use if meaning and meaning.sure else None


def _plain(values: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [(column.strip().lower(), value) for column, value in values if value is not None]
