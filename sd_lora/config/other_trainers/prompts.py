"""Prompts of other trainers, with their options as they are read here: ``a cat --n blurry --w 512``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sd_lora.config.other_trainers.row import Given, Read, first, flag, is_off, is_unset, number

_OPTION = re.compile(r"\s+--(?=[A-Za-z])")
#: OneTrainer's or ai-toolkit's name → the letter of an option
_ONETRAINER = {"negative_prompt": "n", "width": "w", "height": "h", "seed": "d", "diffusion_steps": "s",
               "cfg_scale": "l"}  # fmt: skip
_AI_TOOLKIT = {"neg": "n", "width": "w", "height": "h", "seed": "d", "sample_steps": "s", "guidance_scale": "l"}


def _side(value: Any) -> str:
    """A side in multiples of 8, which is what others round it to as well."""
    side = int(number(value)) // 8 * 8
    return str(side) if 8 <= side <= 8192 else ""


def _whole(low: int, high: int) -> Callable[[Any], str]:
    return lambda value: str(number(value)) if isinstance(number(value), int) and low <= number(value) <= high else ""


#: letter of an option that is read here → its value as it is written, or "" if it cannot be used
_OPTIONS: Mapping[str, Callable[[Any], str]] = {
    "n": lambda value: " ".join(str(value).split()), "w": _side, "h": _side, "d": _whole(0, 2**32 - 1),
    "s": _whole(1, 1000), "l": lambda value: f"{number(value):g}" if 0 <= number(value) <= 100 else "",
}  # fmt: skip


def _written(letter: str, value: Any) -> str:
    """An option as it is written behind a prompt; "" if it is not read here, or its value cannot be used."""
    try:
        text = _OPTIONS[letter.lower()](value)
    except (KeyError, ValueError):
        return ""
    return f" --{letter.lower()} {text}" if text else ""


def _line(text: str, left: list[str]) -> str:
    """A prompt with those of its options that can be used here; the others go to `left`."""
    head, *options = _OPTION.split(text.strip())
    parts = [option.strip().partition(" ") for option in options]
    left += [f"--{name} {value}".strip() for name, _, value in parts if not _written(name, value)]
    return head.strip() + "".join(_written(name, value) for name, _, value in parts)


def _of_table(item: Mapping[str, Any], names: Mapping[str, str], left: list[str]) -> str:
    """A prompt that has its options in a table."""
    line = _line(str(item.get("prompt") or ""), left)
    for name, value in item.items():
        if (
            name in ("prompt", "enabled")
            or is_unset(value)
            or (name == "seed" and flag(item.get("random_seed", False)))
        ):
            continue
        option = _written(names[name], value) if name in names else ""
        line += option
        left += [name] * (not option and not is_off(value))
    return line


def _read(lines: list[str], left: list[str]) -> Read:
    lines = [line for line in lines if line and not line.startswith("--")]
    note = f"without {', '.join(dict.fromkeys(left))}" if left else ""
    return ({"preview.prompts": lines} if lines else {}), note


def prompts(value: Any, _: Given) -> Read:
    """Prompts, a line each, or a file of them."""
    text = str(value)
    if "\n" not in text and Path(text).suffix in (".txt", ".json", ".toml"):
        return {"preview.prompts_file": text}
    left: list[str] = []
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return _read([_line(line, left) for line in lines], left)


def samples(value: Any, _: Given) -> Read:
    """OneTrainer's samples, a table each."""
    left: list[str] = []
    return _read([_of_table(item, _ONETRAINER, left) for item in value if item.get("prompt")], left)


def ai_toolkit(value: Any, given: Given) -> Read:
    """ai-toolkit's prompts, with options behind them or in tables, and the trigger word in its place."""
    word, left = str(first(given, "trigger_word", default="")), list[str]()
    items = [
        item if isinstance(item, dict) else {"prompt": item} for item in (value if isinstance(value, list) else [value])
    ]
    lines = [_of_table(item, _AI_TOOLKIT, left) for item in items if item.get("prompt")]
    return _read([line.replace("[trigger]", word) for line in lines], left)
