"""Prompts as people bring them: with kohya's options behind them, copied out of a web UI, or many in a file."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sd_lora.config.schema import RunConfig
from sd_lora.data.dialects.generations import read_generation
from sd_lora.data.dialects.parameters import Generation
from sd_lora.data.dialects.syntax import pieces_of, read, unescaped
from sd_lora.data.folders.caption_files import decode_text, tidy
from sd_lora.errors import ConfigError, printable, reason, shown

_OPTION = re.compile(r"(?:^|\s)--(?=[A-Za-z])")
_MAX_BYTES, _MOST = 1_000_000, 10_000
_SIZES = range(8, 8193, 8)


@dataclass(frozen=True)
class Prompt:
    """What to draw, and what a prompt says itself about how; None: as for all. `pieces`: syntax that is not read."""

    text: str
    negative: str | None = None
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    pieces: tuple[str, ...] = ()
    #: what was written and is not drawn so, as clauses
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def options(self) -> dict[str, Any]:
        """What it says about how to draw it."""
        values = asdict(self)
        return {name: values[name] for name in (*OPTIONS.values(),) if values[name] is not None}

    @property
    def written(self) -> str:
        """The prompt on one line, as `read_prompt` reads it."""
        given = [
            f" --{letter} {_shown(self.options[name])}" for letter, name in OPTIONS.items() if name in self.options
        ]
        return f"{self.text}{''.join(given)}"


#: kohya's letter → what it sets
OPTIONS = {"n": "negative", "w": "width", "h": "height", "d": "seed", "s": "steps", "l": "guidance"}
_SCHEDULER = "samples are drawn with the base model's own scheduler"
_ALONE = "samples are drawn from prompts alone"
_FAMILY = "it belongs to another family"
_LARGE = "samples are drawn at their size from the first step"
#: kohya's and musubi's other letters and names in tables → what follows from their not being read
NOT_READ = {
    **dict.fromkeys(("ss", "sample_sampler"), _SCHEDULER),
    **dict.fromkeys(("am", "additional_network_multiplier"), "preview.strengths are those of the adapter"),
    **dict.fromkeys(("cn", "i", "ei", "ci", "of", "t", "controlnet_image", "image", "image_path", "end_image_path",
                     "control_video_path", "control_image_path", "one_frame", "strength"), _ALONE),
    **dict.fromkeys(("g", "fs", "ctr", "rcfg", "f", "guidance_scale", "flow_shift", "discrete_flow_shift",
                     "cfg_trunc_ratio", "renorm_cfg", "frame_count"), _FAMILY),
    **dict.fromkeys(("nl", "negative_scale"), "the negative prompt has the weight that --l gives it"),
    **dict.fromkeys(("c", "clip_prompt"), "pictures are not guided by a second model"),
    **dict.fromkeys(("ow", "oh", "nw", "nh", "ct", "cl", "original_width", "original_height"), "the size in which a "
                    "picture is drawn is what the base model gets"),
    **dict.fromkeys(("dsd1", "dst1", "dsd2", "dst2", "dsr", "glt", "glr", "gls", "gle"), _LARGE),
}  # fmt: skip


def read_prompt(line: str, *, syntax: bool = False) -> Prompt:
    """A prompt with kohya's options, such as ``a cat --n blurry --w 512``, or the text that A1111 writes into pictures.
    `syntax`: weights are read, and of alternatives the first is drawn. Options that only other programs have are left
    out, with a note. ConfigError for unknown options and for values that cannot be used."""
    generation = read_generation(line)
    if generation is not None and generation.positive:
        return _of_generation(generation, syntax)
    text, *given = _OPTION.split(line)
    options, notes = dict[str, Any](), list[str]()
    for part in given:
        letter, _, value = part.strip().partition(" ")
        name = OPTIONS.get(letter.lower())
        if name is not None:
            options[name] = _value(name, letter, value.strip(), line, notes)
        elif letter.lower() in NOT_READ:
            notes.append(f"--{letter} is left out, as {NOT_READ[letter.lower()]}")
        else:
            raise ConfigError(
                f'prompt "{_clipped(line)}" has the option --{letter}, which is not read; leave it out (those that are '
                f"read: {', '.join(f'--{known}' for known in OPTIONS)})"
            )
    return replace(_prompt(text, syntax, options), notes=tuple(notes))


def sample_prompts(config: RunConfig) -> list[Prompt]:
    """The prompts that a config names, itself or in a file; none if it names none. ConfigError if one cannot be
    drawn."""
    syntax = config.data.syntax == "read"
    if config.preview.prompts_file:
        return prompts_in(config.preview.prompts_file, syntax=syntax)
    return [read_prompt(line, syntax=syntax) for line in config.preview.prompts]


def without_options(caption: str) -> str:
    """A caption as a prompt: what looks like an option is cut off."""
    return _OPTION.split(caption)[0].strip()


def _prompt(text: str, syntax: bool, options: Mapping[str, Any]) -> Prompt:
    pieces = pieces_of(text)
    plain = read(text)[0] if syntax and pieces else text
    negative = options.get("negative")
    cleaned = {"negative": unescaped(negative)} if negative is not None else {}
    return Prompt(tidy(unescaped(plain)), **{**options, **cleaned}, pieces=() if syntax else tuple(pieces))


def _of_generation(generation: Generation, syntax: bool) -> Prompt:
    pairs, options, notes = generation.settings, dict[str, Any](), list[str]()
    for key, name in (("Steps", "steps"), ("Seed", "seed"), ("CFG scale", "guidance")):
        if key in pairs:
            options[name] = _value(name, key, pairs[key], generation.positive, notes)
    size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", pairs.get("Size", "").strip())
    if size:
        sides = zip(("width", "height"), size.groups(), strict=True)
        options |= {name: _value(name, "Size", value, generation.positive, notes) for name, value in sides}
    if generation.negative:
        options["negative"] = generation.negative
    return replace(_prompt(generation.positive, syntax, options), notes=tuple(notes))


def _value(name: str, letter: str, given: str, line: str, notes: list[str]) -> Any:
    """The value of an option; what was changed in it is added to `notes`. ConfigError if it cannot be one."""
    if name == "negative":
        return tidy(given)
    if name in ("width", "height") and given.isdecimal() and int(given) % 8 and int(given) <= _SIZES[-1]:
        # as kohya's scripts do
        side = max(64, int(given) - int(given) % 8)
        notes.append(f"{'--' * (len(letter) == 1)}{letter} {given} is drawn as {side}, a multiple of 8")
        return side
    fits: dict[str, tuple[Callable[[Any], bool], str]] = {
        "seed": (lambda value: 0 <= value < 2**32, "a whole number from 0 to 4294967295"),
        "steps": (lambda value: 1 <= value <= 1000, "a whole number from 1 to 1000"),
        "guidance": (lambda value: 0 <= value <= 100, "a number from 0 to 100"),
        **dict.fromkeys(("width", "height"), (lambda value: value in _SIZES, "a multiple of 8 from 8 to 8192")),
    }
    is_right, what = fits[name]
    try:
        value = float(given) if name == "guidance" else int(given)
    except ValueError:
        value = None
    if value is None or not is_right(value):
        dashes = "--" if len(letter) == 1 else ""
        raise ConfigError(
            f'{dashes}{letter} in the prompt "{_clipped(line)}" must be {what}, but "{_clipped(given)}" was given'
        )
    return value


def prompts_in(file: str, *, syntax: bool = False) -> list[Prompt]:
    """The prompts of a file: text with one per line and comments behind ``#``, or kohya's TOML or JSON. ConfigError if
    it cannot be read, or holds none."""
    path = Path(os.path.expanduser(file))
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it has over {_MAX_BYTES // 1000} kB")
        text = decode_text(path.read_bytes())[0]
        kind = path.suffix.lower()
        rows = _rows(tomllib.loads(text) if kind == ".toml" else json.loads(text)) if kind in (".toml", ".json") else (
            [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        )  # fmt: skip
    except OSError as error:
        raise ConfigError(
            f"file of prompts {shown(file)} cannot be read: {reason(error)}; name one that can"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"file of prompts {shown(file)} cannot be read: {_clipped(str(error))}; correct it"
        ) from error
    prompts = [
        _of_table(row, file, syntax) if isinstance(row, Mapping) else read_prompt(row, syntax=syntax)
        for row in rows[:_MOST]
    ]
    if not prompts or not all(prompt.text for prompt in prompts):
        raise ConfigError(f"file of prompts {shown(file)} holds {'a prompt without text' if prompts else 'none'}")
    return prompts


#: kohya's names in tables
_IN_TABLES = {"negative_prompt": "negative", "width": "width", "height": "height", "seed": "seed",
              "sample_steps": "steps", "scale": "guidance"}  # fmt: skip


def _rows(content: Any) -> list[Any]:
    """The prompts of kohya's TOML or JSON: each a line, or a table. ValueError."""
    if isinstance(content, dict) and isinstance(
        content.get("prompt"), dict
    ):  # TOML: settings of all, and a subset each
        shared = {key: value for key, value in content["prompt"].items() if key != "subset"}
        subsets = content["prompt"].get("subset")
        content = [{**shared, **row} for row in subsets or [{}] if isinstance(row, dict)]
    if not isinstance(content, list) or not all(isinstance(row, str | dict) for row in content):
        raise ValueError("it is neither a list of prompts nor kohya's [prompt] with its [[prompt.subset]]")
    return content


def _of_table(row: Mapping[str, Any], file: str, syntax: bool) -> Prompt:
    left_out = [key for key in row if key in NOT_READ and row[key] is not None]
    unknown = sorted(
        key for key in row if key not in (*_IN_TABLES, *NOT_READ, "prompt", "enum") and row[key] is not None
    )
    if unknown or not isinstance(row.get("prompt"), str):
        what = (
            f"{', '.join(map(_clipped, unknown))}, which is not read; leave it out" if unknown else "no text as prompt"
        )
        raise ConfigError(f"a prompt of {shown(file)} has {what}")
    prompt = read_prompt(row["prompt"], syntax=syntax)
    given = {key: str(row[key]) for key in _IN_TABLES if row.get(key) is not None}
    notes = [*prompt.notes, *(f"{key} is left out, as {NOT_READ[key]}" for key in left_out)]
    values = {_IN_TABLES[key]: _value(_IN_TABLES[key], key, value, prompt.text, notes) for key, value in given.items()}
    return replace(prompt, **values, notes=tuple(notes))


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _clipped(text: str) -> str:
    return printable(text if len(text) <= 60 else f"{text[:59]}…")
