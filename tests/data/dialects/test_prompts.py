"""Prompts with kohya's options, copied out of web UIs, and in files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dialect_table import LAST
from rows import every_row

from sd_lora import ConfigError, load_config
from sd_lora.data.dialects.prompts import (
    NOT_READ,
    OPTIONS,
    Prompt,
    prompts_in,
    read_prompt,
    sample_prompts,
    without_options,
)

ALL = "a cat --n blurry, bad --w 512 --h 768 --d 3 --s 28 --l 7.5"
OF_ALL = Prompt("a cat", "blurry, bad", 512, 768, 3, 28, 7.5)


@every_row(
    "line, prompt",
    [
        ("a cat", Prompt("a cat")), (ALL, OF_ALL), ("a cat --N bad --W 64", Prompt("a cat", "bad", 64)),
        ("a cat --n", Prompt("a cat", "")), ("a cat -- asleep, 3--4 mice", Prompt("a cat -- asleep, 3--4 mice")),
        (r"miku \(x\) --n \(y\)", Prompt("miku (x)", "(y)")),
        ("a (red:1.2) cat", Prompt("a (red:1.2) cat", pieces=("(red:1.2)",))),
        (f"a cat\nNegative prompt: bad\n{LAST}", Prompt("a cat", "bad", 512, 768, 42, 20, 7.0)),
    ],
    lambda row: row[0],
)  # fmt: skip
def test_what_a_prompt_says_itself(line: str, prompt: Prompt) -> None:
    assert read_prompt(line) == prompt
    assert read_prompt(prompt.written) == prompt


def test_each_option_has_a_value_in_the_example() -> None:
    assert set(OF_ALL.options) == set(OPTIONS.values())


@every_row("line, text", [("a ((red:1.2)) {cat|dog}", "a red cat"), ("x BREAK y <lora:a:1> --w 8", "x, y")])
def test_syntax_is_read_where_that_is_set(line: str, text: str) -> None:
    prompt = read_prompt(line, syntax=True)
    assert (prompt.text, prompt.pieces) == (text, ())


@every_row(
    "line, said",
    [("a --w 9000", "a multiple of 8"), ("a --h 0", "a multiple of 8"),
     ("a --w x", '"x" was given'), ("a --d -1", "--d"), ("a --s 0", "from 1 to 1000"),
     ("a --l nan", "a number from 0 to 100"), ("a --ar 16:9", "has the option --ar, which is not read"),
     ("a --d 4294967296", "from 0 to 4294967295"), ("a --zz ddim", "--n, --w, --h, --d, --s, --l")],
)  # fmt: skip
def test_options_that_cannot_be_used_are_refused(line: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_prompt(line)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


@every_row("side, drawn", [(60, 64), (8, 8), (64, 64), (65, 64), (500, 496), (519, 512), (1, 64)])
def test_sizes_are_rounded_down_with_a_note(side: int, drawn: int, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps([{"prompt": "a cat", "height": side}]))
    line, (row,) = read_prompt(f"a cat --w {side}"), prompts_in(str(tmp_path / "p.json"))
    assert (line.width, row.height) == (drawn, drawn)
    notes = (f"--w {side} is drawn as {drawn}, a multiple of 8", f"height {side} is drawn as {drawn}, a multiple of 8")
    assert (*line.notes, *row.notes) == (notes if side != drawn else ())


@every_row("name, why", sorted(NOT_READ.items()))
def test_what_only_other_programs_read_is_left_out_with_a_note(name: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps([{"prompt": "a cat", name: 0.5, "seed": 3}]))
    for prompt, written in (
        (read_prompt(f"a cat --{name} 0.5 --d 3"), f"--{name}"),
        (prompts_in(str(tmp_path / "p.json"))[0], name),
    ):
        assert prompt.notes == (f"{written} is left out, as {why}",)
        assert (prompt.written, name in OPTIONS) == ("a cat --d 3", False)


def test_a_caption_becomes_a_prompt_without_options() -> None:
    assert without_options("a cat --zz 3, black") == "a cat"
    assert without_options("a cat -- black") == "a cat -- black"


TOML = """
[prompt]
width = 512
negative_prompt = "blurry"
[[prompt.subset]]
prompt = "a cat"
[[prompt.subset]]
prompt = "a dog"
width = 64
seed = 3
sample_steps = 9
scale = 2.5
"""
TABLE = [Prompt("a cat", "blurry", 512), Prompt("a dog", "blurry", 64, None, 3, 9, 2.5)]
IN_JSON = [{"prompt": "a cat", "negative_prompt": "blurry", "width": 512},
           {"prompt": "a dog", "negative_prompt": "blurry", "width": 64, "seed": 3, "sample_steps": 9,
            "scale": 2.5}]  # fmt: skip


@every_row(
    "name, content, prompts",
    [
        ("p.txt", f"# mine\na dog\n\n  # another\r\n{ALL}\n", [Prompt("a dog"), OF_ALL]),
        ("p.prompts", "a dog", [Prompt("a dog")]),
        ("p.toml", TOML, TABLE), ("p.toml", '[prompt]\nprompt = "a cat"', [Prompt("a cat")]),
        ("p.json", json.dumps(IN_JSON), TABLE), ("p.JSON", json.dumps(["a dog", ALL]), [Prompt("a dog"), OF_ALL]),
    ],
    lambda row: row[0],
)  # fmt: skip
def test_files_of_prompts(name: str, content: str, prompts: list[Prompt], tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert prompts_in(str(tmp_path / name)) == prompts


@every_row(
    "name, content, said",
    [
        ("p.txt", "# nothing\n", "holds none"), ("p.txt", "--w 64", "a prompt without text"),
        ("p.txt", None, "cannot be read: no such"),
        ("p.json", "[", "cannot be read"), ("p.json", "3", "neither a list"), ("p.json", "[3]", "neither a list"),
        ("p.json", '[{"text": "a"}]', "has text, which is not read"),
        ("p.json", '[{"width": 64}]', "no text as prompt"),
        ("p.json", '[{"prompt": "a", "width": 8200}]', "multiple of 8"), ("p.toml", "= 1", "cannot be read"),
        ("p.txt", "a" * 1_100_000, "it has over 1000 kB"),
    ],
    lambda row: row[2],
)  # fmt: skip
def test_files_that_cannot_be_used_are_refused(name: str, content: str | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError) as caught:
        prompts_in(str(tmp_path / name))
    assert said in str(caught.value)
    assert name in str(caught.value) or "--" in str(caught.value) or "width" in str(caught.value)


def test_the_prompts_of_a_config(tmp_path: Path) -> None:
    def prompts(*overrides: str) -> list[Any]:
        return [prompt.written for prompt in sample_prompts(load_config("tiny-style", *overrides))]

    (tmp_path / "p.txt").write_text("a ((red)) dog")
    file = f"preview.prompts_file={json.dumps(str(tmp_path / 'p.txt'))}"
    assert prompts() == []
    assert prompts('preview.prompts=["a cat --w 64"]') == ["a cat --w 64"]
    assert prompts(file) == ["a ((red)) dog"]
    assert prompts(file, "data.syntax=read") == ["a red dog"]
    with pytest.raises(ConfigError, match=r"preview\.prompts and preview\.prompts_file both"):
        prompts(file, 'preview.prompts=["a"]')
