"""Read the rows of a metadata file (JSON lines, CSV, Parquet): names of images, not yet looked for, and captions."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sd_lora.data.folders.caption_files import MAX_BYTES as MAX_CAPTION
from sd_lora.data.folders.caption_files import decode_text, tidy
from sd_lora.data.folders.metadata_purpose import is_purpose, steering_of, use_of
from sd_lora.data.folders.role_names import Use
from sd_lora.data.folders.tree import suffix_of
from sd_lora.errors import DataError, SdLoraError, reason, shown, some

NAMES = ("file_name", "image", "file", "filename", "path")
TEXTS = ("text", "caption", "prompt", "description")
MASKS = ("mask",)
#: of text; a Parquet file may hold other columns that are not read
MAX_BYTES = 32_000_000
MAX_PARQUET = 256_000_000
MAX_ROWS = 100_000
DELIMITERS = ",;\t"
#: columns and what they hold; a column may occur twice
Values = Sequence[tuple[str, Any]]
#: a place, and the values there or why there are none
Found = tuple[str, Values | str]


class RowsError(DataError):
    """Why nothing of a metadata file can be used, in a clause."""


@dataclass(frozen=True)
class Row:
    """An image as one row describes it. `captions` are None if the row has no text at all."""

    place: str
    name: str
    captions: tuple[str, ...] | None
    mask: str | None = None
    #: what it is used as, if a column says so
    use: Use | Literal[""] = ""
    #: pictures that steer a ControlNet
    steering: Sequence[str] = ()


@dataclass
class Rows:
    """The rows of one file, those that cannot be used (place, why), in how many rows a column is `unread` because
    another one is read, the encoding if it was guessed, and in how many rows a column of `steering` pictures and an
    `unknown` split are."""

    rows: list[Row] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)
    encoding: str = ""
    steering: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)


def read_rows(file: Path) -> Rows:
    """The rows of ``metadata.jsonl``, ``.csv`` or ``.parquet``.

    Raises RowsError if none can be read, DataError if the library for Parquet is not installed.
    """
    rows = Rows()
    try:
        if suffix_of(file.name) == ".parquet":
            places = _parquet(file)
        else:
            text, encoding = read_text(file)
            rows.encoding = encoding
            # a JSON text may hold other line ends
            lines = ((f"line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
            is_json = suffix_of(file.name) == ".jsonl"
            places = ((place, _json(line)) for place, line in lines) if is_json else _csv(text)
        for place, values in places:
            if len(rows.rows) + len(rows.broken) >= MAX_ROWS:
                raise RowsError(f"over {MAX_ROWS} rows")
            try:
                rows.rows.append(_row(place, values, rows))
            except ValueError as error:
                rows.broken.append((place, str(error)))
    except OSError as error:
        raise RowsError(reason(error)) from error
    return rows


def read_text(file: Path) -> tuple[str, str]:
    """The text of `file` and its encoding if that was guessed; RowsError if it is too large or not text."""
    try:
        if not file.is_file():
            raise RowsError("not a regular file")
        if file.stat().st_size > MAX_BYTES:
            raise RowsError(f"over {MAX_BYTES // 1_000_000} MB")
        text, encoding, guessed = decode_text(file.read_bytes())
    except OSError as error:
        raise RowsError(reason(error)) from error
    except ValueError as error:
        raise RowsError(str(error)) from error
    return text, encoding if guessed else ""


def texts_of(value: object) -> tuple[str, ...] | None:
    """The captions a value holds: a text or a list of texts; None if it is null. ValueError for anything else."""
    if value is None:
        return None
    texts: list[Any] = value if isinstance(value, list) else [value]
    wrong = [text for text in texts if not isinstance(text, str)]
    if wrong:
        raise ValueError(f"its caption is {kind_of(wrong[0])}, not text")
    longest = max(map(len, texts), default=0)
    if longest > MAX_CAPTION:
        raise ValueError(f"its caption has {longest} characters, but only {MAX_CAPTION} are read")
    return tuple(clean for text in texts if (clean := tidy(text)))


def kind_of(value: object) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", dict: "an object", list: "a list", str: "text"}
    return "nothing" if value is None else names.get(type(value), f"of type {type(value).__name__}")


def _row(place: str, values: Values | str, table: Rows) -> Row:
    if isinstance(values, str):
        raise ValueError(values)
    names, masks, texts = (_in_columns(values, columns) for columns in (NAMES, MASKS, TEXTS))
    name, mask, text = (pairs[0][1] if pairs else None for pairs in (names, masks, texts))
    if name is None or name == "":
        raise ValueError(f"it names no image ({NAMES[0]})")
    wrong = [value for value in (name, mask) if not isinstance(value, str | None)]
    if wrong:
        raise ValueError(f"a file's name is {kind_of(wrong[0])}, not text")
    captions = texts_of(text)
    # another path beside file_name is not missed; a second file_name is
    rivals = [pairs[1:] for pairs in (texts, [pair for pair in names if pair[0] == names[0][0]], masks)]
    table.unread.update({column for pairs in rivals for column, value in pairs if not is_blank(value)})
    use, unknown = use_of(values)
    steering, column = steering_of(values)
    table.unknown.update([unknown] if unknown else [])
    table.steering.update([column] if column else [])
    return Row(place, name.strip(), captions, mask or None, use, steering)


def _in_columns(values: Values, columns: Sequence[str]) -> Values:
    """The pairs of `columns`: the one that is read, then those with another value. Blank ones come last."""
    given = [(column.strip().lower(), value) for column, value in values]
    pairs = [(name, value) for column in columns for name, value in given if name == column and value is not None]
    pairs.sort(key=lambda pair: is_blank(pair[1]))
    return pairs[:1] + [pair for pair in pairs if pair[1] != pairs[0][1]]


def is_blank(value: object) -> bool:
    """Whether a text, or each text of a list, holds nothing visible."""
    return all(isinstance(v, str) and not tidy(v) for v in (value if isinstance(value, list) else [value]))


def _json(line: str) -> Values | str:
    outer: list[tuple[str, Any]] = []

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        outer[:] = pairs  # the outermost object comes last
        return dict(pairs)

    try:
        values = json.loads(line, object_pairs_hook=keep)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {str(error).partition(':')[0].lower()}"
    return outer if isinstance(values, dict) else f"{kind_of(values)}, not an object"


def _csv(text: str) -> Iterator[Found]:
    lines = io.StringIO(text.lstrip("\r\n"), newline="")
    delimiter, columns = columns_of(lines.readline())
    for place, values in csv_records(lines, delimiter):
        if isinstance(values, str):
            yield place, values
        elif len(values) > len(columns):
            yield place, f"{len(values)} values for {len(columns)} columns; a caption with {delimiter!r} needs quotes"
        elif any(values):
            yield place, list(zip(columns, values, strict=False))


def csv_records(lines: Iterable[str], delimiter: str) -> Iterator[tuple[str, list[str] | str]]:
    """The records below the first line of a CSV file: a place, and the values there or why there are none."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        place = f"line {reader.line_num + 2}"
        try:
            values = next(reader, None)
        except csv.Error as error:
            yield place, f"not CSV: {error}"
            continue
        if values is None:
            return
        yield place, values


def columns_of(header: str) -> tuple[str, list[str]]:
    """The delimiter under which the header names a column of images, and its columns. RowsError."""
    columns: list[str] = []
    for delimiter in DELIMITERS:
        with contextlib.suppress(csv.Error):
            columns = [column.strip().lower() for column in next(csv.reader([header], delimiter=delimiter), [])]
            if set(columns) & set(NAMES):
                return delimiter, columns
    raise RowsError(f"its first line has no column {NAMES[0]}, but {clipped(header.strip()) or 'nothing'}")


def _parquet(file: Path) -> Iterator[Found]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f'{shown(str(file))} needs pyarrow; pip install "sd-lora[parquet]"') from error
    if not file.is_file():
        raise RowsError("not a regular file")
    if file.stat().st_size > MAX_PARQUET:
        raise RowsError(f"over {MAX_PARQUET // 1_000_000} MB")
    row = size = 0
    try:
        with file.open("rb") as content, parquet.ParquetFile(content) as table:
            columns = _parquet_columns(table)
            for batch in table.iter_batches(batch_size=4096, columns=columns):
                for index in range(batch.num_rows):  # row by row, as a short file may unpack to much text
                    values = [(name, batch[name][index].as_py()) for name in columns]
                    row += 1
                    size += sum(_length(value) for _, value in values)
                    if size > MAX_BYTES:
                        raise RowsError(f"over {MAX_BYTES // 1_000_000} MB of text")
                    yield f"row {row}", values
    except (OSError, SdLoraError):
        raise
    except Exception as error:  # a damaged file raises a dozen types of errors
        raise RowsError(f"not Parquet: {clipped(str(error))}") from error


def _parquet_columns(table: Any) -> list[str]:
    """The columns that are needed, once their types and sizes are checked."""
    import pyarrow

    schema, meta = table.schema_arrow, table.metadata
    if meta.num_rows > MAX_ROWS:
        raise RowsError(f"over {MAX_ROWS} rows")
    names = {name: name.strip().lower() for name in schema.names}
    if not any(name in NAMES for name in names.values()):
        raise RowsError(f"it has no column {NAMES[0]}, but {some(schema.names)}")
    wanted = [name for name, plain in names.items() if plain in (*NAMES, *TEXTS, *MASKS) or is_purpose(plain)]
    for name in wanted:
        if schema.names.count(name) > 1:
            raise RowsError(f"it has the column {name} twice; rename one")
        kind = schema.field(name).type
        if pyarrow.types.is_struct(kind):
            raise RowsError(
                f"its column {name} holds {clipped(str(kind))}; save the images as files and name them there"
            )
    # the total for all columns: reading that of each aborts the process if the file is damaged
    if sum(meta.row_group(index).total_byte_size for index in range(meta.num_row_groups)) > 4 * MAX_PARQUET:
        raise RowsError("over 1 GB when unpacked")
    return wanted


def _length(value: object) -> int:
    return sum(len(v) for v in (value if isinstance(value, list) else [value]) if isinstance(v, str | bytes))


def clipped(text: str) -> str:
    """The beginning of a user's text, on one line."""
    line = shown(" ".join(text.split()))
    return line if len(line) <= 80 else f"{line[:79]}…"
