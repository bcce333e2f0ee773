"""A row of the table of other trainers' names, and how their values are read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: all settings of a file of another trainer, by its names
Given = Mapping[str, Any]
#: settings of ours, as ``section.key`` → value
Made = dict[str, Any]
#: settings alone, or with what else there is to know of them
Read = Made | tuple[Made, str]

_COMMA = re.compile(r"[+-]?\d+,\d+")
#: 1.000 and 12,500: one thousand for some, and one for others
_THOUSANDS = re.compile(r"[1-9]\d{0,2}([.,]\d{3})+")
_UNSET = (None, "", "None", "none")
_YES, _NO = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


@dataclass(frozen=True)
class Row:
    """One or several settings of another trainer that mean the same here, and an example that the tests try.

    Without `convert` there is no like here, and `why` says what follows; with it, `why` says what else is different.
    """

    names: tuple[str, ...]
    convert: Callable[[Any, Given], Read] | None
    why: str = ""
    example: Any = True
    becomes: Made = field(default_factory=dict)
    #: other settings that the example stands beside
    beside: Given = field(default_factory=dict)

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off, so that on a command line its name alone says it."""
        return self.convert is not None and str(self.example).lower() in ("true", "false")

    def read(self, value: Any, given: Given) -> tuple[Made, str]:
        """What `value` is here among all that is `given`: settings, and a clause on what is not in them."""
        if is_unset(value):
            return {}, "not set"
        if self.convert is None:
            return {}, f"off; {self.why}" if is_off(value) else self.why
        try:
            read = self.convert(value, given)
        except (ValueError, TypeError, AttributeError, ArithmeticError) as error:  # of a type that no such file has
            return {}, f"cannot be used: {error}"
        made, note = read if isinstance(read, tuple) else (read, "")
        return made, note or self.why


def no(names: str, why: str) -> Row:
    """A row of what does not exist here."""
    return Row(tuple(names.split()), None, why)


def one(names: str, setting: str, parse: Callable[[Any], Any], example: Any, becomes: Any, why: str = "") -> Row:
    """A row of what is one setting here."""
    return Row(tuple(names.split()), lambda value, _: {setting: parse(value)}, why, example, {setting: becomes})


def some(
    names: str,
    convert: Callable[[Any, Given], Read],
    example: Any,
    becomes: Made,
    beside: Given | None = None,
    why: str = "",
) -> Row:
    """A row whose value is worked out, perhaps from others of the file."""
    return Row(tuple(names.split()), convert, why, example, becomes, beside or {})


def is_unset(value: Any) -> bool:
    return value in _UNSET or value in ([], {})


def is_off(value: Any) -> bool:
    return is_unset(value) or value in (0, "0", "false", "False", "0.0", "OFF", "NEVER")


def first(given: Given, *names: str, default: Any = None) -> Any:
    """The value of the first of `names` that is set."""
    return next((given[name] for name in names if not is_unset(given.get(name))), default)


def is_at_rest(given: Given, of_all: str, *own: str) -> bool:
    """Whether the rate of a part is 0: its own, or that of all if it has none."""
    rate = first(given, *own, of_all)
    return rate is not None and number(rate) == 0


def number(value: Any) -> int | float:
    """A number, which may have a decimal comma and be written as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r} is not a number")
    text = str(value).strip()
    if isinstance(value, str) and in_thousands(text):
        raise ValueError(readings(text))
    text = text.replace(",", ".") if _COMMA.fullmatch(text) else text
    try:
        read = float(text)
    except ValueError as error:
        raise ValueError(f"{value!r} is not a number") from error
    if not math.isfinite(read):
        raise ValueError(f"{value!r} is not a finite number")
    return int(read) if read.is_integer() else read


def numbers(value: Any) -> list[int | float]:
    """Numbers, as a list or as text with commas or ``x`` between them."""
    parts = value if isinstance(value, list) else re.split(r"[,x×\s]+", str(value).strip("[]() "))
    return [number(part) for part in parts if part != ""]


def in_thousands(text: str) -> bool:
    """Whether a number is written such as ``1.000``, which is one thousand for some, and one for others."""
    return bool(_THOUSANDS.fullmatch(text.strip()))


def readings(text: str) -> str:
    """The numbers that such a text may be, as a clause."""
    whole, *parts = re.split("[.,]", text.strip())
    decimal = f" or {float(f'{whole}.{parts[0]}'):g}" * (len(parts) == 1)
    return f"{text.strip()} may be {whole}{''.join(parts)}{decimal}; write it without a separator"


def is_flag(value: Any) -> bool:
    """Whether it is yes or no, however it is written."""
    return isinstance(value, bool) or str(value).strip().lower() in (*_YES, *_NO)


def flag(value: Any) -> bool:
    """Yes or no, however it is written."""
    if isinstance(value, str):
        if not is_flag(value):
            raise ValueError(f"{value!r} is neither true nor false")
        return value.strip().lower() in _YES
    return bool(value)


def not_flag(value: Any) -> bool:
    return not flag(value)


def above(setting: str, names: str, example: Any, becomes: Any, why: str = "") -> Row:
    """A row of a number that is off at 0 there, and absent here."""
    return some(names, lambda value, _: {setting: number(value)} if number(value) > 0 else {}, example,
                {setting: becomes}, why=why)  # fmt: skip


def choice(setting: str, known: Mapping[str, str]) -> Callable[[Any, Given], Read]:
    """A converter of names to names; one that is not known there is an error."""

    def convert(value: Any, _: Given) -> Read:
        name = known.get(str(value).lower())
        if name is None:
            raise ValueError(f"{value!r} does not exist here")
        return {setting: name}

    return convert


def side(width_height: list[int | float]) -> int:
    """The side, in multiples of 8, of the square of the same area."""
    width, height = (*width_height, width_height[-1])[:2]
    return max(8, round((width * height) ** 0.5 / 8) * 8)


def resolution(value: Any, _: Given) -> Read:
    """``768``, ``"512,512"`` or ``[768, 512]``: width and height."""
    sizes = numbers(value)
    if not sizes or len(sizes) > 2 or min(sizes) <= 0:
        raise ValueError(f"{value!r} is not one size; name the side of the square of the same area")
    square = len(sizes) == 1 or sizes[0] == sizes[1]
    return {"data.resolution": side(sizes)}, "" if square else "the side of the square of the same area"


def sizes(value: Any, _: Given) -> Read:
    """One or several sides, which are trained in turn; of ``512x768`` that of the square of the same area."""
    parts = value if isinstance(value, list) else str(value).strip("[]() ").split(",")
    each = [side(numbers(part)) if "x" in str(part) else int(number(part)) for part in parts if part != ""]
    if not each:
        raise ValueError(f"{value!r} names no size")
    return {"data.resolution": each[0], **({"data.more_resolutions": each[1:]} if each[1:] else {})}


def suffix(value: Any) -> list[str]:
    return [ending if ending.startswith(".") else f".{ending}" for ending in str(value).replace(" ", "").split(",")]


def accumulated(*names: str) -> Callable[[Any, Given], Read]:
    """A converter of the batch, where each of several is computed alone and their gradients are added up: here that
    is one batch. `names` are those of the batch."""

    def convert(value: Any, given: Given) -> Read:
        times, batch = int(number(value)), int(number(first(given, *names, default=1)))
        if times <= 1:
            return {}, "one, so that there is nothing to write"
        return {"training.batch_size": batch * times, "training.micro_batch": batch}

    return convert


def batch(value: Any, given: Given) -> Read:
    """The batch, times what it is accumulated to."""
    names = ("gradient_accumulation_steps", "train.gradient_accumulation_steps", "train.gradient_accumulation")
    times = int(number(first(given, *names, default=1)))
    alone = int(number(value))
    return {"training.batch_size": alone * times, **({"training.micro_batch": alone} if times > 1 else {})}
