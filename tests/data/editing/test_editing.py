"""Captions edited where each layout keeps them: what training reads is what was written, and nothing else changes."""

from __future__ import annotations

import os
import threading
from itertools import product
from pathlib import Path

import pytest
from caption_table import CAPTIONS
from editing_cases import ENCODINGS, HARD, files_in, read_for_training, refusal, table
from layout_table import BARE, KOHYA, MASKS, SIDECARS, Case, jsonl, photos
from role_table import ROLE_CASES
from rows import every_row
from rows_table import METADATA, listed, row
from test_layouts_of_folders import build

from sd_lora.config.schema import DataConfig
from sd_lora.data.editing.editor import CaptionEditor
from sd_lora.data.editing.stores import rewritten_lines
from sd_lora.data.folders.listing import list_folder
from sd_lora.errors import DataError, StorageError

CASES = [
    case
    for case in (*SIDECARS, *MASKS, *BARE, *KOHYA, *METADATA, *ROLE_CASES, *CAPTIONS)
    if not case.settings and case.images and case.layout != "kohya-toml"
]
#: captions that the name of a folder of kohya's stands for
FROM_FOLDERS = {(word,) for word in ("house", "ink", "ink wash", "sketch", "woman", "icons", "test tube")}
#: cases whose captions cannot be edited at all, and why
REFUSED = dict.fromkeys(
    ("parquet", "parquet with lists", "parquet with one column in two cases", "a split of parquet"), "not text"
)


@every_row("case", CASES, ids=lambda case: case.name)
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
            assert any(why in str(error) for why in ("is outside the folder", "cannot be read", "by itself"))  # noqa: PT017
            continue
        found = tuple(dict.fromkeys(text.splitlines()))
        assert found == captions or (not found and captions in FROM_FOLDERS)
        new = "\n".join(f"new {i}" for i in range(max(1, len(text.splitlines()))))
        if not files[name].is_file():
            assert "no longer exists; refresh the folder" in refusal(editor, name)
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


@every_row("encoding, end", product(ENCODINGS, ["\n", "\r\n", "\r"]))
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
    assert [editor.undo() for _ in editor.names] == [*reversed(editor.names)]
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


def test_folders_whose_captions_cannot_be_edited(tmp_path: Path) -> None:
    build(tmp_path, {**photos("ink/a.png"), "photos/set.toml": "[[datasets]]\n[[datasets.subsets]]\nimage_dir='ink'\n"})
    for folder, why in (("photos", "dataset file"), ("photos/set.toml", "dataset file"), ("gone", "does not exist")):
        with pytest.raises(DataError, match=why):
            CaptionEditor(tmp_path / folder)
    build(tmp_path / "b", listed("[" * 100_000, "a.png"))
    with pytest.raises(DataError, match="not JSON"):
        CaptionEditor(tmp_path / "b" / "photos")


@every_row("name", ["", "b.png", "../a.png", "/etc/passwd", "a.txt", "a\0.png", "<script>.png"])
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
    assert "in a.txt was changed elsewhere" in refusal(editor, "a.png")
    assert editor.read("a.png") == "theirs"
    assert editor.write("a.png", "mine")
    editor.write("b.png", "mine")
    file.write_text("theirs again")
    assert editor.undo() == "b.png"
    with pytest.raises(DataError, match=r"a\.txt was changed elsewhere"):
        editor.undo()
    assert file.read_text() == "theirs again"
    assert not editor._changes
    editor.read("b.png")
    (tmp_path / "photos" / "b.txt").unlink()
    assert "was changed" in refusal(editor, "b.png")
    (tmp_path / "photos" / "b.png").unlink()
    editor.read("b.png")
    assert "no longer exists; refresh the folder" in refusal(editor, "b.png")


def test_a_torn_write_leaves_all_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = table(tmp_path, "csv", b"file_name,text\na.png,one\n")
    before = files_in(editor.folder)

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(StorageError, match="No space left"):
        editor.write("a.png", "new")
    assert files_in(editor.folder) == before
    assert not editor._changes


def test_links_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    build(tmp_path, {
        "secret.txt": "hidden", "else/b.png": "x", "photos/a.png": "x", "photos/a.txt": "-> ../secret.txt",
        "photos/more": "-> ../else", "photos/c.png": "x", "photos/texts/d.txt": "inside",
        "photos/c.txt": "-> texts/d.txt", "photos/e.png": "-> ../else/b.png",
    })  # fmt: skip
    editor = CaptionEditor(tmp_path / "photos")
    for name in ("a.png", "more/b.png"):
        with pytest.raises(DataError, match="is outside the folder"):
            editor.read(name)
        assert "is outside the folder" in refusal(editor, name)
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
    with pytest.raises(DataError, match="is outside the folder"):
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
    assert "only 64 kB are read" in refusal(editor, "a.png", "x" * 64_000)
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
