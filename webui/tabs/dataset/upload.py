"""From uploaded files to a folder of images: names that any system can hold, and nothing half-made."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import unicodedata
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sd_lora.data.editing.editor import CaptionEditor
from sd_lora.data.pictures.decode import IMAGE_SUFFIXES
from sd_lora.errors import ConfigError, SdLoraError, some

TEXTS = (".txt", ".caption")
MOST_FILES, MOST_BYTES, MOST_TEXT = 200, 500_000_000, 64_000
_LONGEST_FOLDER, _LONGEST_STEM = 60, 150
_STAGING, _A_DAY = ".new-", 86_400
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}
#: what some system does not take in a name, or shows otherwise than it is
_FORBIDDEN = frozenset('<>:"|?*') | {chr(c) for c in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def folder_name(text: str, taken: Iterable[str]) -> str:
    """The name of a new dataset as it is stored. ConfigError if it cannot be one."""
    name = unicodedata.normalize("NFC", text or "").strip()
    if not name:
        raise ConfigError("the new dataset has no name; give it one, such as ink-drawings")
    odd = [c for c in name if _is_odd(c)]
    why = (
        "is the name of a device"
        if _is_device(name)
        else "starts with a dot"
        if name.startswith(".")
        else "is a path"
        if "/" in name or "\\" in name
        else f'holds "{odd[0]}"'
        if odd and odd[0].isprintable()
        else "holds signs that are not seen"
        if odd
        else "ends with a dot"
        if name.endswith(".")
        else f"is longer than {_LONGEST_FOLDER} characters"
        if len(name) > _LONGEST_FOLDER
        else "is taken"
        if _key(name) in {_key(other) for other in taken}
        else ""
    )
    if why:
        raise ConfigError(f'a dataset cannot be called "{_shown(name)}", as that {why}; choose another name')
    return name


def planned(files: Sequence[str | Path] | None, taken: Iterable[str] = ()) -> list[tuple[Path, str]]:
    """Each uploaded file with the name it is stored by. ConfigError, which names them, for files that cannot be:
    too many or too large, no pictures or captions, and names that are hidden, paths, devices or there already."""
    paths = [Path(file) for file in files or ()]
    if not paths:
        raise ConfigError("no files were given; choose pictures, and captions as .txt of the same name")
    if len(paths) > MOST_FILES:
        raise ConfigError(f"{len(paths)} files were given, and {MOST_FILES} are taken at once; add the others later")
    refused: dict[str, list[str]] = {}
    there = {_key(name): "" for name in taken}
    plan = []
    for path in paths:
        name, why = _stored_name(path.name), _refusal(path)
        if not why and _key(name) in there:
            why = "there already" if not there[_key(name)] else "given twice"
        there.setdefault(_key(name), name)
        if why:
            refused.setdefault(why, []).append(_shown(path.name))
        else:
            plan.append((path, name))
    if refused:
        reasons = "; ".join(f"{why}: {some(names)}" for why, names in refused.items())
        raise ConfigError(f"nothing was stored, as some files cannot be ({reasons}); leave them out or rename them")
    size = sum(path.stat().st_size for path, _ in plan)
    if size > MOST_BYTES:
        raise ConfigError(
            f"the files have {size / 1e6:.0f} MB, and {MOST_BYTES / 1e6:.0f} MB are taken at once; scale the pictures "
            "down, or give fewer"
        )
    return plan


@contextlib.contextmanager
def staged(parent: Path, plan: Sequence[tuple[Path, str]]) -> Iterator[Path]:
    """A hidden folder in `parent` with copies of the files; what is left of it afterwards is removed."""
    folder = parent / f"{_STAGING}{uuid.uuid4().hex}"
    with _storing(parent):
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        folder.mkdir()
    try:
        with _storing(parent):
            for path, name in plan:
                shutil.copyfile(path, folder / name, follow_symlinks=False)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def verified(folder: Path) -> Iterator[tuple[int, int]]:
    """Decode every picture and read every caption of a staged folder; yields how many of how many are done.

    ConfigError, which names them, if some cannot be read.
    """
    editor, bad = CaptionEditor(folder), list[str]()
    for number, name in enumerate(editor.names, 1):
        try:
            editor.picture(name, 64)
            editor.read(name)
        except SdLoraError as error:
            bad.append(str(error))
        yield number, len(editor.names)
    if bad:
        more = f", and {len(bad) - 1} more of {len(editor.names)} pictures" if len(bad) > 1 else ""
        raise ConfigError(f"nothing was stored, as a file cannot be read: {bad[0]}{more}")


def make_folder(staging: Path, target: Path) -> None:
    """Give a staged folder its name. ConfigError if that is taken by now."""
    if os.path.lexists(target):
        raise ConfigError(f'a dataset cannot be called "{_shown(target.name)}", as that is taken; choose another name')
    with _storing(target.parent):
        staging.rename(target)


def add_to_folder(staging: Path, target: Path) -> None:
    """Move all staged files into a folder, or none; nothing is overwritten."""
    placed: list[Path] = []
    try:
        with _storing(target):
            for file in sorted(staging.iterdir()):
                _move_new(file, target / file.name)
                placed.append(target / file.name)
    except BaseException:
        for file in placed:
            with contextlib.suppress(OSError):
                file.unlink()
        raise


def _move_new(file: Path, target: Path) -> None:
    try:
        os.link(file, target)  # unlike a rename, a link never takes the place of a file
    except FileExistsError:
        raise
    except OSError:  # memory cards know no links
        if os.path.lexists(target):
            raise FileExistsError(17, f"{_shown(target.name)} is there already") from None
        file.rename(target)


def _refusal(path: Path) -> str:
    """Why a file is not taken, in two or three words; empty if it is."""
    name, suffix = path.name, path.suffix.lower()
    if "\\" in name or name in ("", ".", ".."):
        return "a path"
    if name.startswith(".") or _stored_name(name).startswith("."):
        return "hidden"
    if _is_device(name):
        return "a device"
    if suffix not in (*IMAGE_SUFFIXES, *TEXTS):
        return "neither a picture nor .txt or .caption"
    if path.is_symlink() or not path.is_file():
        return "no file"
    return _text_refusal(path) if suffix in TEXTS else ""


def _text_refusal(path: Path) -> str:
    if path.stat().st_size > MOST_TEXT:
        return f"captions over {MOST_TEXT // 1000} kB"
    content = path.read_bytes()
    is_utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    return "captions that are no text" if b"\0" in content and not is_utf16 else ""


def _stored_name(name: str) -> str:
    """`name` without what some system does not take; files of one stem go on having one."""
    stem, suffix = os.path.splitext(unicodedata.normalize("NFC", name))
    stem = "".join("_" if _is_odd(c) else c for c in stem).strip()
    stem = stem.encode("utf-8", "replace")[:_LONGEST_STEM].decode("utf-8", "ignore").rstrip()
    return stem + suffix.lower()


def _is_odd(c: str) -> bool:
    return c in _FORBIDDEN or unicodedata.category(c) in ("Cc", "Cs", "Co", "Zl", "Zp")


def _is_device(name: str) -> bool:
    return name.partition(".")[0].strip().lower() in _DEVICES


def _key(name: str) -> str:
    """What names have in common that some file system cannot tell apart."""
    return unicodedata.normalize("NFC", name).casefold()


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name)[:80]


def _sweep(parent: Path) -> None:
    """Remove what a server that was killed has left."""
    for staged in parent.glob(f"{_STAGING}*"):
        with contextlib.suppress(OSError):
            if time.time() - staged.stat().st_mtime > _A_DAY:
                shutil.rmtree(staged, ignore_errors=True)


@contextlib.contextmanager
def _storing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise ConfigError(f"nothing was stored in {_shown(folder.name)}: {why}; make room, or allow writing") from error
