"""The metadata that a dataset TOML names: kohya's, by the path of each image, or musubi's lines."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sd_lora.data.folders.metadata import note_rows, note_steering
from sd_lora.data.folders.metadata_purpose import steering_of
from sd_lora.data.folders.metadata_rows import Row, RowsError, clipped, kind_of, read_text, texts_of
from sd_lora.data.folders.tree import Folder, Notes
from sd_lora.errors import some


def metadata(file: Path) -> dict[str, Any]:
    """The path of an image → what is said of it: an object, or musubi's lines of objects with an ``image_path``."""
    text = read_text(file)[0]
    if file.suffix.lower() != ".jsonl":
        content = json.loads(text)
        if not isinstance(content, dict):
            raise RowsError(f"{kind_of(content)}, not an object")
        return content
    rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    wrong = next((row for row in rows if not isinstance(row, dict) or "image_path" not in row), None)
    if wrong is not None:
        raise RowsError(f"a line without an image_path: {clipped(str(wrong))}")
    return {str(row["image_path"]): row for row in rows}


def home_of(file: Path) -> str:
    """The folder that all images of a metadata file are in: what its absolute paths share, or its own."""
    try:
        names = [name for name in metadata(file) if os.path.isabs(name)]
    except (OSError, RowsError, ValueError, RecursionError):
        names = []
    return os.path.commonpath([os.path.dirname(name) for name in names]) if names else str(file.parent)


def rows_of(content: Mapping[str, Any], folder: Folder, label: str, notes: Notes) -> list[Row]:
    """Kohya's metadata: the path of an image → its caption and its tags, which are read as one caption."""
    top = os.path.join(os.path.abspath(folder.path), "")
    rows: list[Row] = []
    broken: list[tuple[str, str, str]] = []
    steering: dict[str, None] = {}
    for name, values in content.items():
        try:
            if not isinstance(values, dict):
                raise ValueError(f"{kind_of(values)}, not an object")
            captions_and_tags = [texts_of(values.get(key)) for key in ("caption", "tags")]
        except ValueError as error:
            broken.append(("entry-broken", label, f"{clipped(name)}: {error}"))
            continue
        if column := steering_of(values.items())[1]:
            steering[column] = None
        caption = ", ".join(text for texts in captions_and_tags for text in texts or ())
        captions = (caption,) if caption else None if captions_and_tags == [None, None] else ()
        rows.append(Row(label, name.removeprefix(top), captions))
    note_rows(broken, notes)
    if steering:
        note_steering(some(list(steering)), label, notes, "name masks with conditioning_data_dir")
    return rows
