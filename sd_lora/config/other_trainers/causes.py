"""Why a config file cannot be parsed, in the words of those who write such files."""

from __future__ import annotations

import re
from pathlib import Path

from sd_lora.errors import ConfigError

_BACKSLASHES = (
    "line {} has backslashes in double quotes, as in Windows paths; write / for them, or put the path in single quotes"
)

_COMMAND = re.compile(r"^\s*(?:(?:accelerate\s+launch|python\S*|torchrun)\s|\S+\.py\s+--\w)", re.MULTILINE)


def windows_path(text: str) -> int:
    """The number of the first line with a path such as ``"C:\\new"``, whose backslashes TOML takes for others; or 0."""
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(r'[=:\[,-]\s*"(?:[A-Za-z]:|\.{1,2})\\', line.replace("\\\\", "")):
            return number
    return 0


def cause(text: str, error: Exception, kind: str = "TOML") -> str:
    """The likely cause of a parser's error, with its line; the parser's own words if nothing shows it."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    lines = text.splitlines()
    at = re.search(r"line (\d+)", str(error))
    number = min(int(at[1]), len(lines)) if at else 0
    line = lines[number - 1] if number else ""
    value = line.partition("=" if kind == "TOML" else ":")[2].strip()
    likely = {
        "TOML": [
            (_COMMAND.search(text), "it is a command; write its options into a .toml file, as name = value"),
            (windows_path(line) or "\\" in line, _BACKSLASHES.format(number)),
            (re.match(r"\d+,\d+", value), f"line {number} has a decimal comma; write {value.replace(',', '.', 1)}"),
            (re.match(r"(True|False)\b", value), f"line {number} has {value}; write {value.lower()}"),
            (re.match(r"(None|null)\b", value), f"line {number} has {value}, which TOML does not; remove the line"),
            (re.match(r"[“”„‘’]", value), f'line {number} has curly quotes; write "'),
            (line.lstrip().startswith("--"), f"line {number} is an option of a command line; write name = value"),
            (re.match(r"\s*[\w.-]+\s*:", line), f"line {number} has a colon, as in YAML; write name = value"),
            (re.match(r"[A-Za-z./~][^\"']*$", value), f"line {number} has text without quotes; put it in quotes"),
            (re.search(r"[,;]$", value) and value.count("[") == value.count("]"),
             f"line {number} ends in {value[-1:]!r}, which TOML does not have; remove it"),
            ("overwrite" in str(error), f"line {number} sets what was set before; leave one out"),
        ],
        "JSON": [
            (re.search(r"\\", line), f"line {number} has a backslash, as in Windows paths; write / or \\\\ for it"),
            (re.match(r"\d+,\d+\s*,?$", value), f"line {number} has a decimal comma; write a point"),
            (re.match(r"(True|False|None)\b", value), f"line {number} has {value.rstrip(',')}; use small letters"),
            (line.strip() in ("}", "]"), f"line {number - 1} ends in a comma and nothing follows; remove the comma"),
            (line.strip().startswith(("#", "//")), f"line {number} is a comment, which JSON does not have; remove it"),
        ],
        "YAML": [
            (any("\t" in each[: len(each) - len(each.lstrip())] for each in lines), "tabs indent lines; write spaces"),
            ("\\" in line, f"line {number} has backslashes in double quotes, as in Windows paths; write / for them"),
        ],
    }[kind]  # fmt: skip
    return next((sentence for found, sentence in likely if found), str(error))


def refuse_windows_paths(path: str | Path, text: str) -> None:
    """ConfigError for paths that were read, but not as they were meant."""
    if line := windows_path(text):
        raise ConfigError(f"{path} would not be read as it is meant: {_BACKSLASHES.format(line)}")
