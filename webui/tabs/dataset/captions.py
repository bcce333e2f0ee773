"""The pictures of a dataset and the captions of one: saving, undo, and drafts that are never lost."""

from __future__ import annotations

from typing import Any

import gradio as gr

from sd_lora.data.captions import triggered
from sd_lora.errors import SdLoraError

from ... import components as ui
from ...components import on
from ...messages import status_html
from ...site import Site
from . import report
from .drafts import Desk, Visit

_MOST_CAPTION, _MOST_LINES = 64_000, 256
Updates = dict[Any, Any]


class Captions:
    """The components that show pictures and captions, and their events.

    Every handler gets the picture's name and the text from the browser's fields: answers may cross on their way, so the
    text belongs to that name, whichever picture the server believes to be shown.
    """

    def __init__(self, site: Site, visit: gr.State, trigger: gr.Textbox) -> None:
        self.site, self.visit, self.trigger = site, visit, trigger
        with gr.Row(equal_height=False, visible=False) as self.area:
            with gr.Column(scale=3, min_width=300):
                options = {"format": "webp", "buttons": [], "show_label": False, "allow_preview": False}
                self.gallery = ui.gallery("dataset-gallery", "Pictures", 4, **options)
            with gr.Column(scale=2, min_width=300):
                self._caption()
        self.inputs = [self.visit, self.name, self.caption, self.trigger]
        self.outputs = [self.gallery, self.name, self.picture, self.caption, self.tokens, self.message, self.drafts]
        for event, handler in (
            (self.previous.click, self.on_previous),
            (self.next.click, self.on_next),
            (self.save.click, self.on_save),
            (self.undo.click, self.on_undo),
            (self.discard.click, self.on_discard),
            (self.gallery.select, self.on_select),
        ):
            on(event, handler, self.inputs, self.outputs)
        # "input" does not fire for text that is pasted or deleted
        changes = [self.caption.change, self.trigger.change]
        on(changes, self.on_type, self.inputs, self.tokens, trigger_mode="always_last")

    def _caption(self) -> None:
        self.name = gr.Textbox("", label="Picture", interactive=False, elem_id="dataset-picture-name")
        self.picture = ui.picture("dataset-picture", 280, label="Picture", show_label=False, format="jpeg")
        options: dict[str, Any] = {"elem_id": "dataset-caption", "max_length": _MOST_CAPTION}
        self.caption = gr.Textbox("", label="Captions, one per line", lines=3, max_lines=12, **options)
        self.tokens = ui.html_field("dataset-tokens")
        with gr.Row():
            self.previous = gr.Button("← Previous", elem_id="dataset-previous", min_width=80)
            self.next = gr.Button("Next →", elem_id="dataset-next", min_width=80)
        with gr.Row():
            self.save = gr.Button("Save", variant="primary", elem_id="dataset-save", min_width=80)
            self.undo = gr.Button("Undo", elem_id="dataset-undo", min_width=80)
            self.discard = gr.Button("Discard", elem_id="dataset-discard", min_width=80)
        self.message = ui.html_field("dataset-message", status_html(""))
        self.drafts = ui.html_field("dataset-drafts")

    def on_select(self, visit: Visit, name: str, text: str, trigger: str, event: gr.SelectData) -> Updates:
        return self._go(visit, name, text, trigger, visit.open_desk().at(event.index))

    def on_previous(self, visit: Visit, name: str, text: str, trigger: str) -> Updates:
        return self._go(visit, name, text, trigger, visit.open_desk().beside(name, -1))

    def on_next(self, visit: Visit, name: str, text: str, trigger: str) -> Updates:
        return self._go(visit, name, text, trigger, visit.open_desk().beside(name, 1))

    def on_type(self, visit: Visit, name: str, text: str, trigger: str) -> str:
        """Count tokens while a caption is typed."""
        return self._tokens_html(visit.desk, name, text, trigger)

    def marks(self, desk: Desk) -> Updates:
        """The gallery with fresh marks, and the list of what is not saved."""
        return {self.gallery: gr.update(value=desk.gallery(self.site.work)), self.drafts: _drafts_html(desk)}

    def on_save(self, visit: Visit, name: str, text: str, trigger: str) -> Updates:
        desk = visit.open_desk()
        line = desk.save(desk.existing(name), text)
        tokens = self._tokens_html(desk, name, text, trigger)
        return self.marks(desk) | {self.message: status_html(line), self.tokens: tokens}

    def on_undo(self, visit: Visit, name: str, text: str, trigger: str) -> Updates:
        desk = visit.open_desk()
        visit.keep(name, text)
        undone, line = desk.undo()
        updates = self.show(desk, undone, trigger) if undone else {}
        return updates | {self.message: status_html(line)}

    def on_discard(self, visit: Visit, name: str, _text: str, trigger: str) -> Updates:
        desk = visit.open_desk()
        line = desk.discard(desk.existing(name))
        return self.show(desk, name, trigger) | {self.message: status_html(line)}

    def _go(self, visit: Visit, name: str, text: str, trigger: str, to: str) -> Updates:
        """Show another picture; unsaved text of this one is kept as a draft."""
        if to == name:  # what has been typed meanwhile stays
            return {self.name: gr.skip()}
        desk = visit.open_desk()
        before = set(desk.drafts)
        visit.keep(name, text)
        return self.show(desk, to, trigger, redraw=before != set(desk.drafts))

    def show(self, desk: Desk, name: str, trigger: str, *, redraw: bool = True) -> Updates:
        """A picture and its captions; `redraw` the gallery if marks have changed."""
        try:
            text, line = desk.text(name)
            editable = desk.editor is not None
        except SdLoraError as error:
            text, line, editable = "", str(error), False
        index = desk.names.index(name)
        gallery = gr.update(selected_index=index if index < desk.pictured else None)
        if redraw:
            gallery["value"] = desk.gallery(self.site.work)
        return {
            self.gallery: gallery, self.name: name, self.picture: _picture(desk, name),
            self.caption: gr.update(value=text, interactive=editable),
            self.tokens: self._tokens_html(desk, name, text, trigger), self.message: status_html(line),
            self.drafts: _drafts_html(desk),
        }  # fmt: skip

    def empty(self) -> Updates:
        """No dataset is open."""
        texts = dict.fromkeys([self.name, self.caption, self.tokens, self.drafts], "")
        pictures = dict.fromkeys([self.gallery, self.picture], None)
        return {self.area: gr.update(visible=False), **texts, **pictures, self.message: status_html("")}

    def _tokens_html(self, desk: Desk | None, name: str, text: str, trigger: str) -> str:
        """The tokens of each line as it will be trained, and whether the text is saved."""
        if desk is None or name not in desk.rows:
            return ""
        word = (trigger or "").strip()
        lines = [line for line in (text or "")[:_MOST_CAPTION].splitlines() if line.strip()][:_MOST_LINES]
        counts = [self.site.service.token_count(triggered(line, word)) for line in lines]
        return report.tokens_html(counts, is_saved=desk.bases.get(name, text) == text)


def _drafts_html(desk: Desk) -> str:
    return report.drafts_html(sorted(desk.drafts))


def _picture(desk: Desk, name: str) -> Any:
    """The picture itself, as it is larger than its thumbnail."""
    try:
        return desk.editor.picture(name) if desk.editor is not None else None
    except SdLoraError:
        return None
