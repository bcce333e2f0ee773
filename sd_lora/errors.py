"""The errors a user can cause. The command line prints them as one sentence and exits with `exit_code`; anything else
is a bug and keeps its traceback."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Iterable, Sequence


class SdLoraError(Exception):
    """What is wrong, where, what was given and what to do, in one sentence."""

    exit_code = 2


class SdLoraWarning(UserWarning):
    """What was not done as the user may expect, in one sentence; the command line prints it as such."""


class ConfigError(SdLoraError):
    """A config key or value that cannot be used."""


class DataError(SdLoraError):
    """A folder of images that cannot be trained on."""


class BaseModelError(SdLoraError):
    """A base model that cannot be loaded or belongs to no known family."""


class AdapterError(SdLoraError):
    """An adapter that cannot be read, or does not fit its base model."""


class TrainingStopped(SdLoraError):
    """Training that had to stop: a loss, gradient or weight that is NaN or infinite."""

    exit_code = 6


class StorageError(SdLoraError):
    """A disk that is full, read-only, over quota or failing, or a place that cannot be written to or read."""

    exit_code = 7


def nearest(word: str, known: Iterable[str]) -> str:
    """``did you mean "x"?``, or the list of what is known, as a clause for an error message."""
    options = sorted(known)
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    return f'did you mean "{close[0]}"?' if close else f"known are {', '.join(options)}"


def printable(text: str) -> str:
    """`text` with what would break a line or hide replaced by ``?``."""
    return "".join(c if c.isprintable() else "?" for c in text)


def some(names: Sequence[str], most: int = 5) -> str:
    """The first few of `names`, on one line, and how many more there are."""
    shown = ", ".join(printable(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def shown(name: str) -> str:
    """`name` on one line; what is not a character or would break the line is escaped, so that names stay different."""
    if name.isprintable() and "\\" not in name:
        return name
    odd = {"Cc", "Cs", "Zl", "Zp"}
    escape = "\\" if os.sep == "/" else ""  # elsewhere it separates folders, and no name has it
    return "".join(
        c.encode("unicode_escape").decode() if c == escape or unicodedata.category(c) in odd else c for c in name
    )


def reason(error: OSError) -> str:
    """Why, in the system's words, without the path."""
    return (error.strerror or type(error).__name__).lower()
