"""Read a caption file of any encoding and line ends into clean captions of one line each."""

from __future__ import annotations

import codecs
import stat
from dataclasses import dataclass
from pathlib import Path

from sd_lora.data.dialects.reading import document_in
from sd_lora.errors import DataError

MAX_BYTES = 64_000
#: captions of one image that are read
MAX_CAPTIONS = 256
#: those that editors write; the first is taken of those that fit equally well
_ENCODINGS = (
    "cp1252", "cp1251", "cp1253", "cp1255", "cp1256", "cp932", "gb18030", "big5", "cp949", "euc_jp",
    "cp1250", "cp1254", "cp1257", "koi8_r", "mac_roman",
)  # fmt: skip
# the mark of UTF-32 begins with that of UTF-16
MARKS = {
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be",
}  # fmt: skip
# Joiners stay, as emoji and Persian need them; marks that only control the display are removed.
_INVISIBLE = [0xAD, 0x180E, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF]
_TIDY = {
    **dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], " "),
    **dict.fromkeys(_INVISIBLE, ""),
    **dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
}


class CaptionError(DataError):
    """A file that is not text; `detail` says why."""

    def __init__(self, file: Path, detail: str) -> None:
        super().__init__(f"caption file {file} cannot be read: {detail}; save it as UTF-8 text")
        self.detail = detail


@dataclass(frozen=True)
class CaptionText:
    """The captions of one file, each on one line; `encoding` is empty for UTF-8, and `guessed` if nothing marks it.
    `document`: what the lines are together, if another program wrote them for one image."""

    captions: tuple[str, ...]
    encoding: str
    guessed: bool = False
    document: str = ""


def read_caption_file(file: Path, lines: str = "each") -> CaptionText:
    """The captions in `file`: every line that is not blank, or with ``lines="joined"`` all of them as one.

    Raises CaptionError if it is not text or cannot be read.
    """
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CaptionError(file, "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file")
        if status.st_size > MAX_BYTES:
            raise CaptionError(file, f"{status.st_size / 1000:.0f} kB, but only {MAX_BYTES // 1000} kB are read")
        text, encoding, guessed = decode_text(file.read_bytes())
    except OSError as error:
        raise CaptionError(file, (error.strerror or str(error)).lower()) from error
    except ValueError as error:
        raise CaptionError(file, str(error)) from error
    captions = [clean for line in text.splitlines() if (clean := tidy(line))]
    listed = [" ".join(captions)] if captions and lines == "joined" else captions
    return CaptionText(tuple(listed), encoding, guessed, document_in(text) if len(captions) > 1 else "")


def tidy(text: str) -> str:
    """`text` on one line: single spaces, no control characters, nothing invisible."""
    return " ".join(text.translate(_TIDY).split())


def decode_text(content: bytes) -> tuple[str, str, bool]:
    """The text, its encoding (empty: UTF-8) and whether that is a guess. ValueError says why it is not text."""
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            try:
                text = content[len(mark) :].decode(encoding)
            except UnicodeDecodeError:
                continue
            if "\0" in text:
                continue
            return text, "" if encoding == "utf-8" else encoding, False
    if b"\0" in content:
        raise ValueError("not text, as it holds NUL bytes")
    try:
        return content.decode("utf-8"), "", False
    except UnicodeDecodeError:
        return *_guess(content), True


def _guess(content: bytes) -> tuple[str, str]:
    from charset_normalizer import from_bytes

    sample = content
    if len(content) > MAX_BYTES:  # it is decoded in every encoding
        sample = b"\n".join(line for line in content.splitlines() if not line.isascii())[:MAX_BYTES]
        sample = sample[: sample.rfind(b"\n")] if b"\n" in sample else sample
    matches = list(from_bytes(sample, cp_isolation=list(_ENCODINGS)))
    if matches:
        best = min((m.chaos, -m.coherence) for m in matches)
        fitting = {name for m in matches if (m.chaos, -m.coherence) == best for name in m.could_be_from_charset}
        encoding = next((name for name in _ENCODINGS if name in fitting), matches[0].encoding)
        text = content.decode(encoding, "replace")
        # short binary data is valid in some encoding, but text is not full of control characters
        if sum((c < " " and not c.isspace()) or "\x7f" <= c < "\xa0" or c == "\ufffd" for c in text) <= len(text) / 20:
            return text, encoding
    raise ValueError("not text in any known encoding")
