"""Where each row's captions are in the text of a ``metadata.jsonl`` or ``.csv``, and the text with other captions.

Only these values change: the rest of a row, and every other row, stays as it was written."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sd_lora.data.folders.metadata_rows import DELIMITERS, TEXTS, columns_of, csv_records, is_blank, texts_of

_BLANK = " \t\r\n"
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class TextRow:
    """A row as it is written (`raw`), its `captions` as they are read, and how others are put in: between the places
    `start` and `end` of the complete text, after `before`, in the `form` "text", "list" or, for CSV, the delimiter."""

    place: str
    raw: str
    captions: tuple[str, ...]
    start: int
    end: int
    form: str
    before: str = ""
    quoted: bool = False

    def written(self, captions: Sequence[str], plain_ascii: bool) -> str:
        """`captions` as the row writes them. ValueError, in a clause, if it cannot hold them."""
        if self.form not in DELIMITERS:
            one = captions[0] if captions else ""
            value = one if self.form == "text" and len(captions) < 2 else list(captions)
            return self.before + json.dumps(value, ensure_ascii=plain_ascii)
        if len(captions) > 1:
            raise ValueError(f"a row of a CSV file holds one caption, but {len(captions)} lines were given; write one")
        text = "".join(captions)
        if self.quoted or any(c in text for c in (self.form, '"')):
            text = '"' + text.replace('"', '""') + '"'
        return self.before + text


def text_rows(text: str, *, is_csv: bool) -> dict[str, TextRow]:
    """The rows of a table's `text` that can be rewritten, by the place that `read_rows` gives them."""
    return {row.place: row for row in (_csv_rows(text) if is_csv else _json_rows(text))}


def with_captions(
    text: str, changes: Mapping[str, Sequence[str]], rows: Mapping[str, TextRow], *, plain_ascii: bool = False
) -> str:
    """`text` with other captions in the rows at these places; `plain_ascii`: in JSON all other letters are escaped.

    ValueError, in a clause, if a row cannot hold them.
    """
    for place in sorted(changes, key=lambda place: -rows[place].start):
        row = rows[place]
        text = text[: row.start] + row.written(changes[place], plain_ascii) + text[row.end :]
    return text


def _json_rows(text: str) -> Iterator[TextRow]:
    offset = 0
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            with contextlib.suppress(ValueError, RecursionError):
                yield _json_row(f"line {number}", line, offset)
        offset += len(line) + 1


def _json_row(place: str, line: str, offset: int) -> TextRow:
    """The row in a line of JSON. ValueError if it is not an object."""
    pairs = list(_members(line))
    given = [(key.strip().lower(), value) for key, value, _, _ in pairs]
    column = _column_read(given)
    if column is None:  # null, or no text at all
        empty = next((i for name in TEXTS for i, (key, _) in enumerate(given) if key == name), None)
        if empty is None:
            last = pairs[-1][3]
            return TextRow(place, line, (), offset + last, offset + last, "text", ', "text": ')
        column = empty
    _, value, start, end = pairs[column]
    form = "list" if isinstance(value, list) else "text"
    return TextRow(place, line, texts_of(value) or (), offset + start, offset + end, form)


def _members(line: str) -> Iterator[tuple[str, Any, int, int]]:
    """The members of the object that `line` is: key, value, and where the value starts and ends."""
    at = _after_blanks(line, 0)
    if line[at : at + 1] != "{":
        raise ValueError("not an object")
    while True:
        name, at = _DECODER.raw_decode(line, _after_blanks(line, at + 1))
        at = _after_blanks(line, at)
        start = _after_blanks(line, at + 1)
        value, end = _DECODER.raw_decode(line, start)
        yield name, value, start, end
        at = _after_blanks(line, end)
        if line[at : at + 1] != ",":
            return


def _after_blanks(line: str, at: int) -> int:
    while line[at : at + 1] and line[at] in _BLANK:
        at += 1
    return at


def _column_read(given: Sequence[tuple[str, Any]]) -> int | None:
    """Which of the columns (name, value) is read as the caption: the first that is not blank, else the first;
    None if there is none or all are null."""
    texts = [i for name in TEXTS for i, (column, value) in enumerate(given) if column == name and value is not None]
    return min(texts, key=lambda i: is_blank(given[i][1]), default=None)


def _csv_rows(text: str) -> Iterator[TextRow]:
    lines = _Lines(text)
    delimiter, columns = columns_of(lines.header)
    start = lines.at
    for place, values in csv_records(lines, delimiter):
        if not isinstance(values, str) and any(values) and len(values) <= len(columns):
            with contextlib.suppress(ValueError):
                yield _csv_row((place, text[start : lines.at], start), delimiter, columns, values)
        start = lines.at


def _csv_row(record: tuple[str, str, int], delimiter: str, columns: Sequence[str], values: Sequence[str]) -> TextRow:
    """The row of `values` in a `record` (place, raw text, offset). ValueError if it has no column of text."""
    place, raw, offset = record
    spans = _spans(raw, delimiter)
    if [_plain(raw[start:end]) for start, end in spans] != list(values):
        raise ValueError("its values are not where they should be")
    column = _column_read(list(zip(columns, values, strict=False)))
    if column is None:  # the row ends before its column
        column = next((i for text in TEXTS for i, name in enumerate(columns) if name == text), None)
        if column is None:
            raise ValueError("it has no column of text")
        end = offset + spans[-1][1]
        return TextRow(place, raw, (), end, end, delimiter, delimiter * (column - len(values) + 1))
    start, end = spans[column]
    quoted = raw[start : start + 1] == '"'
    return TextRow(place, raw, texts_of(values[column]) or (), offset + start, offset + end, delimiter, quoted=quoted)


def _spans(raw: str, delimiter: str) -> list[tuple[int, int]]:
    """Where the values of a CSV record start and end, quotes included. ValueError for an open quote."""
    spans, at = [], 0
    while True:
        start = at
        if raw[at : at + 1] == '"':
            at = raw.index('"', at + 1) + 1
            while raw[at : at + 1] == '"':
                at = raw.index('"', at + 1) + 1
        else:
            while at < len(raw) and raw[at] not in (delimiter, "\r", "\n"):
                at += 1
        spans.append((start, at))
        if raw[at : at + 1] != delimiter:
            return spans
        at += 1


def _plain(value: str) -> str:
    return value[1:-1].replace('""', '"') if value.startswith('"') else value


class _Lines:
    """The lines of a text after its first, and how much of the text has been read."""

    def __init__(self, text: str) -> None:
        stripped = text.lstrip("\r\n")
        self._lines = io.StringIO(stripped, newline="")
        self.header = self._lines.readline()
        self.at = len(text) - len(stripped) + len(self.header)

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.at += len(line)
        return line
