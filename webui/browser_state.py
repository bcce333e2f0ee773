"""Fields that a reload restores. Their values are kept in the visitor's browser, not on the server."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.context import Context

from .components import on

Choices = Callable[[], list[Any]]


def remember(key: str, fields: Sequence[Any], lists: Mapping[Any, Choices] | None = None) -> Any:
    """Keep the values of `fields` under `key`, and fill them in when the page is opened again.

    `lists` gives the choices of dropdowns at that time; a value that is no longer among them is not restored.
    Returns the event of filling in.
    """
    memory = kept(key, [])
    with _outside_of_tabs():
        # pressed by page.js when the page is opened again; not on a first visit, as the browser walks the whole page
        # for each output of an event, which takes a second
        restore = gr.Button(visible="hidden", elem_id=f"recall-{key}")

    def fill_in(values: Any) -> Any:
        if not isinstance(values, list) or len(values) != len(fields):  # a first visit, or kept by another version
            values = [None] * len(fields)
        pairs = zip(fields, values, strict=True)
        updates = [_restored(field, value, (lists or {}).get(field)) for field, value in pairs]
        return updates if len(updates) > 1 else updates[0]  # a list would be the value of a single field

    on([field.change for field in fields], None, list(fields), memory, js="(...values) => [values]")
    return on(restore.click, fill_in, memory, list(fields), show_progress_on=memory)


def kept(key: str, default: Any) -> gr.BrowserState:
    """A value that the browser keeps under `key`."""
    with _outside_of_tabs():
        # inside a tab it would be read only once that is opened; the secret is no secret: a restarted page reads it too
        return gr.BrowserState(default, storage_key=f"sd_lora.{key}", secret="sd_lora")


def page_of() -> gr.Blocks:
    """The page that is being built."""
    page = Context.root_block
    assert isinstance(page, gr.Blocks)
    return page


def tab_selected() -> list[Any]:
    """The event that opens the tab being built; none outside of tabs."""
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


def _restored(field: Any, value: Any, choices: Choices | None) -> Any:
    """The update that gives `field` its kept `value`; a value that it cannot have changes nothing."""
    if not isinstance(field, gr.Dropdown):
        return value if isinstance(value, str | int | float) else gr.skip()
    update: dict[str, Any] = {"choices": choices()} if choices else {}
    values = [identity for _, identity in update.get("choices", field.choices)]
    if field.multiselect:
        return gr.update(**update, value=[one for one in value if one in values] if isinstance(value, list) else [])
    return gr.update(**update, value=value) if value in values else gr.update(**update)
