"""Captions edited where each layout keeps them: what training reads is what was written, and nothing else changes."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from layout_table import BARE, KOHYA, MASKS, SIDECARS, Case, jsonl, photos
from rows_table import METADATA, listed, row
from test_layouts_of_folders import build

from sd_lora.config import DataConfig
from sd_lora.data import editing_stores
from sd_lora.data.caption_files import tidy
from sd_lora.data.editing import CaptionEditor
from sd_lora.data.editing_stores import rewritten_lines
from sd_lora.data.listing import list_folder
from sd_lora.data.table_text import text_rows, with_captions
from sd_lora.errors import DataError, StorageError

CASES = [case for case in (*SIDECARS, *MASKS, *BARE, *KOHYA, *METADATA) if not case.settings and case.images]
#: cases whose captions cannot be edited at all, and why
REFUSED = {"parquet": "no text", "parquet with lists": "no text", "parquet with one column in two cases": "no text"}
ENCODINGS = {
    "utf-8": b"", "utf-8 with a mark": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE, "utf-32-le": codecs.BOM_UTF32_LE,
}  # fmt: skip
HARD = [
    'a "quoted", cat',
    "semi;colon\tand tab",
    "{'a': \\n}",
    "façade 漢字 😀 🏴‍☠️ e\u0301",
    "=1+1",
    "a'b",
    "\\",
    '"',
    ",",
]


def files_in(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def read_for_training(folder: Path) -> dict[str, tuple[str, ...]]:
    return {entry.name: entry.captions for entry in list_folder(DataConfig(folder=str(folder))).entries}


def refusal(editor: CaptionEditor, name: str, text: str = "new") -> str:
    before = files_in(editor.folder)
    with pytest.raises(DataError) as caught:
        editor.write(name, text)
    assert files_in(editor.folder) == before
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_read_and_written_is_what_training_reads(case: Case, tmp_path: Path) -> None:
    build(tmp_path, case.files)
    folder = tmp_path / case.folder
    if case.name in REFUSED:
        with pytest.raises(DataError, match=REFUSED[case.name]):
            CaptionEditor(folder)
        return
    editor, trained, before = CaptionEditor(folder), read_for_training(folder), files_in(tmp_path)
    files = {entry.name: entry.file for entry in list_folder(DataConfig(folder=str(folder))).entries}
    assert editor.names == tuple(files)
    for name, captions in trained.items():
        try:
            text = editor.read(name)
        except DataError as error:
            assert "lies outside" in str(error) or "cannot be read" in str(error)  # noqa: PT017
            continue
        found = tuple(dict.fromkeys(text.splitlines()))
        assert found == captions or (not found and case.layout == "kohya")  # there a folder's name stands in
        new = "\n".join(f"new {i}" for i in range(max(1, len(text.splitlines()))))
        if not files[name].is_file():
            assert "not there any more" in refusal(editor, name)
            continue
        try:
            assert editor.write(name, new)
        except DataError as error:
            assert "something else of that name" in str(error)  # noqa: PT017
            continue
        assert read_for_training(folder)[name] == tuple(new.splitlines())
        assert editor.read(name) == new
        assert not editor.write(name, new)
        assert editor.undo() == name
        assert files_in(tmp_path) == before
        assert editor.read(name) == text


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_caption_file_keeps_mark_encoding_and_line_ends(encoding: str, end: str) -> None:
    mark, codec = ENCODINGS[encoding], encoding.removesuffix(" with a mark")
    old = mark + f"one{end}two{end}".encode(codec)
    for captions in (HARD, ["a"], []):
        new = rewritten_lines(old, captions)
        assert new == mark + "".join(caption + end for caption in captions).encode(codec)
    assert rewritten_lines(mark + f"one{end}two".encode(codec), HARD) == mark + end.join(HARD).encode(codec)


def test_what_an_old_encoding_does_not_hold_is_written_in_utf_8(tmp_path: Path) -> None:
    old = "un château près de la rivière".encode("cp1252")
    build(tmp_path, photos("a.png", a=old))
    editor = CaptionEditor(tmp_path / "photos")
    assert editor.read("a.png") == "un château près de la rivière"
    editor.write("a.png", "un château près du fleuve, là-bas")
    assert read_for_training(editor.folder)["a.png"] == ("un château près du fleuve, là-bas",)
    editor.write("a.png", "100 €")  # would be taken for cp1251
    assert read_for_training(editor.folder)["a.png"] == ("100 €",)
    editor.write("a.png", "城 😀")
    assert (editor.folder / "a.txt").read_bytes() == "城 😀".encode()
    for _ in range(3):
        editor.undo()
    assert (editor.folder / "a.txt").read_bytes() == old


def test_new_captions_are_written_beside_images_and_taken_back(tmp_path: Path) -> None:
    build(tmp_path, photos("a.png", "b/c.jpg", "b/c.png", "ümlaut 漢.webp"))
    editor = CaptionEditor(tmp_path / "photos")
    before = files_in(editor.folder)
    for name in editor.names:
        assert editor.read(name) == ""
        assert not editor.write(name, " \n ")
        assert editor.write(name, f"  of   {name} \r\nagain")
    new = files_in(editor.folder).keys() - before.keys()
    assert new == {"a.txt", "b/c.jpg.txt", "b/c.png.txt", "ümlaut 漢.txt"}
    assert (editor.folder / "a.txt").read_bytes() == b"of a.png\nagain\n"
    assert read_for_training(editor.folder)["b/c.jpg"] == ("of b/c.jpg", "again")
    assert [editor.undo() for _ in range(editor.undoable)] == [*reversed(editor.names)]
    assert files_in(editor.folder) == before
    with pytest.raises(DataError, match="nothing was written"):
        editor.undo()


def test_a_caption_that_two_images_share_becomes_one_of_its_own(tmp_path: Path) -> None:
    build(tmp_path, photos("a.png", "a.jpg", a="both"))
    editor = CaptionEditor(tmp_path / "photos")
    assert editor.read("a.png") == "both"
    assert editor.write("a.png", "both")
    assert editor.write("a.jpg", "the jpg")
    assert read_for_training(editor.folder) == {"a.png": ("both",), "a.jpg": ("the jpg",)}
    assert (editor.folder / "a.txt").read_bytes() == b"both"


def test_a_caption_that_was_removed_is_empty_and_comes_back(tmp_path: Path) -> None:
    build(tmp_path, photos("a.png", a="a cat\r\n"))
    editor = CaptionEditor(tmp_path / "photos")
    assert editor.write("a.png", "\n")
    assert files_in(editor.folder)["a.txt"] == b""
    assert editor.undo() == "a.png"
    assert files_in(editor.folder)["a.txt"] == b"a cat\r\n"


TABLES = {
    "jsonl": (
        '{"id": 7, "file_name":"a.png",  "text" : "one" , "more": {"text": "x"}, "n": 1.50}\r\n'
        "\r\n"
        '  {"text": ["two", "", "zwei"], "file_name": "b.png"}  \n'
        '{"file_name": "c.png", "Text": "\\u00e4"}\n'
        '{"file_name": "none.png", "text": "of no image"}\n'
        "not json\n"
        '{"file_name": "d.png"}\n'
        '{"file_name": "e.png", "text": null, "caption": "e"}'
    ),
    "csv": (
        "id,file_name,text,more\r\n"
        '7,a.png,one,"x, ""y"""\r\n'
        "\r\n"
        '8,b.png,"two\r\nlines",\r\n'
        "9,none.png,of no image,\r\n"
        "1,2,3,4,5,6\n"
        "10,c.png\n"
        '11,d.png,"",z'
    ),
}  # fmt: skip


def table(tmp_path: Path, kind: str, content: bytes | None = None) -> CaptionEditor:
    names = [f"{letter}.png" for letter in "abcde"]
    build(tmp_path, listed(content or TABLES[kind].encode(), *names, kind=kind))
    return CaptionEditor(tmp_path / "photos")


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("encoding", ENCODINGS)
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
    assert "could not be told" in refusal(editor, "a.png", "кот")  # would be taken for cp1252
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


def test_folders_whose_captions_cannot_be_edited(tmp_path: Path) -> None:
    build(tmp_path, {**photos("ink/a.png"), "photos/set.toml": "[[datasets]]\n[[datasets.subsets]]\nimage_dir='ink'\n"})
    for folder, why in (("photos", "dataset file"), ("photos/set.toml", "dataset file"), ("gone", "does not exist")):
        with pytest.raises(DataError, match=why):
            CaptionEditor(tmp_path / folder)
    build(tmp_path / "b", listed("[" * 100_000, "a.png"))
    with pytest.raises(DataError, match="no JSON"):
        CaptionEditor(tmp_path / "b" / "photos")


@pytest.mark.parametrize("name", ["", "b.png", "../a.png", "/etc/passwd", "a.txt", "a\0.png", "<script>.png"])
def test_unknown_images_are_refused(name: str, tmp_path: Path) -> None:
    build(tmp_path, {**photos("a.png", a="c"), "a.png": "x"})
    editor = CaptionEditor(tmp_path / "photos")
    for refused in (lambda: editor.read(name), lambda: editor.write(name, "x"), lambda: editor.picture(name)):
        with pytest.raises(DataError, match="there is no image"):
            refused()


def test_what_others_changed_is_not_overwritten(tmp_path: Path) -> None:
    build(tmp_path, photos("a.png", "b.png", a="old", b="b"))
    editor, file = CaptionEditor(tmp_path / "photos"), tmp_path / "photos" / "a.txt"
    editor.read("a.png")
    file.write_text("theirs")
    assert "in a.txt was changed by something else" in refusal(editor, "a.png")
    assert editor.read("a.png") == "theirs"
    assert editor.write("a.png", "mine")
    editor.write("b.png", "mine")
    file.write_text("theirs again")
    assert editor.undo() == "b.png"
    with pytest.raises(DataError, match=r"a\.txt was changed by something else"):
        editor.undo()
    assert file.read_text() == "theirs again"
    assert editor.undoable == 0
    editor.read("b.png")
    (tmp_path / "photos" / "b.txt").unlink()
    assert "was changed" in refusal(editor, "b.png")
    (tmp_path / "photos" / "b.png").unlink()
    editor.read("b.png")
    assert "not there any more" in refusal(editor, "b.png")


def test_what_others_changed_in_a_table(tmp_path: Path) -> None:
    editor = table(tmp_path, "csv", b"file_name,text\na.png,one\nb.png,two\n")
    file = editor.folder / "metadata.csv"
    editor.read("a.png")
    editor.read("b.png")
    file.write_bytes(b"file_name,text\nc.png,new\na.png,ONE\nb.png,two\n")
    assert "was changed by something else" in refusal(editor, "a.png", "x")
    assert editor.write("b.png", "zwei")  # its row is the same, on another line
    assert file.read_bytes() == b"file_name,text\nc.png,new\na.png,ONE\nb.png,zwei\n"
    file.write_bytes(b"file_name,text\na.png,ONE\n")
    assert "not listed in metadata.csv any more" in refusal(editor, "b.png")
    with pytest.raises(DataError, match="stays as it is"):
        editor.undo()
    file.write_bytes(b"file_name")
    assert "not listed" in refusal(editor, "a.png")
    file.write_bytes(b"\0")
    assert "cannot be read" in refusal(editor, "a.png")
    file.unlink()
    assert "cannot be read" in refusal(editor, "a.png")


def test_a_torn_write_leaves_all_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = table(tmp_path, "csv", b"file_name,text\na.png,one\n")
    before = files_in(editor.folder)

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(StorageError, match="No space left"):
        editor.write("a.png", "new")
    assert files_in(editor.folder) == before
    assert editor.undoable == 0


def test_links_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    build(tmp_path, {
        "secret.txt": "hidden", "else/b.png": "x", "photos/a.png": "x", "photos/a.txt": "-> ../secret.txt",
        "photos/more": "-> ../else", "photos/c.png": "x", "photos/texts/d.txt": "inside",
        "photos/c.txt": "-> texts/d.txt", "photos/e.png": "-> ../else/b.png",
    })  # fmt: skip
    editor = CaptionEditor(tmp_path / "photos")
    for name in ("a.png", "more/b.png"):
        with pytest.raises(DataError, match="lies outside of the folder"):
            editor.read(name)
        assert "lies outside" in refusal(editor, name)
    editor.write("c.png", "written through the link")
    assert (tmp_path / "photos/c.txt").is_symlink()
    assert (tmp_path / "photos/texts/d.txt").read_text() == "written through the link"
    editor.write("e.png", "beside a link")
    assert (tmp_path / "photos/e.txt").read_text() == "beside a link\n"
    assert (tmp_path / "secret.txt").read_text() == "hidden"
    build(
        tmp_path / "t",
        {"m.csv": "file_name,text\na.png,c\n", "photos/a.png": "x", "photos/metadata.csv": "-> ../m.csv"},
    )
    with pytest.raises(DataError, match="lies outside"):
        CaptionEditor(tmp_path / "t/photos").read("a.png")


def test_permissions_are_kept(tmp_path: Path) -> None:
    build(tmp_path, photos("a.png", a="c"))
    file = tmp_path / "photos" / "a.txt"
    file.chmod(0o600)
    CaptionEditor(tmp_path / "photos").write("a.png", "new")
    assert file.stat().st_mode & 0o777 == 0o600


def test_limits(tmp_path: Path) -> None:
    build(tmp_path, photos("a.png"))
    editor = CaptionEditor(tmp_path / "photos")
    assert "256 are read" in refusal(editor, "a.png", "x\n" * 257)
    assert "64 kB are read" in refusal(editor, "a.png", "x" * 64_000)
    editor.write("a.png", "\ud800 a\0b\u202e\ufeff\u2028c")
    assert editor.read("a.png") == "\ufffd a b\nc"


def test_threads_do_not_lose_what_others_write(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(8)]
    build(tmp_path, listed(jsonl(*(row(name, "old") for name in names)), *names))
    editors = [CaptionEditor(tmp_path / "photos") for _ in range(2)]
    threads = [
        threading.Thread(target=editors[i % 2].write, args=(name, f"new {i}")) for i, name in enumerate(names)
    ]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_for_training(tmp_path / "photos") == {name: (f"new {i}",) for i, name in enumerate(names)}


LETTERS = st.one_of(st.sampled_from([*"\",;\t\\/'{}[]:\u2028 é漢😀\u200d\r\n"]), st.characters(codec="utf-8"))
CAPTIONS = st.text(LETTERS, max_size=12)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(CAPTIONS, CAPTIONS), min_size=1, max_size=4), st.data(), CAPTIONS.map(tidy),
    st.sampled_from(",;\t"), st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)  # fmt: skip
def test_any_csv_keeps_its_other_values(
    rows: list[tuple[str, str]], data: st.DataObject, caption: str, delimiter: str, end: str, quoting: int
) -> None:
    out = io.StringIO(newline="")
    if any(set(value) & {"\r", "\n"} for pair in rows for value in pair):
        quoting = csv.QUOTE_ALL  # else Python leaves line ends of another kind unquoted
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerows([("file_name", "text", "note"), *((f"{i}.png", *pair) for i, pair in enumerate(rows))])
    text = out.getvalue()
    found = text_rows(text, is_csv=True)
    assert [row.captions for row in found.values()] == [(tidy(one),) if tidy(one) else () for one, _ in rows]
    chosen = data.draw(st.integers(0, len(rows) - 1))
    new = with_captions(text, {list(found)[chosen]: [caption]}, found)
    said = list(csv.reader(io.StringIO(new, newline=""), delimiter=delimiter, strict=True))
    assert said[0] == ["file_name", "text", "note"]
    for i, pair in enumerate(rows):
        expected = [f"{i}.png", *pair]
        if i == chosen:
            expected[1] = caption
        assert said[i + 1] == expected


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(CAPTIONS | st.lists(CAPTIONS, max_size=3) | st.none(), CAPTIONS), min_size=1, max_size=4),
    st.data(), st.lists(CAPTIONS.map(tidy).filter(bool), max_size=3), st.booleans(),
    st.sampled_from([None, (",", ":"), (" ,  ", "\t: ")]),
)  # fmt: skip
def test_any_json_keeps_its_other_values(
    rows: list[tuple[object, str]], data: st.DataObject, captions: list[str], escaped: bool,
    separators: tuple[str, str] | None,
) -> None:  # fmt: skip
    lines = [
        json.dumps(
            {"note": note, "file_name": f"{i}.png", "text": text, "n": i}, ensure_ascii=escaped, separators=separators
        )
        for i, (text, note) in enumerate(rows)
    ]
    text = "\n".join(lines)
    found = text_rows(text, is_csv=False)
    chosen = data.draw(st.integers(0, len(rows) - 1))
    place = f"line {chosen + 1}"
    new = with_captions(text, {place: captions}, found, plain_ascii=escaped).split("\n")
    assert [line for i, line in enumerate(new) if i != chosen] == [line for i, line in enumerate(lines) if i != chosen]
    said, old = json.loads(new[chosen]), json.loads(lines[chosen])
    assert {**said, "text": None} == {**old, "text": None}
    assert text_rows("\n".join(new), is_csv=False)[place].captions == tuple(captions)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CAPTIONS, max_size=4), st.sampled_from(sorted(ENCODINGS)), st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_caption_file_reads_as_it_was_written(
    tmp_path: Path, captions: list[str], encoding: str, end: str
) -> None:  # fmt: skip
    folder, old = tmp_path / "photos", ENCODINGS[encoding] + f"old{end}".encode(encoding.removesuffix(" with a mark"))
    build(tmp_path, {"photos/a.png": "x", "photos/a.txt": old} if not folder.exists() else {"photos/a.txt": old})
    editor = CaptionEditor(folder)
    text = "\n".join(captions)
    expected = tuple(clean for line in text.splitlines() if (clean := tidy(line)))
    assert editor.write("a.png", text) == (expected != ("old",))
    assert tuple(editor.read("a.png").splitlines()) == expected
    if editor.undoable:
        assert read_for_training(folder)["a.png"] == expected
        editor.undo()
    assert (folder / "a.txt").read_bytes() == old
