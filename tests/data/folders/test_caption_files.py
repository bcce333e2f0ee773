"""Caption files as editors of all systems write them: what they say, or why they say nothing."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from rows import every_row

from sd_lora.data.folders.caption_files import CaptionError, read_caption_file, tidy
from sd_lora.errors import DataError

EMOJI = "a cat 🐈 and a family 👨\u200d👩\u200d👧 under 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
ARABIC, HEBREW, PERSIAN = "بيت أحمر بجانب النهر", "בית אדום ליד הנהר", "خانه\u200cها"
FRENCH = "un château près de la rivière, l’été"
RUSSIAN, JAPANESE, CHINESE, KOREAN = (
    "красный дом у реки",
    "赤い家と青い空、川のそば",
    "红色的房子在河边",
    "강가의 빨간 집과 나무",
)
GREEK = "κόκκινο σπίτι δίπλα στο ποτάμι"
LONG = "a red house, " * 4900

#: what is in the file → its captions and encoding, or a part of why there are none
GOOD: dict[str, tuple[bytes, list[str], str]] = {
    "plain": (b"a cat", ["a cat"], ""),
    "empty": (b"", [], ""),
    "blank": (b" \t\r\n \n", [], ""),
    "only a mark": (codecs.BOM_UTF8, [], ""),
    "only control characters": (b"\x01\x02\x1b", [], ""),
    "one character": (b"a", ["a"], ""),
    "trailing LF": (b"a cat\n", ["a cat"], ""),
    "trailing CRLF": (b"a cat\r\n", ["a cat"], ""),
    "LF": (b"one\ntwo", ["one", "two"], ""),
    "CRLF": (b"one\r\ntwo\r\n", ["one", "two"], ""),
    "CR": (b"one\rtwo\r", ["one", "two"], ""),
    "mixed line ends": (b"one\rtwo\nthree\r\nfour", ["one", "two", "three", "four"], ""),
    "blank lines": (b"\n\none\n\n \ntwo\n", ["one", "two"], ""),
    "line separator": ("one\u2028two".encode(), ["one", "two"], ""),
    "paragraph separator": ("one\u2029two".encode(), ["one", "two"], ""),
    "next line": ("one\u0085two".encode(), ["one", "two"], ""),
    "form feed": (b"one\x0ctwo", ["one", "two"], ""),
    "tabs": (b"\ta\t\tcat\t", ["a cat"], ""),
    "spaces": (b"  a   cat  ", ["a cat"], ""),
    "NBSP": ("a\u00a0cat".encode(), ["a cat"], ""),
    "narrow NBSP": ("a\u202fcat".encode(), ["a cat"], ""),
    "ideographic space": ("赤い\u3000家".encode(), ["赤い 家"], ""),
    "zero-width space": ("a \u200bcat\u200b".encode(), ["a cat"], ""),
    "word joiner": ("a cat\u2060".encode(), ["a cat"], ""),
    "mark within": ("a \ufeffcat".encode(), ["a cat"], ""),
    "soft hyphen": ("light\u00adhouse".encode(), ["lighthouse"], ""),
    "bell": (b"a\x07 cat", ["a cat"], ""),
    "escape codes": (b"a \x1b[1mcat", ["a [1mcat"], ""),
    "DEL": (b"a\x7fcat", ["a cat"], ""),
    "C1 control": ("a\u0090cat".encode(), ["a cat"], ""),
    "direction marks": (f"\u202b{HEBREW}\u202c\u200f".encode(), [HEBREW], ""),
    "emoji": (EMOJI.encode(), [EMOJI], ""),
    "variation selector": ("a ❤\ufe0f".encode(), ["a ❤\ufe0f"], ""),
    "combining accent": (b"cafe\xcc\x81", ["cafe\u0301"], ""),
    "Persian joiner": (PERSIAN.encode(), [PERSIAN], ""),
    "tags": (b"1girl, red_hair,  smile (happy), :3", ["1girl, red_hair, smile (happy), :3"], ""),
    "trigger": (b"a cat, in [trigger] style", ["a cat, in [trigger] style"], ""),
    "hash": (b"# one\n// two", ["# one", "// two"], ""),
    "quotes": (b'"a cat"', ['"a cat"'], ""),
    "replacement character": ("a \ufffd cat".encode(), ["a \ufffd cat"], ""),
    "private use": ("a \ue000 cat".encode(), ["a \ue000 cat"], ""),
    "long": (LONG.encode(), [LONG.strip()], ""),
    "many lines": (b"a cat\n" * 1000, ["a cat"] * 1000, ""),
    "just 64 kB": (b"a" * 64_000, ["a" * 64_000], ""),
    "UTF-8 French": (FRENCH.encode(), [FRENCH], ""),
    "UTF-8 Arabic": (ARABIC.encode(), [ARABIC], ""),
    "UTF-8 Hebrew": (HEBREW.encode(), [HEBREW], ""),
    "UTF-8 Russian": (RUSSIAN.encode(), [RUSSIAN], ""),
    "UTF-8 Chinese": (CHINESE.encode(), [CHINESE], ""),
    "UTF-8 BOM": (codecs.BOM_UTF8 + b"a cat", ["a cat"], ""),
    "UTF-8 BOM emoji CRLF": (codecs.BOM_UTF8 + f"{EMOJI}\r\n{ARABIC}".encode(), [EMOJI, ARABIC], ""),
    "UTF-8 BOM blank": (codecs.BOM_UTF8 + b"\r\n", [], ""),
    **{
        f"{name} {what}": (mark + text.encode(name), expected, name)
        for name, mark in (
            ("utf-16-le", codecs.BOM_UTF16_LE), ("utf-16-be", codecs.BOM_UTF16_BE),
            ("utf-32-le", codecs.BOM_UTF32_LE), ("utf-32-be", codecs.BOM_UTF32_BE),
        )
        for what, text, expected in (
            ("plain", "a cat", ["a cat"]), ("empty", "", []), ("CRLF", "one\r\ntwo\r\n", ["one", "two"]),
            ("emoji", EMOJI, [EMOJI]), ("Arabic", ARABIC, [ARABIC]), ("separator", "a\u2028b", ["a", "b"]),
        )
    },
}  # fmt: skip
GUESSED: dict[str, tuple[bytes, list[str], str]] = {
    f"{name} {text[:8]}": (text.encode(name), [text], name)
    for name, text in (
        ("cp1252", FRENCH), ("cp1252", "naïve façade"), ("cp1252", "Straße mit Bäumen und Häusern"), ("cp1252",
        "a red house, 20°C, £5"),
        ("cp1251", RUSSIAN), ("cp1253", GREEK), ("cp932", JAPANESE), ("gb18030", CHINESE), ("cp949", KOREAN),
    )
}  # fmt: skip
BAD: dict[str, tuple[bytes, str]] = {
    "NUL": (b"a\0cat", "NUL"),
    "NUL at the end": (b"a cat\0", "NUL"),
    "NUL after a mark": (codecs.BOM_UTF8 + b"a\0cat", "NUL"),
    "NUL in UTF-16": (codecs.BOM_UTF16_LE + "a\0b".encode("utf-16-le"), "NUL"),
    "UTF-16 without a mark": ("a cat".encode("utf-16-le"), "NUL"),
    "UTF-32 without a mark": ("a cat".encode("utf-32-be"), "NUL"),
    "UTF-16 cut short": (codecs.BOM_UTF16_LE + b"a\0c", "NUL"),
    "PNG": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "NUL"),
    "ZIP": (b"PK\x03\x04\x14\0\0\0", "NUL"),
    "all bytes": (bytes(range(1, 256)), "not text in any known encoding"),
    "noise": (bytes((i * 89 + 13) % 255 + 1 for i in range(3000)), "not text in any known encoding"),
    "a few odd bytes": (b"\x8b\xaf\xad\x1as\xbd2\x8d", "not text in any known encoding"),
    "over 64 kB": (b"a" * 64_001, "only 64 kB are read"),
    "far over 64 kB": (b"a cat\n" * 1_000_000, "6000 kB"),
}


def written(folder: Path, content: bytes) -> Path:
    file = folder / "a.txt"
    file.write_bytes(content)
    return file


def refused(file: Path) -> str:
    with pytest.raises(CaptionError) as caught:
        read_caption_file(file)
    assert isinstance(caught.value, DataError)
    assert caught.value.detail in str(caught.value)
    assert str(file) in str(caught.value)
    return caught.value.detail


def test_there_are_enough_files() -> None:
    assert len(GOOD) + len(GUESSED) + len(BAD) >= 80


@every_row("name", GOOD)
def test_text_is_read(name: str, tmp_path: Path) -> None:
    content, captions, encoding = GOOD[name]
    text = read_caption_file(written(tmp_path, content))
    assert list(text.captions) == captions
    assert (text.encoding, text.guessed) == (encoding, False)


@every_row("name", GUESSED)
def test_an_encoding_that_nothing_tells_is_guessed(name: str, tmp_path: Path) -> None:
    content, captions, encoding = GUESSED[name]
    text = read_caption_file(written(tmp_path, content))
    assert list(text.captions) == captions
    assert (text.encoding, text.guessed) == (encoding, True)


@every_row("name", BAD)
def test_what_is_no_text_is_refused(name: str, tmp_path: Path) -> None:
    content, why = BAD[name]
    assert why in refused(written(tmp_path, content))


@every_row("name", [name for name in GOOD if len(GOOD[name][1]) > 1])
def test_lines_joined_are_one_caption(name: str, tmp_path: Path) -> None:
    content, captions, _ = GOOD[name]
    assert read_caption_file(written(tmp_path, content), "joined").captions == (" ".join(captions),)


def test_nothing_joined_is_nothing(tmp_path: Path) -> None:
    assert read_caption_file(written(tmp_path, b"\n\n"), "joined").captions == ()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path) == "a folder"
    assert "no such file" in refused(tmp_path / "gone.txt")
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    assert "symbolic links" in refused(tmp_path / "loop.txt")


def test_half_a_character_becomes_a_sign(tmp_path: Path) -> None:
    assert tidy("a \ud83d cat") == "a \ufffd cat"
