"""Texts of captioners, taggers, boorus and programs that draw; and ordinary sentences, which are never changed."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import pytest
from captioned import found
from foreign_table import FOREIGN, HOSTILE, ORDINARY, SYNTAX, Foreign
from rows import every_row

from sd_lora.config.schema import DataConfig
from sd_lora.data.dialects.reading import document_in, read_caption
from sd_lora.data.dialects.tags import ABOUT, SHOWN
from sd_lora.data.folders.listing import list_folder


@every_row("case", FOREIGN, lambda case: case.name)
def test_what_describes_the_picture_is_trained(case: Foreign, tmp_path: Path) -> None:
    captions, codes, _ = found(tmp_path, case.text, syntax="read")
    assert captions == (() if case.trained is None else (case.trained,))
    assert "caption-dialect" in codes
    assert ("caption-empty" in codes) is (case.trained is None)


@every_row("case", FOREIGN, lambda case: case.name)
def test_what_was_read_is_not_read_again(case: Foreign, tmp_path: Path) -> None:
    for caption in found(tmp_path, case.text, syntax="read")[0]:
        assert found(tmp_path, caption, syntax="read") == ((caption,), [], "")


@every_row("text, read", SYNTAX, lambda row: row[0])
def test_syntax_is_named_and_read_where_that_is_set(text: str, read: tuple[str, ...], tmp_path: Path) -> None:
    assert found(tmp_path, text)[:2] == ((text,), ["caption-syntax"])
    assert found(tmp_path, text, syntax="read")[:2] == (read, ["caption-read"])


@every_row("text", ORDINARY, lambda text: text)
def test_ordinary_sentences_are_never_changed(text: str, tmp_path: Path) -> None:
    for syntax in ("keep", "read"):
        assert found(tmp_path, text, syntax=syntax) == ((text,), [], "")


def test_the_finding_says_what_an_unread_caption_is(tmp_path: Path) -> None:
    message = found(tmp_path, "I'm sorry, I can't help with that.")[2]
    assert "a.png: a model's refusal is no caption: \"I'm sorry, I can't help with that.\"" in message
    assert 'a word for nothing is no caption: "N/A"' in found(tmp_path, "N/A")[2]
    assert "a message about an error is no caption" in found(tmp_path, "Error: 429")[2]


def test_the_page_has_the_marks_of_tags() -> None:
    page = (Path(__file__).parents[3] / "docs" / "data.md").read_text("utf-8")
    table = page.partition("<!-- marks -->")[2].partition("<!-- end of marks -->")[0]
    rows = [re.findall(r"`(\w+)`", line) for line in table.splitlines() if "`" in line]
    assert rows == [sorted(ABOUT), sorted(SHOWN)]


@every_row("mark", sorted(ABOUT | SHOWN))
def test_a_mark_is_left_out_alone_or_with_its_tag(mark: str) -> None:
    read = read_caption(f"1girl, {mark}:red_tail, sky")
    assert read.captions == ("1girl, sky" if mark in ABOUT else "1girl, red tail, sky",)
    assert read.note


def test_marks_in_a_post_beside_a_picture_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "a.png.json").write_text('{"id": 3, "md5": "x", "rating": "s", "tags": ["1girl", "artist:bob"]}')
    listing = list_folder(DataConfig(folder=str(tmp_path)))
    assert [entry.captions for entry in listing.entries] == [("1girl",)]
    assert [finding.code for finding in listing.findings] == ["caption-dialect"]


def test_a_default_takes_the_place_of_a_refusal(tmp_path: Path) -> None:
    captions, codes, _ = found(tmp_path, "I cannot describe this image.", default_caption="a house")
    assert (captions, codes) == (("a house",), ["caption-dialect"])


def test_one_line_that_is_no_caption_leaves_the_others(tmp_path: Path) -> None:
    captions, codes, message = found(tmp_path, "a red house\nI'm sorry, I can't help with that.\nN/A")
    assert (captions, codes) == (("a red house",), ["caption-dialect"])
    assert "refusal" in message


@pytest.mark.parametrize("trigger", ["none", "</s>", "nan"])
def test_the_trigger_word_alone_is_a_caption(trigger: str) -> None:
    assert read_caption(trigger, keep=trigger).captions == (trigger,)


def pieces() -> list[str]:
    """What random texts are made of: pieces of all texts here, and words."""
    texts = [*(case.text for case in FOREIGN), *(text for text, _ in SYNTAX), *ORDINARY, *HOSTILE]
    return [part for text in texts for part in (text, text[: len(text) // 2], text[len(text) // 2 :])]


@pytest.mark.parametrize("seed", range(4))
def test_random_texts_are_read_and_nothing_vanishes_in_silence(seed: int) -> None:
    chosen, made = random.Random(seed), pieces()
    for _ in range(250):
        text = chosen.choice(["", " ", "\n", ", "]).join(chosen.choices(made, k=chosen.randrange(1, 6)))
        letters = [chosen.choice("()[]{}<>:|,\"'`\\\n -+_#&") if chosen.random() < 0.03 else each for each in text]
        text = "".join(letters)
        for body in filter(None, [document_in(text), text, *text.splitlines()]):
            for syntax in (False, True):
                read = read_caption(body, syntax=syntax, keep="zwq")
                is_silent = not (read.note or read.pieces or read.escaped)
                assert not is_silent or read.captions == (body,)


@every_row("piece", HOSTILE, lambda piece: piece)
def test_a_piece_over_and_over_is_read_at_once(piece: str) -> None:
    text = (piece * (20_000 // len(piece) + 1))[:20_000]
    started = time.monotonic()
    for body in (text, f"a{text}b"):
        read_caption(body, syntax=True)
        document_in(body)
    assert time.monotonic() - started < 10
