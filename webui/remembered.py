"""Fields that come back after a reload as they were left. They lie in the visitor's browser, not on the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.context import Context

from .telling import PRIVATE, telling

Choices = Callable[[], list[Any]]


def remember(key: str, fields: Sequence[Any], lists: Mapping[Any, Choices] | None = None) -> Any:
    """Keep the values of `fields` under `key`, and fill them in when the page is opened again.

    `lists` tells for dropdowns what can be chosen by then, on a first visit too; what is gone does not come back.
    Returns the event of filling in.
    """
    memory = browser_state(key, [])
    known = lists or {}

    def fill_in(values: Any) -> list[Any]:
        if not isinstance(values, list) or len(values) != len(fields):  # the first visit, or another version's
            values = [None] * len(fields)
        return [_back(field, value, known.get(field)) for field, value in zip(fields, values, strict=True)]

    gr.on([field.change for field in fields], None, list(fields), memory, js="(...values) => [values]", **PRIVATE)
    return page_of().load(telling(fill_in), memory, list(fields), **PRIVATE)


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


def browser_state(key: str, default: Any) -> gr.BrowserState:
    """A value that the browser keeps. One in a tab is read only when that is opened; this one lies outside."""
    inner, Context.block = Context.block, Context.root_block
    try:
        # scrambled, not secret: a page that was restarted is to read it too
        return gr.BrowserState(default, storage_key=f"sd_lora.{key}", secret="sd_lora")
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
