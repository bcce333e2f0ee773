"""A run as the Train tab shows it; no text of files becomes markup."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from sd_lora.check.result import duration
from sd_lora.runs.state import RunState

from ...messages import escaped
from ...picture_files import kept_file
from .plots import Curve, chart

_MOST_SAMPLES = 24
STYLES = """<style>
.said { border-radius: 6px; padding: 0.5rem 0.75rem; background: var(--background-fill-secondary);
  border-left: 4px solid var(--color-accent); overflow-wrap: anywhere; }
.said.error { border-left-color: #c0392b; }
.facts { display: flex; flex-wrap: wrap; gap: 0 1.25rem; }
.facts b { font-weight: 700; }
#train-samples .grid-wrap { height: auto; min-height: 0; max-height: none; }
</style>"""


def said(text: str, *, wrong: bool = False) -> str:
    """A sentence beside the form."""
    if not text:
        return ""
    return f'<div class="said{" error" if wrong else ""}" role="{"alert" if wrong else "status"}">{escaped(text)}</div>'


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
        facts.append(f"{duration(state.eta)} left")
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
            facts = path.lstat()
            if not path.is_symlink():  # a link may lead anywhere
                key = f"{path}\0{facts.st_mtime_ns}\0{facts.st_size}".encode("utf-8", "surrogateescape")
                sheets.append((kept_file(work, key, path.name, path.read_bytes), f"step {step:,}"))
    return sheets
