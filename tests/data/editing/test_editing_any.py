"""Whatever a caption file or table holds, what is written is read again, and the rest stays."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from editing_cases import ENCODINGS, read_for_training
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_layouts_of_folders import build

from sd_lora.data.dialects.refusals import nothing_in
from sd_lora.data.editing.editor import CaptionEditor
from sd_lora.data.editing.table_text import text_rows, with_captions
from sd_lora.data.folders.caption_files import tidy

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
    assume(not any(map(nothing_in, expected)))  # "NIL" is written, but trained as no caption
    assert editor.write("a.png", text) == (expected != ("old",))
    assert tuple(editor.read("a.png").splitlines()) == expected
    if editor._changes:
        assert read_for_training(folder)["a.png"] == expected
        editor.undo()
    assert (folder / "a.txt").read_bytes() == old
