"""Components and events that several tabs share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gradio as gr

from .messages import Handler, with_errors_shown
from .snippets import STRONGEST, WEAKEST

EXAMPLE_PROMPT = "a big red house by the sea"
#: of every event but the documented ones; the page shows progress itself
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
#: in the browser: a click on the link of each file that the server has just prepared, in their order
SAVE_FILES = """async (files) => { for (const file of files ?? []) {
const link = document.createElement('a'); link.href = file.url; link.download = file.orig_name;
document.body.append(link); link.click(); link.remove(); await new Promise((done) => setTimeout(done, 250)); } }"""


def on(events: Any, handler: Handler | None, inputs: Any = None, outputs: Any = None, **options: Any) -> Any:
    """Call `handler` at an event, or at each of a list of events; an SdLoraError is shown as a toast."""
    connect = partial(gr.on, events) if isinstance(events, list) else events
    return connect(handler and with_errors_shown(handler), inputs, outputs, **PRIVATE | options)


def side_by_side(fields: Callable[[], None], results: Callable[[], None]) -> None:
    """Fields to the left and, wider, results to the right; one below the other on a narrow screen."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            fields()
        with gr.Column(scale=3, min_width=300):
            results()


def button_beside(label: str, elem_id: str, min_width: int = 90) -> gr.Button:
    """A small button to the right of a field, as high as the field."""
    return gr.Button(label, elem_id=elem_id, scale=0, min_width=min_width, elem_classes="beside")


def prompt_field(elem_id: str, prompt: str = EXAMPLE_PROMPT, **options: Any) -> gr.Textbox:
    return gr.Textbox(prompt, label="Prompt", elem_id=elem_id, max_length=2000, **options)


def seed_field(tab: str, **options: Any) -> gr.Number:
    return gr.Number(0, label="Seed", precision=0, elem_id=f"{tab}-seed", **options)


def steps_field(tab: str, most: int, **options: Any) -> gr.Slider:
    return gr.Slider(1, most, 25, step=1, label="Steps", elem_id=f"{tab}-steps", **options)


def strength_field(value: float, **options: Any) -> gr.Slider:
    return gr.Slider(WEAKEST, STRONGEST, value, step=0.05, **options)


def start_and_stop(name: str, label: str = "Generate") -> tuple[gr.Button, gr.Button]:
    with gr.Row():
        start = gr.Button(label, variant="primary", elem_id=f"{name}-generate")
        return start, gr.Button("Stop", elem_id=f"{name}-stop")


def html_field(elem_id: str, value: str = "", **options: Any) -> gr.HTML:
    return gr.HTML(value, elem_id=elem_id, padding=False, **options)


def unseen_field(elem_id: str) -> gr.Textbox:
    """A field that only the page's script fills in."""
    return gr.Textbox("", elem_id=elem_id, elem_classes="unseen", label="", max_length=2000)


def gallery(elem_id: str, label: str, columns: int, **options: Any) -> gr.Gallery:
    """Pictures in rows, as high as they need; nothing is uploaded there."""
    options = {"format": "png", "buttons": ["download", "fullscreen"], **options}
    return gr.Gallery(
        label=label,
        elem_id=elem_id,
        columns=columns,
        fit_columns=False,
        object_fit="contain",
        height="auto",
        interactive=False,
        **options,
    )


def picture(elem_id: str, height: int, **options: Any) -> gr.Image:
    options = {"format": "png", "buttons": [], **options}
    return gr.Image(elem_id=elem_id, height=height, interactive=False, **options)
