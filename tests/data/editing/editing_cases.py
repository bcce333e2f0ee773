"""What the tests of the caption editor share: hard texts, encodings, tables, and what is read again."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from rows_table import listed
from test_layouts_of_folders import build

from sd_lora.config.schema import DataConfig
from sd_lora.data.editing.editor import CaptionEditor
from sd_lora.data.folders.listing import list_folder
from sd_lora.errors import DataError

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


def table(tmp_path: Path, kind: str, content: bytes | None = None) -> CaptionEditor:
    names = [f"{letter}.png" for letter in "abcde"]
    build(tmp_path, listed(content or TABLES[kind].encode(), *names, kind=kind))
    return CaptionEditor(tmp_path / "photos")
