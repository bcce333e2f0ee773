"""The pictures of a dataset and the captions of one: saved, taken back, and drafts that are never lost."""

from __future__ import annotations

from typing import Any

import gradio as gr

from sd_lora.data.captions import triggered
from sd_lora.errors import SdLoraError

from ...messages import PRIVATE, status_html, telling
from ...site import Site
from . import report
from .drafts import Desk, Visit

_MOST_CAPTION, _MOST_LINES = 64_000, 256
Updates = dict[Any, Any]


class Captions:
    """The components that show pictures and captions, and what happens with them.

    Every handler is given the picture's name and the text as they stand in the browser: answers may cross, so the text
    belongs to that name, whatever is thought to be shown.
    """

    def __init__(self, site: Site, visit: gr.State, trigger: gr.Textbox) -> None:
        self.site, self.visit, self.trigger = site, visit, trigger
        with gr.Row(equal_height=False, visible=False) as self.place:
            with gr.Column(scale=3, min_width=300):
                self._pictures()
            with gr.Column(scale=2, min_width=300):
                self._caption()
        self.inputs = [self.visit, self.shown, self.caption, self.trigger]
        self.outputs = [self.gallery, self.shown, self.picture, self.caption, self.tokens, self.told, self.drafts]
        self._wire()

    def _pictures(self) -> None:
        self.gallery = gr.Gallery(
            label="Pictures",
            show_label=False,
            columns=4,
            fit_columns=False,
            object_fit="contain",
            height="auto",
            allow_preview=False,
            interactive=False,
            elem_id="dataset-gallery",
            buttons=[],
        )

    def _caption(self) -> None:
        self.shown = gr.Textbox("", label="Picture", interactive=False, elem_id="dataset-picture-name")
        self.picture = gr.Image(
            label="Picture",
            show_label=False,
            format="jpeg",
            interactive=False,
            height=280,
            buttons=[],
            elem_id="dataset-picture",
        )
        self.caption = gr.Textbox(
            "", label="Captions, one a line", lines=3, max_lines=12, elem_id="dataset-caption", max_length=_MOST_CAPTION
        )
        self.tokens = gr.HTML("", elem_id="dataset-tokens", padding=False)
        with gr.Row():
            self.previous = gr.Button("← Previous", elem_id="dataset-previous", min_width=80)
            self.next = gr.Button("Next →", elem_id="dataset-next", min_width=80)
        with gr.Row():
            self.save = gr.Button("Save", variant="primary", elem_id="dataset-save", min_width=80)
            self.undo = gr.Button("Undo", elem_id="dataset-undo", min_width=80)
            self.discard = gr.Button("Discard", elem_id="dataset-discard", min_width=80)
        self.told = gr.HTML(status_html(""), elem_id="dataset-told", padding=False)
        self.drafts = gr.HTML("", elem_id="dataset-drafts", padding=False)

    def _wire(self) -> None:
        for component, handler in (
            (self.previous, self.on_previous),
            (self.next, self.on_next),
            (self.save, self.on_save),
            (self.undo, self.on_undo),
            (self.discard, self.on_discard),
        ):
            component.click(telling(handler), self.inputs, self.outputs, **PRIVATE)
        self.gallery.select(telling(self.on_select), self.inputs, self.outputs, **PRIVATE)
        # "input" is not told of what is pasted or deleted
        gr.on(
            [self.caption.change, self.trigger.change],
            telling(self.on_type),
            self.inputs,
            self.tokens,
            trigger_mode="always_last",
            **PRIVATE,
        )

    def on_select(self, visit: Visit | None, name: str, text: str, trigger: str, event: gr.SelectData) -> Updates:
        return self._go(_known(visit), name, text, trigger, _desk(visit).at(event.index))

    def on_previous(self, visit: Visit | None, name: str, text: str, trigger: str) -> Updates:
        return self._go(_known(visit), name, text, trigger, _desk(visit).beside(name, -1))

    def on_next(self, visit: Visit | None, name: str, text: str, trigger: str) -> Updates:
        return self._go(_known(visit), name, text, trigger, _desk(visit).beside(name, 1))

    def on_type(self, visit: Visit | None, name: str, text: str, trigger: str) -> str:
        """Count tokens as it is written."""
        return self._counted(_known(visit).desk, name, text, trigger)

    def marks(self, desk: Desk) -> Updates:
        """The pictures and what is not saved, drawn anew."""
        return {
            self.gallery: gr.update(value=desk.gallery(self.site.work)),
            self.drafts: report.drafts_html(sorted(desk.drafts)),
        }  # fmt: skip

    def on_save(self, visit: Visit | None, name: str, text: str, trigger: str) -> Updates:
        desk = _desk(visit)
        line = desk.save(desk.named(name), text)
        tokens = self._counted(desk, name, text, trigger)
        return self.marks(desk) | {self.told: status_html(line), self.tokens: tokens}

    def on_undo(self, visit: Visit | None, name: str, text: str, trigger: str) -> Updates:
        desk = _desk(visit)
        _known(visit).keep(name, text)
        undone, line = desk.undo()
        shown = self.show(desk, undone, trigger) if undone else {}
        return shown | {self.told: status_html(line)}

    def on_discard(self, visit: Visit | None, name: str, _text: str, trigger: str) -> Updates:
        desk = _desk(visit)
        line = desk.discard(desk.named(name))
        return self.show(desk, name, trigger) | {self.told: status_html(line)}

    def _go(self, visit: Visit, name: str, text: str, trigger: str, to: str) -> Updates:
        """Show another picture; what is not saved of this one is kept."""
        if to == name:  # what was typed meanwhile stays
            return {self.shown: gr.skip()}
        desk = visit.known()
        marked = set(desk.drafts)
        visit.keep(name, text)
        return self.show(desk, to, trigger, redraw=marked != set(desk.drafts))

    def show(self, desk: Desk, name: str, trigger: str, *, redraw: bool = True) -> Updates:
        """A picture and its captions; all pictures are drawn anew only where their marks have changed."""
        try:
            text, line = desk.text(name)
            editable = desk.editor is not None
        except SdLoraError as error:
            text, line, editable = "", str(error), False
        place = desk.names.index(name)
        chosen = gr.update(selected_index=place if place < desk.pictured else None)
        if redraw:
            chosen["value"] = desk.gallery(self.site.work)
        return {
            self.gallery: chosen, self.shown: name, self.picture: _picture(desk, name),
            self.caption: gr.update(value=text, interactive=editable),
            self.tokens: self._counted(desk, name, text, trigger), self.told: status_html(line),
            self.drafts: report.drafts_html(sorted(desk.drafts)),
        }  # fmt: skip

    def nothing(self) -> Updates:
        """No dataset is open."""
        return {
            self.place: gr.update(visible=False), self.gallery: None, self.shown: "", self.picture: None,
            self.caption: "", self.tokens: "", self.told: status_html(""), self.drafts: "",
        }  # fmt: skip

    def _counted(self, desk: Desk | None, name: str, text: str, trigger: str) -> str:
        """The tokens of each line as it will be trained, and whether the text is saved."""
        if desk is None or name not in desk.rows:
            return ""
        word = (trigger or "").strip()
        lines = [line for line in (text or "")[:_MOST_CAPTION].splitlines() if line.strip()][:_MOST_LINES]
        counts = [self.site.service.token_count(triggered(line, word)) for line in lines]
        return report.tokens_html(counts, is_saved=desk.bases.get(name, text) == text)


def _known(visit: Visit | None) -> Visit:
    return visit if visit is not None else Visit()


def _desk(visit: Visit | None) -> Desk:
    return _known(visit).known()


def _picture(desk: Desk, name: str) -> Any:
    """The picture, decoded anew as it is larger than its thumbnail."""
    try:
        return desk.editor.picture(name) if desk.editor is not None else None
    except SdLoraError:
        return None
