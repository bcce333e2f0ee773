"""A run as the Train tab shows it; text from files never becomes markup."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from sd_lora.check.result import duration
from sd_lora.runs.state import RunState

from ...cached_files import cached_file
from ...messages import escaped
from .plots import Curve, chart

_MOST_SAMPLES = 24


def message_html(text: str, *, is_error: bool = False, marks: Sequence[str] = ()) -> str:
    """A sentence below the form's buttons; `marks` are the ids of the fields that it is about, which page.js marks."""
    kind, role = (" error", "alert") if is_error else ("", "status")
    marked = f' data-marks="{escaped(" ".join(marks))}"' if marks else ""
    return f'<div class="form-message{kind}" role="{role}"{marked}>{escaped(text)}</div>' if text else ""


def progress_html(state: RunState) -> str:
    """The bar, with the status and numbers of the run above it."""
    share = state.step / state.steps if state.steps else 0.0
    status = "stopping after this step" if state.stopping else state.status
    steps = f"step {state.step:,} of {state.steps:,}" if state.steps else ""
    facts = [
        f'<b role="status">{escaped(status)}</b>',
        escaped(state.doing) if state.is_alive and not state.step else steps,
    ]
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
    error = message_html(f"{state.name}: {state.error}", is_error=True) if state.error else ""
    return f'<div class="status"><div class="facts">{line}</div>{bar}</div>{error}'


def losses_html(state: RunState) -> str:
    """The loss of each step and its running mean."""
    raw = [(step, loss) for step, loss, _ in state.losses]
    mean = [(step, smoothed) for step, _, smoothed in state.losses]
    curves = [Curve("each step", "currentColor", raw, 0.3, 1.0), Curve("running mean", "var(--color-accent)", mean)]
    return chart("Training loss", curves)


def validation_html(state: RunState) -> str:
    """The loss on held-out images and on as many training images."""
    held = [(step, loss) for step, loss, _ in state.validation]
    trained = [(step, loss) for step, _, loss in state.validation]
    curves = [
        Curve("trained", "var(--color-accent)", trained, marked=True), Curve("held out", "#d0435a", held, marked=True)
    ]  # fmt: skip
    return chart("Validation loss", curves)


def sample_sheets(state: RunState, work: Path) -> list[tuple[str, str]]:
    """Copies in `work` of the newest sample sheets, the newest last; browsers get no file of the run itself."""
    sheets = []
    for step, path in state.samples[-_MOST_SAMPLES:]:
        with suppress(OSError):
            facts = path.lstat()
            if not path.is_symlink():  # a link may point anywhere
                key = f"{path}\0{facts.st_mtime_ns}\0{facts.st_size}".encode("utf-8", "surrogateescape")
                sheets.append(
                    (str(cached_file(work, key, path.name, partial(shutil.copyfile, path))), f"step {step:,}")
                )
    return sheets
