"""A folder of one picture with a caption file, as it is listed."""

from __future__ import annotations

from pathlib import Path

from sd_lora.config.schema import DataConfig
from sd_lora.data.folders.listing import list_folder


def found(folder: Path, text: str, **settings: object) -> tuple[tuple[str, ...], list[str], str]:
    """What is trained of a picture's caption file, the codes of what is found but for lines, and the messages."""
    (folder / "a.png").write_bytes(b"x")
    (folder / "a.txt").write_text(text, "utf-8")
    listing = list_folder(DataConfig(folder=str(folder), **settings))
    (entry,) = listing.entries
    codes = sorted(finding.code for finding in listing.findings if finding.code != "caption-lines")
    return entry.captions, codes, " | ".join(finding.message for finding in listing.findings)
