"""Draft captions for the images of a folder that have none; what the user has written is never changed."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sd_lora.config.reading import parse_config
from sd_lora.config.schema import DataConfig
from sd_lora.data.findings import sentences
from sd_lora.data.folders.caption_files import CaptionError, read_caption_file, tidy
from sd_lora.data.folders.entries import Entry
from sd_lora.data.folders.listing import list_folder
from sd_lora.data.folders.metadata import table_within
from sd_lora.data.folders.other_captions import OtherCaptions
from sd_lora.data.folders.tree import Notes, key, walk
from sd_lora.data.pictures.decode import PictureError, read_picture
from sd_lora.data.style_words import style_words_in, without_style_words
from sd_lora.errors import ConfigError, DataError, reason, shown

if TYPE_CHECKING:
    from sd_lora.models.captioner import Captioner

_SUFFIXES = DataConfig().caption_suffixes
_TABLES = {
    "metadata": "the captions of {} are in its metadata table, which is never rewritten; add rows to it, or move the "
    "table out of the folder",
    "kohya-toml": "{} is described by a dataset file, which says where captions are; caption the folders that it "
    "names, one by one",
}


@dataclass
class CaptionReport:
    """What was done, by image name (relative to the folder): the captions `written` (or that would be), the images that
    `kept` their caption, those `refused` and why, and the style words `removed` from drafts."""

    written: list[tuple[str, str]] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    removed: dict[str, list[str]] = field(default_factory=dict)
    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "written": [{"file": name, "caption": caption} for name, caption in self.written],
            "kept": self.kept,
            "refused": [{"file": name, "reason": reason} for name, reason in self.refused],
            "removed": self.removed,
            "dry_run": self.dry_run,
        }


def caption_folder(
    folder: str | Path,
    model: str,
    *,
    revision: str = "",
    prefix: str = "",
    keep_style: bool = False,
    dry_run: bool = False,
    device: str = "auto",
    watch: Callable[[int, int], None] | None = None,
) -> CaptionReport:
    """Write NAME.txt beside each image of `folder` that has no caption file, as the captioning `model` describes it.

    Words that name a style are left out unless `keep_style`, so that the trigger word learns them; `prefix` comes
    before every draft. Nothing is ever overwritten. `watch` is called with (images done, images in all). An image that
    cannot be read or described, or whose caption cannot be written, is refused, the others are not. Raises
    ConfigError, DataError or BaseModelError.
    """
    if not model:
        raise ConfigError(
            "no captioning model was given; name one with --model: a folder or a hub model of the class of BLIP or "
            "Florence-2"
        )
    settings = parse_config([("options", {"model": {"device": device}})]).model
    entries = _entries(folder)
    report = CaptionReport(dry_run=dry_run)
    waiting = [(entry, new) for entry, files, new in _caption_files(entries) if _lacks(entry, files, report)]
    if not waiting:
        return report
    from sd_lora.models.captioner import Captioner
    from sd_lora.models.device import choose_device, choose_dtype

    where = choose_device(settings)
    captioner = Captioner.open(model, revision, where, choose_dtype(settings, where))
    for number, (entry, new) in enumerate(waiting, 1):
        try:
            caption = _draft(captioner, entry, prefix, None if keep_style else report.removed)
            is_new = dry_run or _write_new(new, caption)
        except DataError as error:
            report.refused.append((entry.name, error.detail if isinstance(error, PictureError) else str(error)))
        else:
            if is_new:
                report.written.append((entry.name, caption))
            else:
                report.kept.append(entry.name)
        if watch is not None:
            watch(number, len(waiting))
    return report


def _entries(folder: str | Path) -> tuple[Entry, ...]:
    """The images of the folder; DataError if there are none, or if their captions are not in files beside them."""
    listing = list_folder(DataConfig(folder=str(folder)))
    if listing.layout in _TABLES:
        raise DataError(_TABLES[listing.layout].format(shown(str(folder))))
    if not listing.entries:
        raise DataError(
            "; ".join(sentences(listing.findings, "error"))
            or f"{shown(str(folder))} holds no images; name one that does"
        )
    top = Path(os.path.expanduser(folder))
    return tuple(entry for entry in listing.entries if table_within(entry, top) is None)


def _caption_files(entries: tuple[Entry, ...]) -> Iterator[tuple[Entry, list[Path], Path]]:
    """Each image with its caption files, and the one to write if it has none.

    Images that differ only in their suffix get ``cat.png.txt`` and ``cat.jpg.txt``, as ``cat.txt`` would be both's.
    """
    stems = Counter((entry.file.parent, key(entry.file.stem)) for entry in entries)
    names = {parent: {key(name): name for name in os.listdir(parent)} for parent, _ in stems}
    homes = {parent: walk(parent, Notes(), deep=False) for parent in names}
    others = {parent: OtherCaptions(home, home.pictures()) for parent, home in homes.items()}
    for entry in entries:
        parent, name, stem = entry.file.parent, entry.file.name, entry.file.stem
        files = (names[parent].get(key(base + suffix)) for base in (name, stem) for suffix in _SUFFIXES)
        given = [parent / file for file in files if file] or [file.path for file in others[parent].plain(name)]
        new = name if stems[parent, key(stem)] > 1 else stem
        yield entry, given, parent / (new + _SUFFIXES[0])


def _lacks(entry: Entry, files: list[Path], report: CaptionReport) -> bool:
    """Whether the image needs a caption; if not, the report says why."""
    reasons = []
    for file in files:
        try:
            if read_caption_file(file).captions:
                report.kept.append(entry.name)
                return False
            reasons.append(f"{file.name} is empty; remove it to have a caption drafted")
        except CaptionError as error:
            reasons.append(f"{file.name} cannot be read ({error.detail}); repair or remove it")
    if reasons:
        report.refused.append((entry.name, "; ".join(reasons)))
    return not reasons


def _draft(captioner: Captioner, entry: Entry, prefix: str, removed: dict[str, list[str]] | None) -> str:
    """The caption of one image; its style words go to `removed`, if that is given. DataError if there is none."""
    description = caption = tidy(captioner.describe([read_picture(entry.file).image])[0])
    if removed is not None:
        caption = without_style_words(description)
        if words := style_words_in(description):
            removed[entry.name] = words
    if not caption:
        but = f' but "{description}"' if description else ""
        raise DataError(f"the model says nothing{but}; write a caption yourself")
    return tidy(f"{prefix} {caption}")


def _write_new(file: Path, caption: str) -> bool:
    """Write a caption file completely; False, and nothing written, if it exists by now. DataError if that fails."""
    content = f"{caption}\n".encode()
    partial = file.with_name(f".{file.name[:50]}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        try:
            os.link(partial, file)  # unlike a rename, a link never replaces a file
        except FileExistsError:
            return False
        except OSError:  # memory cards have no links
            with file.open("xb") as out:
                out.write(content)
    except FileExistsError:
        return False
    except OSError as error:
        raise DataError(
            f"{shown(str(file))} cannot be written: {reason(error)}; allow it, rename the image or copy the folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return True
