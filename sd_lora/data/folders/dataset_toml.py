"""Read kohya's dataset TOML: folders of images, each with settings inherited from [general] and [[datasets]]."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sd_lora.config.other_trainers.table import KOHYA, in_a_dataset
from sd_lora.config.schema import DataConfig
from sd_lora.data.folders.caption_files import decode_text
from sd_lora.data.folders.dataset_metadata import home_of, metadata, rows_of
from sd_lora.data.folders.entries import Entry
from sd_lora.data.folders.idle_toml import Given, note_idle
from sd_lora.data.folders.kohya import Part, listed, note_repeats, plural
from sd_lora.data.folders.metadata import entries_of, note_rest
from sd_lora.data.folders.metadata_rows import RowsError, clipped, kind_of
from sd_lora.data.folders.role_names import Meaning, meaning_of
from sd_lora.data.folders.sidecars import Reading, Source, Subset, read_leaf
from sd_lora.data.folders.subset_masks import SubsetMasks, note_role
from sd_lora.data.folders.tree import Folder, Notes, likely_folder, relative, suffix_of, walk
from sd_lora.errors import DataError, reason, shown

_MAX_BYTES = 250_000
#: a dotted key takes memory that grows with the square of its parts
_MAX_DOTS = 64
#: what musubi calls the same
_MUSUBI = {"image_directory": "image_dir", "image_jsonl_file": "metadata_file"}


class _Settings(BaseModel):
    """Kohya's settings that are read, by kohya's names; None: as this program's config says."""

    model_config = ConfigDict(strict=True, frozen=True)

    image_dir: Annotated[str, Field(min_length=1)] | None = None
    metadata_file: Annotated[str, Field(min_length=1)] | None = None
    num_repeats: Annotated[int, Field(ge=1, le=9999)] = 1
    class_tokens: str = ""
    caption_extension: Annotated[str, Field(pattern=r"^\.?[^/\\\s]+$")] | None = None
    caption_prefix: str = ""
    caption_suffix: str = ""
    keep_tokens: Annotated[int, Field(ge=0)] | None = None
    keep_tokens_separator: str = ""
    caption_separator: Annotated[str, Field(pattern=r"\S")] | None = None
    shuffle_caption: bool | None = None
    caption_tag_dropout_rate: Annotated[float, Field(ge=0, lt=1)] | None = None
    flip_aug: bool = True
    is_reg: bool | None = None
    conditioning_data_dir: Annotated[str, Field(min_length=1)] | None = None
    alpha_mask: bool | None = None

    def subset(self, config: DataConfig) -> Subset:
        """How a folder is read by these settings, and by `config` where they say nothing."""
        of = Subset.of(config, self.class_tokens, self.prior(config))
        given = {
            "shuffle": self.shuffle_caption, "keep": self.keep_tokens, "dropout": self.caption_tag_dropout_rate,
            "separator": self.keep_tokens_separator or None, "comma": (self.caption_separator or "").strip() or None,
        }  # fmt: skip
        rules = replace(of.rules, **{name: value for name, value in given.items() if value is not None})
        ending = self.caption_extension
        suffixes = (ending if ending.startswith(".") else f".{ending}",) if ending else of.suffixes
        affixes = {"prefix": self.caption_prefix, "suffix": self.caption_suffix}
        alpha = of.alpha if self.alpha_mask is None else self.alpha_mask
        others = of.others and not ending
        of = replace(of, suffixes=suffixes, rules=rules, alpha=alpha, others=others, **affixes)
        return replace(of, repeats=self.num_repeats, may_flip=self.flip_aug)

    def prior(self, config: DataConfig) -> bool:
        """Whether its images are regularisation images: as it says, or else as the name of its folder says."""
        if self.is_reg is not None or not config.folder_roles:
            return bool(self.is_reg)
        meaning = self.meaning()
        return meaning is not None and meaning.sure and meaning.role.use == "regularisation"

    def meaning(self) -> Meaning | None:
        """What the name of its folder says of its images, or of those above it that a relative path names."""
        path = PureWindowsPath(self.image_dir or "")
        inner = meaning_of(path.name)
        above = [] if path.anchor or (inner and inner.sure) else [meaning_of(part) for part in path.parts[:-1]]
        return next((meaning for meaning in above if meaning and meaning.sure), inner)


def _looks_like_one(path: Path) -> bool:
    """Whether a file that is not TOML was meant to be a dataset."""
    try:
        with path.open("rb") as file:
            return b"[datasets" in file.read(_MAX_BYTES)
    except OSError:
        return False


def read(source: Source) -> Reading | None:
    """What the one dataset TOML in the folder names; None if there is none, or more than one."""
    files = []
    for name, file in source.folder.files.items():
        if suffix_of(name) == ".toml":
            try:
                files += [file] * ("datasets" in _load(file.path))
            except DataError as error:
                if _looks_like_one(file.path):
                    source.notes.add("dataset-broken", file.name, clipped(str(error.__cause__)))
    if len(files) != 1:
        return None
    reading, seen = read_file(files[0].path, source)
    for folder in source.folder.below():  # what was read there is noted already
        if os.path.realpath(folder.path) in seen:
            folder.files.clear()
        folder.files = {name: file for name, file in folder.files.items() if os.path.realpath(file.path) not in seen}
    note_rest(source.folder, (), {files[0].path}, source.notes, "name [its|their] folder in a subset")
    return reading


def read_file(file: Path, source: Source) -> tuple[Reading, set[str]]:
    """The images that a dataset TOML names, and the real paths of all that was read for them. DataError if it is not
    TOML."""
    notes, name = source.notes, shown(file.name)
    subsets: list[tuple[_Settings, list[Entry]]] = []
    parts: list[Part] = []
    seen: set[str] = set()
    masks = SubsetMasks(source)
    inside: list[Folder] = []
    for settings in _subsets(_load(file), name, notes):
        if settings.metadata_file and not settings.image_dir:
            home = home_of(_place(settings.metadata_file, file.parent))
            settings = settings.model_copy(update={"image_dir": home})  # noqa: PLW2901
        folder = _image_folder(settings, file, seen, notes)
        if folder is None:
            continue
        prior = settings.prior(source.config)
        if source.config.folder_roles and settings.is_reg is None and (meaning := settings.meaning()):
            note_role(f"image_dir {clipped(settings.image_dir or '')}", meaning, name, notes)
        images = _images(settings, folder, file.parent, replace(source, folder=folder))
        masks.add(len(subsets), folder, _conditioning(settings, file.parent), seen)
        if not images and not settings.metadata_file:
            notes.add("no-images", name, f"image_dir {clipped(settings.image_dir or '')} holds none directly in it")
        inside += folder.folders
        if settings.metadata_file:
            seen |= {os.path.realpath(f.path) for f in folder.below()}
            seen.add(os.path.realpath(_place(settings.metadata_file, file.parent)))
        subsets.append((settings, images))
        parts.append(Part(folder.name or ".", len(images), settings.num_repeats, prior))
    notes.not_read += [f"{folder.name}/" for folder in inside if os.path.realpath(folder.path) not in seen]
    note_repeats(parts, notes)
    matched = masks.matched([images for _, images in subsets])
    entries = [entry for images in matched for entry in images]
    given: list[Given] = [
        (settings.model_dump(exclude_unset=True), images)
        for (settings, _), images in zip(subsets, matched, strict=True)
    ]
    note_idle(given, name, source.config.trigger, notes)
    count = f"{len(parts)} subset{'' if len(parts) == 1 else 's'}"
    summary = f"{plural(len(entries))} in {count} of {name}{': ' if parts else ''}{listed(parts)}"
    return Reading(entries, summary), seen


def _image_folder(settings: _Settings, file: Path, seen: set[str], notes: Notes) -> Folder | None:
    """The walk of a subset's image_dir, which is added to `seen`; None, with a note, if it cannot be read."""
    where = _place(settings.image_dir or "", file.parent)
    given = f"image_dir {clipped(settings.image_dir or '')}"
    if not settings.image_dir or not os.path.isdir(where):
        likely = likely_folder(where) if settings.image_dir else None
        guess = f", did you mean {relative(likely, file.parent) or '.'}?" if likely else ""
        what = f"{given} is not a folder{guess}" if settings.image_dir else "a subset has no image_dir"
        notes.add("no-images", shown(file.name), what, "name the folder that holds the images in image_dir")
        return None
    real = os.path.realpath(where)
    if real in seen:
        notes.not_read.append(f"{given} (named a second time)")
        return None
    seen.add(real)
    try:
        folder = walk(where, notes, relative(where, file.parent), deep=bool(settings.metadata_file))
    except OSError as error:
        notes.add("no-images", shown(file.name), f"{given} cannot be read: {reason(error)}")
        return None
    if real == os.path.realpath(file.parent):
        folder.files.pop(file.name, None)
    return folder


def _images(settings: _Settings, folder: Folder, base: Path, source: Source) -> list[Entry]:
    subset, notes = settings.subset(source.config), source.notes
    if not settings.metadata_file:
        return read_leaf(folder, subset, notes)
    file = _place(settings.metadata_file, base)
    label = relative(file, base)
    try:
        content = metadata(file)
    except (RowsError, ValueError, RecursionError) as error:
        notes.add("entry-broken", label, f"not metadata in JSON: {clipped(str(error))}")
        return []
    rows = rows_of(content, folder, label, notes)
    entries, met = entries_of(rows, folder, subset, notes, by_stem=True)
    note_rest(folder, entries, {file} | met, notes)
    return entries


def _conditioning(settings: _Settings, base: Path) -> Path | None:
    """The folder of masks that a subset names."""
    return _place(settings.conditioning_data_dir, base) if settings.conditioning_data_dir else None


def _subsets(content: Mapping[str, Any], name: str, notes: Notes) -> Iterator[_Settings]:
    """The settings of every subset, including inherited ones; what cannot be used is noted once."""
    noted: set[str] = set()

    def note(detail: str, advice: str = "") -> None:
        if detail not in noted:
            noted.add(detail)
            notes.add("setting-unknown", name, detail, advice)

    for key in content.keys() - {"general", "datasets"}:
        note(f"[{clipped(key)}] does not belong in a dataset file")
    general = _table(content.get("general", {}), "[general]", note)
    for number, dataset in enumerate(_tables(content.get("datasets"), "[[datasets]]", note), 1):
        subsets = _tables(dataset.get("subsets"), "[[datasets.subsets]]", note)
        if not subsets and dataset.keys() & {"image_dir", "metadata_file", *_MUSUBI}:  # musubi's form has none
            subsets = [{}]
        if not subsets:
            notes.add("no-images", name, f"number {number} of its [[datasets]] has no [[datasets.subsets]]")
        shared = {key: value for key, value in dataset.items() if key != "subsets"}
        for subset in subsets:
            yield _settings({**general, **shared, **subset}, note)


def _settings(given: dict[str, Any], note: Callable[..., None]) -> _Settings:
    given = {_MUSUBI.get(key, key): value for key, value in given.items()}
    everything = dict(given)
    for key in sorted(given.keys() - _Settings.model_fields.keys()):
        value = given.pop(key)
        shown_value = f"{clipped(key)} = {_shown(value)}"
        here = in_a_dataset(key, value, everything)
        if not here:
            known = [*_Settings.model_fields, *_MUSUBI, *(name for row in KOHYA.rows for name in row.names)]
            close = difflib.get_close_matches(key, known, n=1)
            guess = f", did you mean {close[0]}?" if close else ""
            note(f"{shown_value} is not a setting of kohya's{guess}", "correct or remove [it|them]")
        elif here.startswith("is not read"):
            note(f"{shown_value} {here}")
        elif value:  # what is switched off is not missed
            note(f"{shown_value} {here}", "remove [it|them]")
    try:
        return _Settings.model_validate(given)
    except ValidationError as error:
        wrong = {str(detail["loc"][0]): str(detail["msg"]) for detail in error.errors()}
    for key, why in wrong.items():
        note(f"{key} = {_shown(given[key])} cannot be used: {why[:1].lower()}{why[1:]}", "correct or remove [it|them]")
    return _Settings.model_validate({key: value for key, value in given.items() if key not in wrong})


def _shown(value: object) -> str:
    try:
        return clipped(str(value).lower() if isinstance(value, bool) else str(value))
    except (RecursionError, ValueError):  # nested too deep, or a number of too many digits
        return kind_of(value)


def _tables(value: object, what: str, note: Callable[[str], None]) -> list[dict[str, Any]]:
    if not isinstance(value, list | None):
        note(f"{what} is {kind_of(value)}, not a list of tables")
    return [_table(item, what, note) for item in value] if isinstance(value, list) else []


def _table(value: object, what: str, note: Callable[[str], None]) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    note(f"{what} is {kind_of(value)}, not a table")
    return {}


def _place(path: str, base: Path) -> Path:
    """Where `path` leads from `base`, with the backslashes of Windows read as such."""
    place = base / os.path.expanduser(path)
    return place if os.path.exists(place) else base / path.replace("\\", "/")


def _load(file: Path) -> dict[str, Any]:
    """The content of a TOML file; DataError if it is not one."""
    try:
        if not file.is_file() or file.stat().st_size > _MAX_BYTES:
            raise ValueError(f"not a regular file of up to {_MAX_BYTES // 1000} kB")
        text = decode_text(file.read_bytes())[0]
        if any(line.count(".") > _MAX_DOTS for line in text.splitlines()):
            raise ValueError(f"over {_MAX_DOTS} dots in one line")
        return tomllib.loads(text)
    except OSError as error:
        raise DataError(f"dataset file {shown(str(file))} cannot be read: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"dataset file {shown(str(file))} cannot be read as TOML: {clipped(str(error))}; correct it"
        ) from error
