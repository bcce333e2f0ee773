"""What was dropped on the page, as files that can be stored: archives unpacked, and a name for a new dataset."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path, PurePosixPath

from sd_lora.data.pictures.decode import IMAGE_SUFFIXES
from sd_lora.errors import ConfigError, printable, some

from .upload import MOST_BYTES, MOST_FILES, TEXTS, folder_name

#: files that systems put into folders, which nobody means
_JUNK = {"thumbs.db", "desktop.ini", "ehthumbs.db"}
_STORED = (*IMAGE_SUFFIXES, *TEXTS)


@dataclass
class Intake:
    """The `files` that were given, those of archives unpacked, and the names of what is `left_out`: in a folder or an
    archive, files that are neither pictures nor captions."""

    files: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def note(self) -> str:
        """A clause about what is left out; empty if nothing is."""
        what = "neither pictures nor captions" if len(self.left_out) > 1 else "neither a picture nor a caption"
        return f"; left out, as {what}: {some(self.left_out)}" if self.left_out else ""


@contextlib.contextmanager
def taken_in(files: Sequence[str | Path] | None, folder: str, work: Path) -> Iterator[Intake]:
    """The files of a drop, for the length of a ``with`` block; `folder` is the name of the one they came from, if they
    did. ConfigError for an archive that cannot be read or is too large."""
    intake = Intake()
    with tempfile.TemporaryDirectory(prefix="unpacked-", dir=work) as place:
        for number, path in enumerate(map(Path, files or ())):
            if path.suffix.lower() == ".zip":
                _unpack(path, Path(place) / str(number), intake)
            elif folder and path.suffix.lower() not in _STORED:
                _leave_out(path.name, intake)
            else:
                intake.files.append(path)
        yield intake


def new_name(files: Sequence[str | Path] | None, folder: str, taken: Iterable[str]) -> str:
    """A name for a new dataset that nothing has yet: the folder's that was given, the archive's, or today's date."""
    given = [Path(file) for file in files or ()]
    archive = given[0].stem if len(given) == 1 and given[0].suffix.lower() == ".zip" else ""
    wanted = "".join("-" if c in '<>:"|?*/\\' else c for c in folder or archive).strip(" .")[:50]
    taken = list(taken)
    stems = filter(None, (wanted, f"pictures {date.today():%Y-%m-%d}"))
    for stem, number in itertools.product(stems, range(1, 1000)):
        with contextlib.suppress(ConfigError):
            return folder_name(f"{stem}-{number}" if number > 1 else stem, taken)
    raise ConfigError("no name is free for a new dataset; rename one of those of today")


def _unpack(archive: Path, place: Path, intake: Intake) -> None:
    """Copy the pictures and captions of an archive into `place`, whatever folders they are in."""
    name = printable(archive.name)[:80]
    try:
        with zipfile.ZipFile(archive) as content:
            members = [m for m in content.infolist() if not m.is_dir() and not _is_link(m)]
            kept = [m for m in members if PurePosixPath(m.filename).suffix.lower() in _STORED and not _is_hidden(m)]
            for member in members:
                if member not in kept:
                    _leave_out(PurePosixPath(member.filename).name, intake)
            size = sum(member.file_size for member in kept)
            if len(kept) > MOST_FILES or size > MOST_BYTES:
                raise ConfigError(
                    f"{name} has {len(kept)} pictures and captions of {size / 1e6:.0f} MB, but {MOST_FILES} of "
                    f"{MOST_BYTES / 1e6:.0f} MB are the most at once; give it in parts"
                )
            for number, member in enumerate(kept):
                file = place / str(number) / PurePosixPath(member.filename).name  # its own, as names may repeat
                file.parent.mkdir(parents=True)
                with content.open(member) as source, file.open("wb") as target:
                    shutil.copyfileobj(source, target)  # never more than file_size says
                intake.files.append(file)
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError, EOFError) as error:
        raise ConfigError(f"{name} cannot be unpacked ({printable(str(error))[:100]}); unpack it yourself") from error


def _leave_out(name: str, intake: Intake) -> None:
    if name and not name.startswith(".") and name.lower() not in _JUNK:
        intake.left_out.append(printable(name)[:80])


def _is_hidden(member: zipfile.ZipInfo) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(member.filename).parts)


def _is_link(member: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(member.external_attr >> 16)
