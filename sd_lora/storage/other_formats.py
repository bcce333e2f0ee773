"""What a file is that should be safetensors and is not, by its first bytes."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

#: as many bytes as every mark needs, and a page or a message has before its text
_START = 512


class Format(NamedTuple):
    """Another format: what a file of it is, how its first bytes show that, and what to do."""

    what: str
    fits: Callable[[bytes], bool]
    advice: str


_AGAIN = "download the file itself"
_CONVERT = "convert it to .safetensors with a program that you trust; pickles can run code and are never loaded"
_NOT_WEIGHTS = "name the .safetensors file"


def _begins(*marks: bytes) -> Callable[[bytes], bool]:
    return lambda start: start.startswith(marks)


def _text(pattern: bytes) -> Callable[[bytes], bool]:
    """Whether the first bytes are text that matches, whatever blanks or byte order mark come before."""
    wanted = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:" + pattern + rb")", re.IGNORECASE)
    return lambda start: wanted.match(start) is not None


def _is_readable(start: bytes) -> bool:
    text = start[:-3].decode("utf-8", "replace") if len(start) == _START else start.decode("utf-8", "replace")
    return all(letter.isprintable() or letter in "\t\n\r" for letter in text) and "\ufffd" not in text


def _is_zip(start: bytes) -> bool:
    return start.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"))


def _is_pickle(start: bytes) -> bool:
    """Protocols 2 to 5 begin with their number; older torch files with a magic number, itself a pickle."""
    return len(start) > 2 and start[0] == 0x80 and 2 <= start[1] <= 5


#: the first that fits counts
FORMATS = (
    Format("empty", lambda start: not start, "download it again"),
    Format(
        "a git-LFS pointer, which stands for the file", _text(rb"version https://(?:git-lfs|hawser)"),
        'run "git lfs pull" in its folder, or download the file itself',
    ),
    Format(
        "an HTML page, which was downloaded instead of the file", _text(rb"<!doctype html|<html|<head|<body|<script"),
        _AGAIN + "; the page may ask for a login",
    ),
    Format(
        "XML, most likely a server's error message that was downloaded instead of the file",
        _text(rb"<\?xml|<error|<!doctype|<svg"), _AGAIN,
    ),
    Format(
        "JSON, such as an index, a config, or a server's error message that was downloaded instead of the file",
        _text(rb"[{\[]\s*[\"{\[\]}]"), _AGAIN,
    ),
    Format("a PyTorch pickle in a zip archive (.ckpt, .pt, .bin)", lambda s: _is_zip(s) and b"data.pkl" in s, _CONVERT),
    Format("a zip archive", _is_zip, "unpack it and name the .safetensors file in it"),
    Format("a pickle (.ckpt, .pt, .bin)", _is_pickle, _CONVERT),
    Format("a GGUF file", _begins(b"GGUF"), "name the .safetensors file it was made from"),
    Format("an older GGML file", _begins(b"ggml", b"lmgg", b"ggjt", b"tjgg", b"ggmf", b"fmgg"), _NOT_WEIGHTS),
    Format("an HDF5 file", _begins(b"\x89HDF\r\n\x1a\n"), _NOT_WEIGHTS),
    Format("a numpy array (.npy)", _begins(b"\x93NUMPY"), _NOT_WEIGHTS),
    Format("a PNG picture", _begins(b"\x89PNG\r\n\x1a\n"), _NOT_WEIGHTS),
    Format("a JPEG picture", _begins(b"\xff\xd8\xff"), _NOT_WEIGHTS),
    Format("a WebP picture", lambda s: s.startswith(b"RIFF") and s[8:12] == b"WEBP", _NOT_WEIGHTS),
    Format("a GIF picture", _begins(b"GIF87a", b"GIF89a"), _NOT_WEIGHTS),
    Format("a PDF", _begins(b"%PDF-"), _NOT_WEIGHTS),
    Format("a gzip archive", _begins(b"\x1f\x8b"), "unpack it and name the .safetensors file in it"),
    Format(
        "a compressed archive",
        _begins(b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"\xfd7zXZ\x00", b"BZh", b"\x28\xb5\x2f\xfd"),
        "unpack it and name the .safetensors file in it",
    ),
    Format("a tar archive", lambda s: s[257:262] == b"ustar", "unpack it and name the .safetensors file in it"),
    Format(
        "nothing but zeros where its header should be, as an interrupted download leaves it",
        lambda start: not any(start), "download it again",
    ),
    Format("text", _is_readable, _AGAIN),
)  # fmt: skip


def other_format(path: Path) -> Format | None:
    """What the file at `path`, which is not safetensors, is instead; None if nothing shows it. OSError if it cannot be
    read."""
    with path.open("rb") as file:
        start = file.read(_START)
    return next((row for row in FORMATS if row.fits(start)), None)


def cut_header(start: bytes, size: int) -> int:
    """How many bytes a file of `size` should have at least, by the length its first nine bytes announce for its header;
    0 if they do not begin a safetensors file that was cut short in its header."""
    length = struct.unpack("<Q", start[:8])[0] if len(start) > 8 else 0
    return length + 8 if start[8:9] == b"{" and size - 8 < length <= 100_000_000 else 0
