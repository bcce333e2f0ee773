"""Captions in tables are edited value by value; the rest of a row stays as it was written."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from editing_cases import ENCODINGS, HARD, TABLES, read_for_training, refusal, table
from layout_table import jsonl
from rows import every_row
from rows_table import row

from sd_lora.data.editing import stores as editing_stores
from sd_lora.data.folders.caption_files import tidy
from sd_lora.errors import DataError


@every_row("kind, encoding", product(TABLES, ENCODINGS))
def test_of_a_table_one_value_is_rewritten(kind: str, encoding: str, tmp_path: Path) -> None:
    mark, codec = ENCODINGS[encoding], encoding.removesuffix(" with a mark")
    old = mark + TABLES[kind].encode(codec)
    editor = table(tmp_path, kind, old)
    file, trained = editor.folder / f"metadata.{kind}", read_for_training(editor.folder)
    for i, name in enumerate(editor.names):
        for caption in HARD[i % 4 :: 4]:
            assert editor.write(name, caption)
            now = read_for_training(editor.folder)
            assert now.pop(name) == (tidy(caption),)
            assert now == {other: captions for other, captions in trained.items() if other != name}
            assert editor.undo() == name
            assert file.read_bytes() == old


def test_the_rest_of_a_row_stays_as_it_was_written(tmp_path: Path) -> None:
    editor = table(tmp_path, "jsonl")
    for name in editor.names:
        editor.write(name, "ä 😀")
    lines = (editor.folder / "metadata.jsonl").read_bytes().decode().split("\n")
    # this file escapes what is not ASCII
    assert lines[0] == (
        '{"id": 7, "file_name":"a.png",  "text" : "\\u00e4 \\ud83d\\ude00" , "more": {"text": "x"}, "n": 1.50}\r'
    )
    assert lines[2] == '  {"text": ["\\u00e4 \\ud83d\\ude00"], "file_name": "b.png"}  '
    assert lines[6] == '{"file_name": "d.png", "text": "\\u00e4 \\ud83d\\ude00"}'
    assert lines[7] == '{"file_name": "e.png", "text": null, "caption": "\\u00e4 \\ud83d\\ude00"}'
    editor = table(tmp_path / "other", "csv")
    for name in editor.names:
        editor.write(name, "ä")
    lines = (editor.folder / "metadata.csv").read_bytes().decode().split("\n")
    assert lines[1:] == [
        '7,a.png,ä,"x, ""y"""\r', "\r", '8,b.png,"ä",\r', "9,none.png,of no image,\r", "1,2,3,4,5,6", "10,c.png,ä",
        '11,d.png,"ä",z',
    ]  # fmt: skip


def test_several_captions_of_an_image_in_a_table(tmp_path: Path) -> None:
    editor = table(tmp_path, "jsonl", jsonl(row("a.png", "1"), row("b.png", "x"), row("a.png", ["2", "3"])).encode())
    assert editor.read("a.png") == "1\n2\n3"
    assert "keep their number" in refusal(editor, "a.png", "1\n2")
    editor.write("a.png", "1\nzwei\n3")
    assert (editor.folder / "metadata.jsonl").read_text() == jsonl(
        row("a.png", "1"), row("b.png", "x"), row("a.png", ["zwei", "3"])
    )
    odd = b'{"file_name": "a.png", "text": "one  \\u0061"}\n{"file_name": "a.png", "text": "two"}'
    editor.folder.joinpath("metadata.jsonl").write_bytes(odd)
    editor.read("a.png")
    editor.write("a.png", "one a\nzwei")
    assert (editor.folder / "metadata.jsonl").read_bytes() == odd.replace(b"two", b"zwei")
    editor.undo()
    editor.folder.joinpath("metadata.jsonl").write_text(jsonl(row("a.png", "1"), row("b.png", "x")))
    editor.write("b.png", "one\ntwo")
    assert read_for_training(editor.folder)["b.png"] == ("one", "two")
    editor = table(tmp_path / "short", "csv", b"file_name,id,text\na.png\n")
    editor.write("a.png", "a cat")
    assert (editor.folder / "metadata.csv").read_text() == "file_name,id,text\na.png,,a cat\n"
    editor = table(tmp_path / "csv", "csv", b"text,file_name\n1,a.png\n2,a.png\nx,b.png\n")
    editor.write("a.png", "eins\nzwei")
    assert (editor.folder / "metadata.csv").read_text() == "text,file_name\neins,a.png\nzwei,a.png\nx,b.png\n"
    assert "holds one caption" in refusal(editor, "b.png", "one\ntwo")


def test_what_a_table_cannot_hold_is_refused(tmp_path: Path) -> None:
    editor = table(tmp_path / "1", "csv", b"file_name,other\na.png,x\n")
    assert "no place for a caption in metadata.csv, line 2" in refusal(editor, "a.png")
    old = "file_name,text\na.png,un château près de la rivière\nb.png,là-bas\n".encode("cp1252")
    editor = table(tmp_path / "2", "csv", old)
    editor.write("b.png", "à côté")
    assert read_for_training(editor.folder)["b.png"] == ("à côté",)
    assert "save the file as UTF-8" in refusal(editor, "b.png", "漢")
    editor = table(tmp_path / "4", "csv", "file_name,text\na.png,красная кошка на столе\n".encode("cp1251"))
    assert "would not be recognised" in refusal(editor, "a.png", "кот")  # would be taken for cp1252
    editor.write("a.png", "красная кошка")
    old = jsonl(row("a.png", "x")).encode() + '\n{"file_name": "b.png", "text": "près de la rivière, là"}'.encode(
        "cp1252"
    )
    editor = table(tmp_path / "3", "jsonl", old)
    editor.write("a.png", "漢")  # JSON has another way to write it
    assert read_for_training(editor.folder)["a.png"] == ("漢",)
    assert "64000 are read" in refusal(editor, "a.png", "x" * 64_001)


def test_a_row_that_would_be_lost_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = table(tmp_path, "csv", b"file_name,text\na.png,one\nb.png,two\n")
    for broken in (
        "file_name,text\na.png,new\nb.png,TWO\n",
        "file_name,text\na.png,new\n",
        "file_name,text\na.png,old\n",
    ):
        monkeypatch.setattr(editing_stores, "with_captions", lambda *_, broken=broken, **__: broken)
        assert "cannot be written" in refusal(editor, "a.png", "new")


def test_what_others_changed_in_a_table(tmp_path: Path) -> None:
    editor = table(tmp_path, "csv", b"file_name,text\na.png,one\nb.png,two\n")
    file = editor.folder / "metadata.csv"
    editor.read("a.png")
    editor.read("b.png")
    file.write_bytes(b"file_name,text\nc.png,new\na.png,ONE\nb.png,two\n")
    assert "was changed elsewhere" in refusal(editor, "a.png", "x")
    assert editor.write("b.png", "zwei")  # its row is the same, on another line
    assert file.read_bytes() == b"file_name,text\nc.png,new\na.png,ONE\nb.png,zwei\n"
    file.write_bytes(b"file_name,text\na.png,ONE\n")
    assert "no longer listed in metadata.csv" in refusal(editor, "b.png")
    with pytest.raises(DataError, match="stays as it is"):
        editor.undo()
    file.write_bytes(b"file_name")
    assert "no longer listed" in refusal(editor, "a.png")
    file.write_bytes(b"\0")
    assert "cannot be read" in refusal(editor, "a.png")
    file.unlink()
    assert "cannot be read" in refusal(editor, "a.png")
