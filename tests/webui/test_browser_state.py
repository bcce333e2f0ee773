"""Values that a browser has kept are restored only if they are still valid."""

from __future__ import annotations

from typing import Any

import gradio as gr
import pytest
from sd_lora.webui.browser_state import remember

LISTED = [("ink", "1"), ("wood", "2")]


@pytest.fixture
def fill_in() -> Any:
    with gr.Blocks() as page, gr.Tabs(), gr.Tab("one"):
        adapter, several = gr.Dropdown(LISTED), gr.Dropdown(LISTED, multiselect=True)
        text, fixed = gr.Textbox(""), gr.Dropdown(["a", "b"])
        fields = [adapter, several, text, fixed]
        remember("one", fields, {adapter: lambda: LISTED[1:], several: lambda: LISTED[1:]})
    return next(fn.fn for fn in page.fns.values() if fn.name == "fill_in")


def test_values_that_still_exist_are_restored(fill_in: Any) -> None:
    adapter, several, text, fixed = fill_in(["2", ["2", "1"], "a cup", "b"])
    assert (adapter["value"], adapter["choices"]) == ("2", LISTED[1:])
    assert several["value"] == ["2"]
    assert (text, fixed["value"]) == ("a cup", "b")


@pytest.mark.parametrize(
    "kept", [[], None, "text", {"a": 1}, [1], ["1", None, None, "c"], [{"a": 1}, "1", None, ["a", 3, {}]]]
)
def test_other_values_are_ignored_and_lists_are_fresh(fill_in: Any, kept: Any) -> None:
    adapter, several, text, fixed = fill_in(kept)
    assert adapter["choices"] == several["choices"] == LISTED[1:]
    assert "value" not in adapter
    assert not several.get("value")
    assert "choices" not in fixed
    assert "value" not in fixed
    assert text == gr.skip()


def test_kept_values_are_read_outside_of_the_tab() -> None:
    with gr.Blocks() as page, gr.Tabs(), gr.Tab("one"):
        remember("one", [gr.Textbox()])
    state = next(block for block in page.blocks.values() if isinstance(block, gr.BrowserState))
    assert state.parent is page


def test_a_single_field_is_restored_by_its_update() -> None:
    with gr.Blocks() as page, gr.Tabs(), gr.Tab("one"):
        field = gr.Dropdown(LISTED)
        remember("one", [field], {field: lambda: LISTED[1:]})
    update = next(fn.fn for fn in page.fns.values() if fn.name == "fill_in")(["2"])
    assert (update["value"], update["choices"]) == ("2", LISTED[1:])
