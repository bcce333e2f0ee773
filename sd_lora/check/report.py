"""A check as one page of HTML that needs nothing else: findings, plan and thumbnails."""

from __future__ import annotations

import base64
import html
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jinja2

from sd_lora.check.result import Check, duration
from sd_lora.data.findings import CODES, Finding, Severity, grouped, headline, remedy_of
from sd_lora.errors import ConfigError, printable
from sd_lora.storage.atomic import write_atomically

_MOST_IMAGES = 500
#: findings of a kind that are listed before the rest is folded away
_MOST_UNFOLDED = 8
#: pixels that a report is high in a notebook
_FRAME = 640


@dataclass(frozen=True)
class Kind:
    """All findings of one code; `title` says how many there are, or what a single one says that is about no file."""

    code: str
    severity: Severity
    title: str
    remedy: str
    findings: tuple[Finding, ...]


def write_report(check: Check, path: Path) -> None:
    """Write `check` to `path` as a page that asks for nothing from elsewhere and runs no script; SdLoraError if it
    cannot be written. Names and captions are shown as text, whatever they hold."""
    check_target(path)
    # a file's name may have bytes that are not text
    write_atomically(path, report_html(check).encode("utf-8", "replace"))


def report_html(check: Check) -> str:
    """The page of `check`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sd_lora.check", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"base64": lambda content: base64.b64encode(content).decode("ascii"), "duration": duration}
    kinds, shown = _kinds(check.findings), list(check.images[:_MOST_IMAGES])
    return environment.get_template("report.html.jinja").render(
        check=check,
        name=Path(check.folder).absolute().name or check.folder,
        kinds=kinds,
        images=shown,
        more=len(check.images) - len(shown),
        places={row.name: f"image-{i}" for i, row in enumerate(shown, 1)},
        badges=_badges(kinds),
        unfolded=_MOST_UNFOLDED,
    )


def report_frame(check: Check) -> str:
    """The page of `check` in a frame of its own, for a notebook: neither changes how the other looks."""
    page = html.escape(report_html(check).encode("utf-8", "replace").decode(), quote=True)
    style = f"width: 100%; height: {_FRAME}px; border: 1px solid #8888; border-radius: 6px"
    return f'<iframe sandbox="allow-popups" title="check of a folder" srcdoc="{page}" style="{style}"></iframe>'


def check_target(path: Path) -> None:
    """ConfigError unless a report may be written to `path`: it may take the place of a page, and of nothing else."""
    if path.suffix.lower() not in (".html", ".htm"):
        why = "it does not end in .html"
    elif not path.absolute().parent.is_dir():
        why = "its folder does not exist"
    elif os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        why = "something else has that name"
    else:
        return
    raise ConfigError(f"{printable(str(path))} cannot be written: {why}; --report is a page, such as check.html")


def _kinds(findings: Iterable[Finding]) -> list[Kind]:
    """The findings by code, the gravest first."""
    of: dict[str, list[Finding]] = {}
    for finding in findings:
        of.setdefault(finding.code, []).append(finding)
    each = ((code, tuple(of[code])) for code, _ in grouped(findings))
    return [Kind(code, CODES[code].severity, headline(same), remedy_of(same), same) for code, same in each]


def _badges(kinds: Iterable[Kind]) -> dict[str, list[Kind]]:
    """The kinds of finding by the file they are about."""
    badges: dict[str, list[Kind]] = {}
    for kind in kinds:
        for name in dict.fromkeys(finding.file for finding in kind.findings if finding.file):
            badges.setdefault(name, []).append(kind)
    return badges
