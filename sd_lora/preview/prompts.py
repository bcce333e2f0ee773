"""Strengths and adapters as people write them: ``0-1.2(+0.4)`` and ``<lora:NAME:0.8>``. No torch."""

from __future__ import annotations

import math
import re

from sd_lora.errors import ConfigError

_RANGE = re.compile(r"(-?[\d.]+)\s*-\s*(-?[\d.]+)\s*(?:\(\s*\+\s*([\d.]+)\s*\)|\[\s*(\d+)\s*\])$")
_TAG = re.compile(r"<lora:([^:<>]+)(?::([^:<>]*))?>")
_MOST_STRENGTHS = 100
_MOST_BYTES = 120


def parse_strengths(text: str) -> tuple[float, ...]:
    """``0, 0.5, 1`` or a range: ``0-1.2(+0.4)`` in steps of 0.4, ``0-1[5]`` five of them; commas mix both.

    Raises ConfigError for anything else, and for more than 100 strengths.
    """
    strengths: list[float] = []
    for part in re.split(r"[,;\s]+", re.sub(r"\s*([(\[+\])])\s*", r"\1", text.strip())):
        if not part:
            continue
        values = _range(part) if _RANGE.match(part) else _number(part)
        if values is None:
            raise ConfigError(
                f'"{part[:40]}" is not a strength; write numbers with commas, such as 0, 0.5, 1, or a range, such as '
                "0-1.2(+0.4) or 0-1[5]"
            )
        strengths += values
        if len(strengths) > _MOST_STRENGTHS:
            raise ConfigError(f"{len(strengths)} strengths are too many; at most {_MOST_STRENGTHS} are drawn")
    if not strengths:
        raise ConfigError("no strength was given; write some, such as 0, 0.5, 1")
    return tuple(dict.fromkeys(strengths))


def _number(part: str) -> list[float] | None:
    try:
        value = float(part)
    except ValueError:
        return None
    return [value] if math.isfinite(value) else None


def _range(part: str) -> list[float] | None:
    first, last, step, count = _RANGE.match(part).groups()  # type: ignore[union-attr]
    try:
        low, high = float(first), float(last)
        number = int(count) if count else int((high - low) / float(step) + 1e-9) + 1
        if number < 1 or (count and number < 2) or number > _MOST_STRENGTHS:
            return None
        width = (high - low) / (number - 1) if count else float(step)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return [round(low + width * index, 6) for index in range(number)]


def plain_name(name: str) -> str:
    """`name` as a file name, without an ending, that works in every program and in every prompt."""
    plain = re.sub(r"[^\w.-]+", "_", name).strip("._-") or "adapter"
    return plain.encode("utf-8", "ignore")[:_MOST_BYTES].decode("utf-8", "ignore").rstrip(".")


def split_tags(prompt: str) -> tuple[str, list[tuple[str, float]]]:
    """A prompt without its ``<lora:NAME:0.8>`` tags, and their names and strengths (1 if none is given).

    Raises ConfigError for a tag whose strength is not a number.
    """
    tags = []
    for name, strength in _TAG.findall(prompt):
        value = _number(strength or "1")
        if value is None:
            raise ConfigError(f'the strength of "<lora:{name}:{strength}>" is not a number; write <lora:{name}:0.8>')
        tags.append((name.strip(), value[0]))
    plain = re.sub(r"\s+", " ", _TAG.sub("", prompt)).strip()
    if "<lora:" in plain:
        raise ConfigError(f'"{plain[plain.index("<lora:") :][:60]}" names no adapter; write <lora:NAME:0.8>')
    return plain, tags
