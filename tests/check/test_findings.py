"""The table of findings: every code is documented, given to a folder that earns it, and makes one sentence."""

from __future__ import annotations

import json
import re
import shutil
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from caption_table import CAPTIONS
from faulty_folders import FAULTS, five_pictures
from layout_table import BARE, KOHYA, MASKS, PRIOR, SIDECARS
from role_table import ROLE_CASES
from rows import every_row
from rows_table import METADATA, TOML

import sd_lora
from sd_lora import load_base, load_config
from sd_lora.check import idle_settings
from sd_lora.check.doctor import examine
from sd_lora.data.findings import CODES, Finding, grouped, sentences
from sd_lora.data.folders.listing import list_folder

CASES = [*SIDECARS, *MASKS, *BARE, *KOHYA, *PRIOR, *METADATA, *TOML, *ROLE_CASES, *CAPTIONS]

PACKAGE = Path(sd_lora.__file__).parent
DOCS = PACKAGE.parent / "docs" / "findings.md"


def test_every_code_has_a_section_and_no_section_is_stale() -> None:
    sections = dict(re.findall(r"^### (\S+)\n\*(\w+)\.\*", DOCS.read_text("utf-8"), re.MULTILINE))
    assert {code: severity.lower() for code, severity in sections.items()} == {c: CODES[c].severity for c in CODES}


def test_every_code_has_a_folder_that_earns_it() -> None:
    assert {*FAULTS, *(code for case in CASES for code in case.codes)} == set(CODES)


@every_row("code", FAULTS)
def test_a_fault_is_found_where_it_is_and_nowhere_else(
    code: str, good_folder: tuple[Path, set[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle_settings, "_MOST_EXPOSURES", 10_000)
    good, good_codes = good_folder
    assert code not in good_codes
    folder = Path(shutil.copytree(good, tmp_path / "photos"))
    fault, *settings = FAULTS[code]
    fault(folder)
    assert code in codes_of(folder, *settings)


def codes_of(folder: Path, *settings: str) -> set[str]:
    config = load_config("tiny-style", f"data.folder={json.dumps(str(folder))}", "data.trigger=zwq", *settings)
    pipe, family = tiny_base()
    return {finding.code for finding in examine(config, list_folder(config.data), family, pipe).findings}


@cache
def tiny_base() -> tuple[Any, Any]:
    return load_base("tiny")


@pytest.fixture(scope="module")
def good_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str]]:
    folder = five_pictures(tmp_path_factory.mktemp("good"))
    return folder, codes_of(folder)


def test_an_unknown_code_is_a_bug() -> None:
    with pytest.raises(KeyError, match="no-such"):
        Finding("no-such", None, "x")


def test_one_finding_is_its_message_and_several_are_one_sentence() -> None:
    one = Finding("image-blurred", "a.png", "soft")
    assert one.message == "a.png: soft; use a sharper one, unless blur is the style"
    told = "1 image is blurred: a.png (soft); use a sharper one, unless blur is the style"
    assert sentences([one], "warning") == [told]
    assert sentences([one], "error") == []
    many = [Finding("image-blurred", f"{i}.png", "soft") for i in range(9)]
    (sentence,) = sentences(many, "warning")
    assert sentence.startswith("9 images are blurred: 0.png (soft), ")
    assert "and 4 more" in sentence
    assert sentence.endswith("; use sharper ones, unless blur is the style")


def test_a_finding_about_no_file_says_itself_what_it_is() -> None:
    assert sentences([Finding("set-small", None, "one image only")], "warning") == ["one image only; use 4 or more"]


def test_what_the_lead_says_already_is_not_said_again() -> None:
    (sentence,) = sentences([Finding("caption-missing", "a.png", "no caption")], "error")
    assert sentence.startswith("1 image has no caption: a.png; add NAME.txt beside it,")


def test_a_finding_may_have_a_remedy_of_its_own() -> None:
    own = Finding("unlisted", "a.png", "not listed", "name [its|their] folder")
    assert own.remedy == own.to_json()["remedy"] == "name its folder"
    (sentence,) = sentences([own, Finding("unlisted", "b.png", "not listed")], "warning")
    assert sentence.endswith("a.png, b.png; name their folder; add rows for them")


@every_row("code, count", product(CODES, [1, 2]))
def test_no_sentence_holds_a_choice(code: str, count: int) -> None:
    (sentence,) = sentences([Finding(code, f"{i}.png", "x") for i in range(count)], CODES[code].severity)
    assert "|" not in sentence


def test_errors_come_first_in_the_order_of_the_table() -> None:
    found = [Finding(code, None, "x") for code in ("set-small", "repeats", "caption-empty", "no-images", "image-small")]
    assert [code for code, _ in grouped(found)] == ["no-images", "caption-empty", "image-small", "set-small", "repeats"]


def test_names_cannot_break_the_line() -> None:
    (sentence,) = sentences(
        [Finding("image-small", "a\nb\x1b.png", "x"), Finding("image-small", "c.png", "x")], "warning"
    )
    assert "\n" not in sentence
    assert "\x1b" not in Finding("image-small", "a\nb\x1b.png", "x\ny").message
