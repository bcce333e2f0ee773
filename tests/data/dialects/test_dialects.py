"""Text of other programs beside pictures: only what describes the picture is trained, and that is said."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from captioned import found
from dialect_table import CASES, GRAPH, LAST, WEIGHED, Case
from rows import every_row
from typer.testing import CliRunner

from sd_lora.commands.app import app
from sd_lora.config.schema import DataConfig
from sd_lora.data.dialects.reading import document_in, read_caption
from sd_lora.data.dialects.syntax import pieces_of
from sd_lora.data.folders.listing import list_folder


@every_row("case", CASES, lambda case: case.name)
def test_what_describes_the_picture_is_trained(case: Case, tmp_path: Path) -> None:
    captions, codes, _ = found(tmp_path, case.text)
    assert (captions, codes) == (case.trained, sorted(case.codes))


@every_row("case", CASES, lambda case: case.name)
def test_syntax_is_read_where_that_is_set(case: Case, tmp_path: Path) -> None:
    captions, codes, _ = found(tmp_path, case.text, syntax="read")
    assert captions == (case.read or case.trained)
    assert codes == sorted("caption-read" if code == "caption-syntax" else code for code in case.codes)


@every_row("case", CASES, lambda case: case.name)
def test_what_was_read_is_not_read_again(case: Case, tmp_path: Path) -> None:
    for caption in found(tmp_path, case.text, syntax="read")[0]:
        again = read_caption(caption, syntax=False)
        assert again.captions == (caption,)
        assert not again.note


@every_row("case", WEIGHED, lambda case: case.name)
def test_the_pieces_are_named(case: Case) -> None:
    pieces = pieces_of(case.text)
    assert pieces
    assert all(piece in case.text for piece in pieces)


def test_the_finding_names_program_and_pieces(tmp_path: Path) -> None:
    message = found(tmp_path, f"a red house\n{LAST}")[2]
    assert message.startswith('a.png: text of A1111, of which only the prompt is trained; trained is "a red house"; ')
    message = found(tmp_path, "creator:bob\nrating:safe\nblue hair")[2]
    assert message.startswith('a.png: creator:bob, rating:safe are left out; trained is "blue hair"; ')
    message = found(tmp_path, "a (red:1.2) cat", syntax="read")[2]
    assert message.startswith('a.png: (red:1.2) read; trained is "a red cat"; ')
    message = found(tmp_path, "a (red:1.2) cat BREAK <lora:ink:1>")[2]
    assert "a.png: (red:1.2), BREAK, <lora:ink:1> trained as written; take it out, or set data.syntax=read" in message


def test_the_trigger_word_is_never_changed(tmp_path: Path) -> None:
    text = "my_ink, long_hair, blue_eyes"
    assert found(tmp_path, text, syntax="read", trigger="my_ink")[0] == ("my_ink, long hair, blue eyes",)
    assert found(tmp_path, "1girl my_ink long_hair blue_eyes", trigger="my_ink")[0] == (
        "1girl, my_ink, long hair, blue eyes",
    )


def test_captions_of_tables_and_defaults_are_read_too(tmp_path: Path) -> None:
    rows = [{"file_name": "a.png", "text": f"a red house\nNegative prompt: x\n{LAST}"}, {"file_name": "b.png"}]
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(b"x")
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    listing = list_folder(DataConfig(folder=str(tmp_path), default_caption=r"miku \(x\)"))
    assert [entry.captions for entry in listing.entries] == [("a red house",), ("miku (x)",)]


@pytest.mark.parametrize("syntax", ["keep", "read"])
def test_check_shows_what_is_trained(syntax: str, image_folder: Path) -> None:
    texts = [f"a red house\nNegative prompt: left\n{LAST}", r"miku \(x\), sky", "a (red:1.3) cat", json.dumps(GRAPH)]
    for number, text in enumerate(texts):
        (image_folder / f"{number:02}.txt").write_text(text)
    arguments = ["check", str(image_folder), "--base", "tiny", "--trigger", "zwq", "--json", f"data.syntax={syntax}"]
    done = CliRunner().invoke(app, arguments)
    checked = json.loads(done.stdout)
    captions = [example["caption"].removesuffix(", in zwq style") for example in checked["examples"]]
    assert captions[:4] == [
        "a red house",
        "miku (x), sky",
        "a red cat" if syntax == "read" else "a (red:1.3) cat",
        "a red house",
    ]
    codes = {
        finding["file"]: finding["code"] for finding in checked["findings"] if finding["code"].startswith("caption-")
    }
    assert codes["00.png"] == codes["03.png"] == "caption-dialect"
    assert codes["02.png"] == ("caption-read" if syntax == "read" else "caption-syntax")


def test_a_setting_that_reads_nothing_is_refused(image_folder: Path) -> None:
    done = CliRunner().invoke(app, ["check", str(image_folder), "--base", "tiny", "--json", "data.syntax=read"])
    assert "data.syntax has no effect because no caption or prompt has syntax to read" in done.stdout
    assert done.exit_code == 2


def test_many_alternatives_are_each_there_once() -> None:
    read = read_caption("{a|b|c} {d|e} {f|g} {h|i} x", syntax=True).captions
    assert read == ("a d f h x", "b e g i x", "c d f h x")


@every_row(
    "text",
    ["(" * 60_000, "(a" * 30_000 + ")" * 30_000, "{a|" * 20_000, "Prompt:" + " " * 60_000, "_" * 60_000 + "!",
     "a_" * 30_000 + "!", "{a|b}" * 10_000, "Steps: " * 9_000, " --" * 20_000, "(a:" * 15_000, "AND " * 16_000,
     "<lora:" * 10_000, "1::" * 20_000, "[[a]" * 10_000 + "]" * 9, "([{" * 10 + ")" * 50_000, '{"a":' * 9_000,
     "\ufdd0\ufdd6(", "a\n" * 30_000],
    lambda text: text[:12],
)  # fmt: skip
def test_hostile_text_is_read_at_once(text: str) -> None:
    started = time.monotonic()
    for syntax in (False, True):
        assert all(isinstance(caption, str) for caption in read_caption(text, syntax=syntax).captions)
    document_in(text)
    assert time.monotonic() - started < 5
