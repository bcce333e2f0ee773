"""The pictures of a dataset and the captions of one: saved on leaving, with undo; what cannot be is a draft."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from sd_lora.data.captions import triggered
from sd_lora.data.editing.pictures import remove_picture, turn_picture
from sd_lora.errors import ConfigError, SdLoraError

from ... import components as ui
from ...components import on
from ...messages import count_of, status_html, warn
from ...site import Site
from . import report
from .captioning import draft, taken_back
from .drafts import Desk, Visit

_MOST_CAPTION, _MOST_LINES = 64_000, 256
#: seconds until the gallery is drawn again after a field was left: a click on it must find it as it was
_CALM = 0.4
#: in the browser: leaving the page would lose nothing
_SAVED = "() => { window.sdLoraTyped = false; }"
Updates = dict[Any, Any]


class Captions:
    """The components that show pictures and captions, and their events.

    Every handler gets the picture's name and the text from the browser's fields: answers may cross on their way, so the
    text belongs to that name, whichever picture the server believes to be shown.
    """

    #: judges the open dataset again after a change, and gives the updates that show it
    rejudged: Callable[[Visit, str], Updates]

    def __init__(self, site: Site, visit: gr.State, trigger: gr.Textbox) -> None:
        self.site, self.visit, self.trigger = site, visit, trigger
        with gr.Row(equal_height=False, visible=False, elem_id="dataset-area") as self.area:
            with gr.Column(scale=3, min_width=300):
                options = {"format": "webp", "buttons": [], "show_label": False, "allow_preview": False}
                self.gallery = ui.gallery("dataset-gallery", "Pictures", 4, **options)
            with gr.Column(scale=2, min_width=300):
                self._caption()
        self.inputs = [self.visit, self.name, self.caption, self.trigger]
        self.outputs = [self.gallery, self.name, self.picture, self.caption, self.tokens, self.message, self.drafts]

    def wire(self, dataset: gr.Dropdown, results: list[Any], rejudged: Callable[[Visit, str], Updates]) -> None:
        """Events; `results` are the other components that `rejudged` updates."""
        self.rejudged = rejudged
        outputs = [*self.outputs, self.area, *results]
        for event, handler in (
            (self.previous.click, self.on_previous),
            (self.next.click, self.on_next),
            (self.save.click, self.on_save),
            (self.undo.click, self.on_undo),
            (self.discard.click, self.on_discard),
            (self.remove.click, self.on_remove),
            (self.turn.click, self.on_turn),
            (self.draft.click, self.on_draft),
            (self.gallery.select, self.on_select),
        ):
            done = on(event, handler, self.inputs, outputs)
            if handler == self.on_save:
                on(done.success, None, js=_SAVED)
        left = on(self.caption.blur, self.on_leave, [*self.inputs, dataset], outputs)
        on(left.success, None, js=_SAVED)
        on(self.acts.input, self.on_act, [*self.inputs, self.acts], outputs)
        for button, handler in ((self.add, self.on_add_words), (self.replace, self.on_replace)):
            on(button.click, handler, [*self.inputs, self.words, self.others], outputs)
        # "input" does not fire for text that is pasted or deleted
        changes = [self.caption.change, self.trigger.change]
        on(changes, self.on_type, self.inputs, self.tokens, trigger_mode="always_last")

    def _caption(self) -> None:
        self.name = gr.Textbox("", label="Picture", interactive=False, elem_id="dataset-picture-name")
        self.picture = ui.picture("dataset-picture", 280, label="Picture", show_label=False, format="jpeg")
        with gr.Row():
            self.turn = gr.Button("Turn ↻", size="sm", elem_id="dataset-turn", min_width=80)
            self.remove = gr.Button("Remove picture", size="sm", elem_id="dataset-remove", min_width=80)
        options: dict[str, Any] = {"elem_id": "dataset-caption", "max_length": _MOST_CAPTION}
        info = (
            "what the picture shows, not its style; saved when you leave it; Ctrl+Enter: save, and the next without one"
        )
        self.caption = gr.Textbox("", label="Captions, one per line", info=info, lines=3, max_lines=12, **options)
        self.tokens = ui.html_field("dataset-tokens")
        with gr.Row():
            self.previous = gr.Button("← Previous", elem_id="dataset-previous", min_width=80)
            self.next = gr.Button("Next →", elem_id="dataset-next", min_width=80)
        with gr.Row():
            self.save = gr.Button("Save, next without caption", variant="primary", elem_id="dataset-save", min_width=80)
            self.undo = gr.Button("Undo", elem_id="dataset-undo", min_width=80)
            self.discard = gr.Button("Discard", elem_id="dataset-discard", min_width=80)
        drafting = {"visible": bool(self.site.captioner), "size": "sm", "elem_id": "dataset-draft"}
        self.draft = gr.Button("Draft captions for all that have none", **drafting)
        self.message = ui.html_field("dataset-message", status_html(""))
        self.drafts = ui.html_field("dataset-drafts")
        with gr.Accordion("In all captions", open=False, elem_id="dataset-all"):
            with gr.Row():
                self.words = gr.Textbox("", label="These words", elem_id="dataset-words", max_length=500, min_width=140)
                self.others = gr.Textbox(
                    "", label="Replace by", elem_id="dataset-others", max_length=500, min_width=140
                )
            with gr.Row():
                self.add = gr.Button("Add at the end", size="sm", elem_id="dataset-add-words", min_width=80)
                self.replace = gr.Button("Replace, or remove", size="sm", elem_id="dataset-replace", min_width=80)
        self.acts = ui.unseen_field("dataset-act")  # filled in by page.js

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
        """Save, and show the next picture without a caption, if there is one."""
        desk = visit.open_desk()
        changed = desk.save(desk.existing(name), text)
        updates, desk = self.rejudged(visit, trigger), visit.open_desk()
        line = f"{name} saved" if changed else f"the caption of {name} is unchanged"
        following = desk.uncaptioned(name)
        if following and following != name:
            updates |= self.show(desk, following, trigger)
            line += f"; {following} has no caption yet"
        else:
            updates |= self.marks(desk) | {self.tokens: self._tokens_html(desk, name, text, trigger)}
            line += "; no picture is without a caption" if changed and not following else ""
        return updates | {self.message: status_html(line)}

    def on_leave(self, visit: Visit, name: str, text: str, trigger: str, identity: str | None) -> Iterator[Updates]:
        """The caption field has been left: save it, unless another dataset was chosen since, which has saved it."""
        desk = visit.open_desk()
        if desk.identity != identity or not self.saved(desk, name, text):
            yield {self.name: gr.skip()}
            return
        tokens = self._tokens_html(desk, name, text, trigger)
        yield {self.message: status_html(f"{name} saved"), self.drafts: _drafts_html(desk), self.tokens: tokens}
        time.sleep(_CALM)
        yield self.rejudged(visit, trigger) | self.marks(visit.open_desk())

    def on_undo(self, visit: Visit, name: str, text: str, trigger: str) -> Updates:
        desk = visit.open_desk()
        visit.keep(name, text)
        undone, line = desk.undo()
        updates, desk = self.rejudged(visit, trigger), visit.open_desk()
        shown = undone if undone in desk.rows else name if name in desk.rows else ""
        updates |= self.show(desk, shown, trigger) if shown else {}
        return updates | {self.message: status_html(line)}

    def on_discard(self, visit: Visit, name: str, _text: str, trigger: str) -> Updates:
        desk = visit.open_desk()
        line = desk.discard(desk.existing(name))
        return self.show(desk, name, trigger) | {self.message: status_html(line)}

    def on_remove(self, visit: Visit, name: str, text: str, trigger: str) -> Updates:
        """Remove the picture, which undo brings back, and show the one after it."""
        desk = visit.open_desk()
        following = desk.beside(desk.existing(name), 1)
        self.saved(desk, name, text)
        desk.acts.append((remove_picture(desk.folder, name), name))
        return self._changed(visit, following, trigger, f"{name} removed; Undo brings it back")

    def on_turn(self, visit: Visit, name: str, text: str, trigger: str) -> Updates:
        """Turn the picture by a quarter."""
        desk = visit.open_desk()
        self.saved(desk, desk.existing(name), text)
        desk.acts.append((turn_picture(desk.folder, name), name))
        return self._changed(visit, name, trigger, f"{name} turned")

    def on_draft(self, visit: Visit, name: str, text: str, trigger: str) -> Iterator[Updates]:
        """A captioning model describes the pictures that have no caption."""
        desk = visit.open_desk()
        self.saved(desk, name, text)
        yield {self.message: status_html("loading the captioning model …", 0)}
        for event in draft(desk.folder, self.site.captioner):
            if isinstance(event, tuple):
                done, total = event
                yield {self.message: status_html(f"picture {done} of {total}", done / total)}
                continue
            if event.written:
                desk.acts.append((taken_back(desk.folder, event.written), event.written[0][0]))
            refused = "".join(f"; {name} has none: {why}" for name, why in event.refused[:3])
            line = f"{count_of(len(event.written), 'caption')} drafted; read and correct them{refused}"
            yield self._changed(visit, event.written[0][0] if event.written else name, trigger, line)

    def on_act(self, visit: Visit, name: str, text: str, trigger: str, asked: str) -> Updates:
        """What a button among the findings asks for: to show or to remove a picture."""
        what, _, rest = (asked or "").partition(" ")
        target = visit.open_desk().existing(rest.partition("\n")[0])
        if what == "remove":
            shown = self._go(visit, name, text, trigger, target)
            return shown | self.on_remove(visit, target, visit.open_desk().text(target)[0], trigger)
        return self._go(visit, name, text, trigger, target)

    def on_add_words(self, visit: Visit, name: str, text: str, trigger: str, words: str, _others: str) -> Updates:
        """Add words at the end of every caption."""
        if not (words := (words or "").strip(" ,")):
            raise ConfigError("no words were given to add; write them first")
        return self._all(visit, name, text, trigger, lambda line: f"{line}, {words}" if line else words)

    def on_replace(self, visit: Visit, name: str, text: str, trigger: str, words: str, others: str) -> Updates:
        """Replace words in every caption, or remove them, with the comma that would be left over."""
        if not (words or "").strip():
            raise ConfigError("no words were given to replace; write them first")
        pattern = re.compile(rf"(?<!\w){re.escape(words.strip())}(?!\w)", re.IGNORECASE)

        def changed(line: str) -> str:
            new = pattern.sub(lambda _: (others or "").strip(), line)
            return new if new == line or others else re.sub(r"\s*(,\s*)+", ", ", " ".join(new.split())).strip(", ")

        return self._all(visit, name, text, trigger, changed)

    def _all(self, visit: Visit, name: str, text: str, trigger: str, change: Callable[[str], str]) -> Updates:
        desk = visit.open_desk()
        self.saved(desk, name, text)
        number = desk.change_all(change)
        return self._changed(visit, name, trigger, f"{count_of(number, 'caption')} changed; Undo takes it back")

    def _changed(self, visit: Visit, name: str, trigger: str, line: str) -> Updates:
        """The updates after a change of files: the dataset judged again, with a picture shown."""
        updates, desk = self.rejudged(visit, trigger), visit.open_desk()
        if not desk.names:
            return updates | self.empty() | {self.message: status_html(line)}
        shown = name if name in desk.rows else desk.names[0]
        return updates | self.show(desk, shown, trigger) | {self.message: status_html(line)}

    def saved(self, desk: Desk, name: str, text: str) -> bool:
        """Whether a text was saved; one that cannot be is kept as a draft, and a toast says why."""
        if name not in desk.rows or name not in desk.bases or desk.editor is None or text == desk.bases[name]:
            return False
        try:
            return desk.save(name, text)
        except SdLoraError as error:
            warn(str(error))
            return False

    def _go(self, visit: Visit, name: str, text: str, trigger: str, to: str) -> Updates:
        """Show another picture; the text of this one is saved."""
        desk = visit.open_desk()
        before = bool(desk.drafts)
        if to == name:  # what has been typed meanwhile stays
            return {self.name: gr.skip()}
        updates = self.rejudged(visit, trigger) if self.saved(desk, name, text) else {}
        desk = visit.open_desk()
        return updates | self.show(desk, to, trigger, redraw=bool(updates) or before or bool(desk.drafts))

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
            self.drafts: _drafts_html(desk), self.area: gr.update(visible=True),
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
        counts = [self.site.service.reader.token_count(triggered(line, word)) for line in lines]
        return report.tokens_html(counts, is_saved=desk.bases.get(name, text) == text)


def _drafts_html(desk: Desk) -> str:
    return report.drafts_html(sorted(desk.drafts))


def _picture(desk: Desk, name: str) -> Any:
    """The picture itself, as it is larger than its thumbnail."""
    try:
        return desk.editor.picture(name) if desk.editor is not None else None
    except SdLoraError:
        return None
