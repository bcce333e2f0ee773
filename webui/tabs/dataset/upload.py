"""From uploaded files to a folder of images: names that every system accepts, and no partial results."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import unicodedata
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import psutil

from sd_lora.data.editing.editor import CaptionEditor
from sd_lora.data.pictures.decode import IMAGE_SUFFIXES
from sd_lora.errors import ConfigError, SdLoraError, printable, reason, some

TEXTS = (".txt", ".caption")
MOST_FILES, MOST_BYTES, MOST_TEXT = 200, 500_000_000, 64_000
_LONGEST_FOLDER, _LONGEST_STEM = 60, 150
_STAGING, _A_DAY = ".new-", 86_400
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}
#: what some systems do not accept in a name, or display misleadingly
_FORBIDDEN = frozenset('<>:"|?*') | {chr(c) for c in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def folder_name(text: str, taken: Iterable[str]) -> str:
    """The name of a new dataset as it is stored. ConfigError if it is not possible."""
    name = unicodedata.normalize("NFC", text or "").strip()
    if not name:
        raise ConfigError("the new dataset has no name; give it one, such as ink-drawings")
    odd = "".join(c for c in name if _is_odd(c))
    problems = (
        (is_device(name), "it is the name of a device"),
        (name.startswith("."), "it starts with a dot"),
        ("/" in name or "\\" in name, "it is a path"),
        (odd and odd[0].isprintable(), f'it contains "{odd[:1]}"'),
        (odd, "it contains invisible characters"),
        (name.endswith("."), "it ends with a dot"),
        (len(name) > _LONGEST_FOLDER, f"it is longer than {_LONGEST_FOLDER} characters"),
        (_key(name) in map(_key, taken), "it is taken"),
    )
    for is_wrong, why in problems:
        if is_wrong:
            raise _bad_name(name, why)
    return name


def _bad_name(name: str, why: str) -> ConfigError:
    return ConfigError(f'a dataset cannot be called "{_short(name)}", as {why}; choose another name')


def planned(files: Sequence[str | Path] | None, taken: Iterable[str] = ()) -> list[tuple[Path, str]]:
    """Each uploaded file with the name it is stored by. ConfigError, which names them, for files that cannot be:
    too many or too large, no pictures or captions, and names that are hidden, paths, devices or in use."""
    paths = [Path(file) for file in files or ()]
    if not paths:
        raise ConfigError("no files were given; choose pictures, and captions as .txt of the same name")
    if len(paths) > MOST_FILES:
        raise ConfigError(f"{len(paths)} files were given, but {MOST_FILES} are the most at once; add the others later")
    refused: dict[str, list[str]] = {}
    used = {_key(name): "in the dataset already" for name in taken}
    plan = []
    for path in paths:
        name = _stored_name(path.name)
        why = _refusal(path) or used.get(_key(name))
        used.setdefault(_key(name), "given twice")
        if why:
            refused.setdefault(why, []).append(_short(path.name))
        else:
            plan.append((path, name))
    if refused:
        reasons = "; ".join(f"{why}: {some(names)}" for why, names in refused.items())
        raise ConfigError(f"nothing was stored, as some files are refused ({reasons}); leave them out or rename them")
    size = sum(path.stat().st_size for path, _ in plan)
    if size > MOST_BYTES:
        raise ConfigError(
            f"the files have {size / 1e6:.0f} MB, but {MOST_BYTES / 1e6:.0f} MB are the most at once; scale the "
            "pictures down, or give fewer"
        )
    return plan


@contextlib.contextmanager
def staged(parent: Path, plan: Sequence[tuple[Path, str]]) -> Iterator[Path]:
    """A hidden folder in `parent` with copies of the files; it is removed afterwards, with what is still in it."""
    folder = parent / f"{_STAGING}{os.getpid()}-{uuid.uuid4().hex}"
    with _storing(parent):
        parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(parent)
        folder.mkdir()
    try:
        with _storing(parent):
            for path, name in plan:
                shutil.copyfile(path, folder / name, follow_symlinks=False)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def verified(folder: Path) -> Iterator[tuple[int, int]]:
    """Decode every picture and read every caption of a staged folder; yields how many are done and of how many.

    ConfigError if some cannot be read.
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
    """Give a staged folder its name. ConfigError if that was taken meanwhile."""
    if os.path.lexists(target):
        raise _bad_name(target.name, "it is taken")
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
        os.link(file, target)  # unlike a rename, a link never replaces a file
    except FileExistsError:
        raise
    except OSError:  # memory cards do not support links
        if os.path.lexists(target):
            raise FileExistsError(17, f"{_short(target.name)} exists already") from None
        file.rename(target)


def _refusal(path: Path) -> str:
    """Why a file is refused, in two or three words; empty if it is not."""
    name, suffix = path.name, path.suffix.lower()
    if "\\" in name or name in ("", ".", ".."):
        return "a path"
    if name.startswith(".") or _stored_name(name).startswith("."):
        return "hidden"
    if is_device(name):
        return "a device"
    if suffix not in (*IMAGE_SUFFIXES, *TEXTS):
        return "neither a picture nor .txt or .caption"
    if path.is_symlink() or not path.is_file():
        return "not a file"
    return _text_refusal(path) if suffix in TEXTS else ""


def _text_refusal(path: Path) -> str:
    if path.stat().st_size > MOST_TEXT:
        return f"captions over {MOST_TEXT // 1000} kB"
    content = path.read_bytes()
    is_utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    return "captions that are not text" if b"\0" in content and not is_utf16 else ""


def _stored_name(name: str) -> str:
    """`name` without what some systems do not accept; files that share a stem still do."""
    stem, suffix = os.path.splitext(unicodedata.normalize("NFC", name))
    stem = "".join("_" if _is_odd(c) else c for c in stem).strip()
    stem = stem.encode("utf-8", "replace")[:_LONGEST_STEM].decode("utf-8", "ignore").rstrip()
    return stem + suffix.lower()


def _is_odd(c: str) -> bool:
    return c in _FORBIDDEN or unicodedata.category(c) in ("Cc", "Cs", "Co", "Zl", "Zp")


def is_device(name: str) -> bool:
    """Whether Windows reserves `name` for a device."""
    return name.partition(".")[0].strip().lower() in _DEVICES


def _key(name: str) -> str:
    """The same for names that some file systems cannot tell apart."""
    return unicodedata.normalize("NFC", name).casefold()


def _short(name: str) -> str:
    return printable(name)[:80]


def remove_leftovers(parent: Path) -> None:
    """Remove what killed servers have left behind in the folder of datasets: staged folders whose server has ended."""
    for staged in (*parent.glob(f"{_STAGING}*"), *parent.glob(f"*/{_STAGING}*")):
        with contextlib.suppress(OSError):
            owner = staged.name.removeprefix(_STAGING).partition("-")[0]
            is_ours = owner.isdigit() and psutil.pid_exists(int(owner))
            if not is_ours or time.time() - staged.stat().st_mtime > _A_DAY:
                shutil.rmtree(staged, ignore_errors=True)


@contextlib.contextmanager
def _storing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where, why = _short(folder.name), reason(error)
        raise ConfigError(f"nothing was stored in {where}: {why}; free some space, or allow writing") from error
