"""How the page tells: errors as one sentence, never a traceback, and no text of files as markup."""

from __future__ import annotations

import functools
import html
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from sd_lora.errors import SdLoraError

Handler = Callable[..., Any]
#: of every event but the documented ones; the page shows progress itself
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def telling(handler: Handler, as_error: Callable[[SdLoraError], Exception] | None = None) -> Handler:
    """`handler`, function or generator, whose SdLoraError becomes what `as_error` makes of it, a toast by default."""
    as_error = as_error or shown
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def yielding(*args: Any) -> Iterator[Any]:
            try:
                yield from handler(*args)
            except SdLoraError as error:
                raise as_error(error) from error

        return yielding

    @functools.wraps(handler)
    def returning(*args: Any) -> Any:
        try:
            return handler(*args)
        except SdLoraError as error:
            raise as_error(error) from error

    return returning


def plain(error: SdLoraError) -> gr.Error:
    """The error of a program's call: the sentence as it is, as nothing renders it."""
    return gr.Error(str(error), print_exception=False)


def shown(error: SdLoraError) -> gr.Error:
    """The toast of an error; it is rendered as markup, so what files are called is escaped."""
    return gr.Error(escaped(str(error)), duration=20, print_exception=False)


def status_html(text: str, share: float | None = None) -> str:
    """A line of status, with a bar if `share` of something is done."""
    bar = "" if share is None else f'<div class="bar"><i style="width:{100 * share:.0f}%"></i></div>'
    return f'<div class="status" role="status" aria-live="polite">{escaped(text)}{bar}</div>'


def warn(sentence: str) -> None:
    """A toast; it is rendered as markup, so what it names is escaped."""
    gr.Warning(escaped(sentence[:400]))


def escaped(text: object) -> str:
    """`text` as HTML shows it literally."""
    return html.escape(str(text), quote=True)
