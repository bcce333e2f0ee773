"""Fields that come back after a reload as they were left. They lie in the visitor's browser, not on the server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.context import Context

from .messages import PRIVATE, telling

Choices = Callable[[], list[Any]]


def remember(key: str, fields: Sequence[Any], lists: Mapping[Any, Choices] | None = None) -> Any:
    """Keep the values of `fields` under `key`, and fill them in when the page is opened again.

    `lists` tells for dropdowns what can be chosen by then; what is gone does not come back.
    Returns the event of filling in.
    """
    known = lists or {}
    memory = kept(key, [])
    with _outside_of_tabs():
        # pressed by page.js when the page is opened again; not on a first visit, as the browser walks the whole page
        # for each output of an event, which took it a second
        returned = gr.Button(visible="hidden", elem_id=f"recall-{key}")

    def fill_in(values: Any) -> list[Any]:
        if not isinstance(values, list) or len(values) != len(fields):  # the first visit, or another version's
            values = [None] * len(fields)
        return [_back(field, value, known.get(field)) for field, value in zip(fields, values, strict=True)]

    gr.on([field.change for field in fields], None, list(fields), memory, js="(...values) => [values]", **PRIVATE)
    return returned.click(telling(fill_in), memory, list(fields), show_progress_on=memory, **PRIVATE)


def kept(key: str, default: Any) -> gr.BrowserState:
    """A value that the browser keeps under `key`."""
    with _outside_of_tabs():
        # in a tab it is read only once that is opened; scrambled, not secret: a restarted page is to read it too
        return gr.BrowserState(default, storage_key=f"sd_lora.{key}", secret="sd_lora")


def page_of() -> gr.Blocks:
    """The page that is being built."""
    page = Context.root_block
    assert isinstance(page, gr.Blocks)
    return page


def opened() -> list[Any]:
    """The event of the tab around being opened; none outside of tabs."""
    block = Context.block
    while block is not None and not isinstance(block, gr.Tab):
        block = block.parent
    return [] if block is None else [block.select]


@contextlib.contextmanager
def _outside_of_tabs() -> Iterator[None]:
    inner, Context.block = Context.block, Context.root_block
    try:
        yield
    finally:
        Context.block = inner


def _back(field: Any, value: Any, listed: Choices | None) -> Any:
    """The update that gives `field` its `value` back; None leaves it."""
    if not isinstance(field, gr.Dropdown):
        return value if isinstance(value, str | int | float) else gr.skip()
    fresh: dict[str, Any] = {"choices": listed()} if listed else {}
    values = [identity for _, identity in fresh.get("choices", field.choices)]
    if field.multiselect:
        return gr.update(**fresh, value=[one for one in value if one in values] if isinstance(value, list) else [])
    return gr.update(**fresh, value=value) if value in values else gr.update(**fresh)
