"""What a preview is asked for: strengths and tags as text, limits, and equal strengths however they are written."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from rows import every_row

from sd_lora import ConfigError
from sd_lora.preview.job import MixedAdapter, PreviewJob, PreviewLimits, PreviewRow, strength_key
from sd_lora.preview.prompts import parse_strengths, split_tags

JOB = PreviewJob((PreviewRow("a red house"),))


@every_row(
    "text, found",
    [
        ("0, 0.5, 1", (0, 0.5, 1)),
        ("1", (1,)),
        ("0;1 2", (0, 1, 2)),
        ("-0.5, .25", (-0.5, 0.25)),
        ("0-1.2(+0.4)", (0, 0.4, 0.8, 1.2)),
        ("0-1.2 (+ 0.4)", (0, 0.4, 0.8, 1.2)),
        ("0-1[5]", (0, 0.25, 0.5, 0.75, 1)),
        ("0-1 [ 3 ], 2", (0, 0.5, 1, 2)),
        ("-1-1(+0.5)", (-1, -0.5, 0, 0.5, 1)),
        ("0-1(+0.3)", (0, 0.3, 0.6, 0.9)),
        ("1-0[3]", (1, 0.5, 0)),
        ("0,0,0.0", (0,)),
        ("1e-1", (0.1,)),
    ],
)
def test_strengths_are_numbers_and_ranges(text: str, found: tuple[float, ...]) -> None:
    assert parse_strengths(text) == pytest.approx(found)


@every_row(
    "text",
    ["", "  ", "a", "0-1", "1-0(+0.5)", "0-1(+0)", "0-1[1]", "0-1[0]", "nan", "inf", "0-inf(+1)", "0-1e9(+1)",
     "0-1000[1000]", "0-1(+0.001)", "<script>", "0..1", "--1", "1" * 5000, "0-1(+1", ",".join(map(str, range(101)))],
)  # fmt: skip
def test_what_is_no_strength_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_strengths(text)
    assert "strength" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("prompt", "clean", "tags"),
    [
        ("a house", "a house", []),
        ("a house <lora:ink:0.8>", "a house", [("ink", 0.8)]),
        ("<lora:ink> a <lora:my style-2:1.5> house", "a house", [("ink", 1), ("my style-2", 1.5)]),
        ("a < b and lora:c", "a < b and lora:c", []),
    ],
)
def test_tags_are_taken_out_of_a_prompt(prompt: str, clean: str, tags: list[tuple[str, float]]) -> None:
    assert split_tags(prompt) == (clean, tags)


def test_a_tag_without_a_number_is_told() -> None:
    with pytest.raises(ConfigError, match=r"<lora:ink:much>.*write <lora:ink:0\.8>"):
        split_tags("a house <lora:ink:much>")


@every_row(
    "change, said",
    [
        ({"rows": ()}, "at least one prompt"),
        ({"rows": (PreviewRow(" "),)}, "at least one prompt"),
        ({"rows": (PreviewRow("x" * 2001),)}, "2000 characters"),
        ({"negative": "x" * 2001}, "2000 characters"),
        ({"strengths": tuple(float(s) / 100 for s in range(100))}, "100 pictures; at most 64"),
        ({"strengths": (math.nan,)}, "NaN or infinite"),
        ({"strengths": (math.inf,)}, "NaN or infinite"),
        ({"strengths": (11.0,)}, "between -10 and 10"),
        ({"guidance": -1.0}, "guidance is"),
        ({"guidance": math.nan}, "NaN or infinite"),
        ({"steps": 0}, "steps are"),
        ({"steps": 151}, "between 1 and 150"),
        ({"seed": -1}, "seed is"),
        ({"seed": 2**32}, "seed is"),
        ({"width": 4096, "height": 4096}, "pixels"),
        ({"width": 63}, "multiples of 8"),
        ({"height": -8}, "multiples of 8"),
        ({"scheduler": "Euler b"}, "no scheduler 'Euler b'; there are DDIM, Euler"),
    ],
)
def test_limits_name_what_is_too_much(change: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PreviewLimits().check(replace(JOB, **change), 8, 1000)


def test_limits_name_everything_at_once_and_let_the_rest_pass() -> None:
    with pytest.raises(ConfigError, match=r"steps are.*; the seed is"):
        PreviewLimits().check(replace(JOB, steps=0, seed=-1), 8, 1000)
    with pytest.raises(ConfigError, match="between 1 and 20,"):
        PreviewLimits().check(replace(JOB, steps=21), 8, 20)
    PreviewLimits().check(replace(JOB, width=64, height=128), 8, 1000)


def test_what_one_job_may_take_in_all_is_limited() -> None:
    rows = tuple(PreviewRow.of(f"a red house {n} --w 1024 --h 1024") for n in range(20))
    most = replace(JOB, rows=rows, steps=50)  # 60 pictures
    PreviewLimits().check(most, 8, 1000)
    with pytest.raises(ConfigError, match=r"that is 1\.9 times what one job may take; draw fewer or smaller"):
        PreviewLimits().check(replace(most, steps=100), 8, 1000)
    PreviewLimits(work=math.inf).check(replace(most, steps=100), 8, 1000)


def test_equal_strengths_have_equal_keys() -> None:
    assert strength_key(1) == strength_key(1.0)
    assert strength_key({"unet": {"up": 1, "down": [1, 2]}}) == strength_key({"unet": {"down": (1.0, 2), "up": 1.0}})
    assert strength_key(1) != strength_key({"unet": 1})


def test_the_name_of_an_adapter_is_that_of_its_run() -> None:
    assert MixedAdapter(Path("runs/ink/adapter.safetensors")).name == "ink"
    assert MixedAdapter(Path("loras/grain.safetensors")).name == "grain"


OWN = PreviewRow.of("a cup --n blurry --w 64 --h 128 --d 9 --s 3 --l 2.5")


def test_what_a_prompt_says_itself_replaces_the_settings_of_the_job() -> None:
    job = replace(JOB, rows=(*JOB.rows, OWN), negative="dark", seed=1)
    own = job.of(OWN)
    assert (own.negative, own.width, own.height, own.seed, own.steps, own.guidance) == ("blurry", 64, 128, 9, 3, 2.5)
    assert replace(job.of(JOB.rows[0]), rows=job.rows) == job
    plain, other = job.keys({})
    assert plain == replace(JOB, negative="dark", seed=1).keys({})[0]
    assert other == replace(own, rows=(PreviewRow("a cup"),)).keys({})[0]
    assert OWN.line == "a cup --n blurry --w 64 --h 128 --d 9 --s 3 --l 2.5"
    assert PreviewRow("a cup").line == PreviewRow.of("a cup").line == "a cup"


@every_row("option, said", [("--w 8192 --h 8192", "pixels"), ("--s 200", "steps are"), ("--w 72", "multiples of 16")])
def test_limits_are_those_of_each_prompt(option: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PreviewLimits().check(replace(JOB, rows=(*JOB.rows, PreviewRow.of(f"a cup {option}"))), 16, 1000)
