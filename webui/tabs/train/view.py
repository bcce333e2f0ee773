"""A run, and the check of a dataset, as the Train tab shows them; no text of files becomes markup."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from sd_lora.check.result import Check
from sd_lora.data.findings import Finding
from sd_lora.runs.state import RunState

from ...messages import escaped
from .plots import Curve, chart

_MOST_SAMPLES, _MOST_FINDINGS = 24, 8
_SIGNS = {"error": ("✖", "#c0392b"), "warning": ("▲", "#c77d00"), "info": ("ℹ", "var(--color-accent)")}
STYLES = """<style>
.said { border-radius: 6px; padding: 0.5rem 0.75rem; background: var(--background-fill-secondary);
  border-left: 4px solid var(--color-accent); overflow-wrap: anywhere; }
.said.error { border-left-color: #c0392b; }
.said .finding { margin: 0.15rem 0; padding-left: 1.3rem; text-indent: -1.3rem; }
.said p { margin: 0.15rem 0; }
.facts { display: flex; flex-wrap: wrap; gap: 0 1.25rem; }
.facts b { font-weight: 700; }
#train-samples .grid-wrap { height: auto; min-height: 0; max-height: none; }
</style>"""


def said(text: str, *, wrong: bool = False) -> str:
    """A sentence beside the form."""
    if not text:
        return ""
    return f'<div class="said{" error" if wrong else ""}" role="{"alert" if wrong else "status"}">{escaped(text)}</div>'


def check_shown(check: Check) -> str:
    """What a check found, the gravest first, and what the run will be."""
    items = "".join(_findings(check.findings)) or "<p>nothing was found wrong</p>"
    return (
        f'<div class="said{" error" if check.has_errors else ""}" role="status"><p><b>{escaped(check.summary)}</b></p>'
        f"<p>{escaped(_planned(check))}</p>{items}</div>"
    )


def progress_shown(state: RunState) -> str:
    """The bar, and beside it what can be said in numbers."""
    share = state.step / state.steps if state.steps else 0.0
    word = "stopping after this step" if state.stopping else state.status
    steps = f"step {state.step:,} of {state.steps:,}" if state.steps else ""
    facts = [f"<b>{escaped(word)}</b>", steps]
    if state.is_alive and state.seconds:
        facts.append(f"{1 / state.seconds:.1f} steps/s" if state.seconds < 1 else f"{state.seconds:.1f} s/step")
    if state.is_alive and state.step and state.step == state.steps:
        facts.append("drawing and saving the result")
    elif state.eta is not None:
        facts.append(f"{lasting(state.eta)} left")
    if state.losses:
        facts.append(f"loss {state.losses[-1][2]:.4g}")
    if state.learning_rate is not None:
        facts.append(f"rate {state.learning_rate:.2g}")
    if state.memory:
        facts.append(f"{state.memory / 2**30:.1f} GB")
    line = "".join(f"<span>{fact}</span>" for fact in facts if fact)
    bar = (
        f'<div class="bar" role="progressbar" aria-label="steps" aria-valuemin="0" aria-valuemax="{state.steps}" '
        f'aria-valuenow="{state.step}"><i style="width:{100 * share:.1f}%"></i></div>'
    )
    error = said(f"{state.name}: {state.error}", wrong=True) if state.error else ""
    return f'<div class="status" role="status"><div class="facts">{line}</div>{bar}</div>{error}'


def losses_shown(state: RunState) -> str:
    """The loss of each step and its running mean."""
    raw = [(step, loss) for step, loss, _ in state.losses]
    mean = [(step, smoothed) for step, _, smoothed in state.losses]
    curves = [Curve("each step", "currentColor", raw, 0.3, 1.0), Curve("running mean", "var(--color-accent)", mean)]
    return chart("Training loss", curves)


def validation_shown(state: RunState) -> str:
    """The loss on images held out and on as many trained ones."""
    held = [(step, loss) for step, loss, _ in state.validation]
    trained = [(step, loss) for step, _, loss in state.validation]
    curves = [
        Curve("trained", "var(--color-accent)", trained, marked=True), Curve("held out", "#d0435a", held, marked=True)
    ]  # fmt: skip
    return chart("Validation loss", curves)


def samples_shown(state: RunState, work: Path) -> list[tuple[str, str]]:
    """Copies in `work` of the newest sample sheets, the newest last; a run's own files are not handed out."""
    sheets = []
    for step, path in state.samples[-_MOST_SAMPLES:]:
        with suppress(OSError):
            sheets.append((str(_copied(path, work / "samples")), f"step {step:,}"))
    return sheets


def lasting(seconds: float) -> str:
    """``40 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _copied(path: Path, folder: Path) -> Path:
    facts = path.lstat()
    name = hashlib.sha256(
        f"{path}\0{facts.st_mtime_ns}\0{facts.st_size}".encode("utf-8", "surrogateescape")
    ).hexdigest()
    target = folder / f"{name[:24]}.png"
    if path.is_symlink():
        raise OSError("a link may lead anywhere")
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{uuid.uuid4().hex}.partial")
        shutil.copyfile(path, partial)
        os.replace(partial, target)
    os.utime(target)  # the janitor takes what was not used for long
    return target


def _findings(findings: Iterable[Finding]) -> list[str]:
    """A line for each finding; of many of a kind the first ones and how many more there are."""
    kinds: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        kinds.setdefault((finding.severity, finding.code), []).append(finding)
    lines = []
    for (severity, _), alike in sorted(kinds.items(), key=lambda item: list(_SIGNS).index(item[0][0])):
        sign, colour = _SIGNS[severity]
        mark = f'<span style="color:{colour}" title="{severity}">{sign}</span>&nbsp;'
        lines += [f'<div class="finding">{mark} {escaped(finding.message)}</div>' for finding in alike[:_MOST_FINDINGS]]
        if len(alike) > _MOST_FINDINGS:
            lines.append(f'<div class="finding">{mark} and {len(alike) - _MOST_FINDINGS} more of this kind</div>')
    return lines


def _planned(check: Check) -> str:
    plan = check.plan
    if plan is None:
        return "no run can be planned"
    images = f"{plan.images} image{'s' if plan.images != 1 else ''}"
    text = f"{images}, {plan.steps:,} steps of {plan.batch_size}: {plan.exposures:,} exposures"
    if plan.seconds is not None:
        text += f", about {lasting(plan.seconds)} here"
    if plan.memory_bytes is not None:
        text += f" and {plan.memory_bytes / 2**30:.1f} GB"
    sizes = ", ".join(f"{bucket.width} × {bucket.height}" for bucket in plan.buckets[:6])
    return f"{text}; trained at {sizes}{' and other sizes' if len(plan.buckets) > 6 else ''}"
