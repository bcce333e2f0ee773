"""What the page says: errors as one sentence, never a traceback, and no text from files as markup."""

from __future__ import annotations

import contextlib
import functools
import html
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from sd_lora.errors import SdLoraError

Handler = Callable[..., Any]


def plain_error(error: SdLoraError) -> gr.Error:
    """The error of a program's call: the sentence as it is, as nothing renders it."""
    return gr.Error(str(error), print_exception=False)


def error_toast(error: SdLoraError) -> gr.Error:
    """A toast; Gradio renders it as markup, so the text is escaped."""
    return gr.Error(escaped(str(error)), duration=20, print_exception=False)


def with_errors_shown(handler: Handler, as_error: Callable[[SdLoraError], Exception] = error_toast) -> Handler:
    """`handler`, a function or generator, with each SdLoraError turned into what `as_error` makes of it."""

    @contextlib.contextmanager
    def converted() -> Iterator[None]:
        try:
            yield
        except SdLoraError as error:
            raise as_error(error) from error

    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def yielding(*args: Any) -> Iterator[Any]:
            with converted():
                yield from handler(*args)

        return yielding

    @functools.wraps(handler)
    def returning(*args: Any) -> Any:
        with converted():
            return handler(*args)

    return returning


def status_html(text: str, share: float | None = None, said: str | None = None) -> str:
    """A line of status; with a bar if `share`, from 0 to 1, is given. `said`: what is read out where it changes, for a
    text that changes many times a second; without it, the text."""
    bar = "" if share is None else f'<div class="bar"><i style="width:{100 * share:.0f}%"></i></div>'
    live = 'role="status" aria-live="polite"' if said is None else f'data-said="{escaped(said)}"'
    return f'<div class="status" {live}>{escaped(text)}{bar}</div>'


def warn(sentence: str) -> None:
    """Show a toast; Gradio renders it as markup, so the text is escaped."""
    gr.Warning(escaped(sentence[:400]))


def count_of(number: int, noun: str) -> str:
    """``1 picture``, ``2 pictures``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def escaped(text: object) -> str:
    """`text` as HTML that shows it literally."""
    return html.escape(str(text), quote=True)
