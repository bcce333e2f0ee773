"""The strip of what was drawn earlier in the Preview tab: with its recipes, to pin, to draw again and to save."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from sd_lora.errors import ConfigError

from ..cached_files import cached_file
from ..components import SAVE_FILES, gallery, on
from ..site import Site

#: pictures that a strip has, besides those that are pinned
_MOST = 48
_NONE = "choose a picture of the strip first"


@dataclass(frozen=True)
class Drawn:
    """A picture that was drawn: its `file`, which carries its recipe, and what is written below it."""

    file: str
    label: str
    is_pinned: bool = False


class Earlier:
    """The strip and its buttons. What it shows is kept on the server as long as the page is open."""

    def __init__(self, site: Site) -> None:
        self.site = site
        with gr.Accordion("Earlier", open=False, visible=False, elem_id="preview-earlier") as self.frame:
            self.strip = gallery("preview-strip", "Earlier, the newest first; choose one", 6, allow_preview=False)
            with gr.Row():
                self.again = gr.Button("Use its settings", size="sm", elem_id="preview-again", min_width=120)
                self.pin = gr.Button("Pin it", size="sm", elem_id="preview-pin", min_width=120)
                self.save = gr.Button("Save all as .zip", size="sm", elem_id="preview-zip", min_width=120)
        self.drawn, self.chosen = gr.State([]), gr.State("")
        self.ready = gr.File(file_count="multiple", elem_classes="unseen", elem_id="preview-zip-file")

    def wire(self, load: Callable[[bytes], tuple[Any, ...]], fields: Sequence[Any]) -> None:
        """Connect the buttons; `load` gives the updates of `fields` from the content of a picture."""

        def on_again(chosen: str) -> tuple[Any, ...]:
            if not chosen or not Path(chosen).is_file():
                raise ConfigError(_NONE)
            return load(Path(chosen).read_bytes())

        shown = [self.drawn, self.frame, self.strip]
        on(self.strip.select, self.on_select, self.drawn, [self.chosen, self.pin], trigger_mode="always_last")
        on(self.again.click, on_again, self.chosen, fields)
        on(self.pin.click, self.on_pin, [self.drawn, self.chosen], [*shown, self.pin])
        saved = on(self.save.click, self.on_save, self.drawn, self.ready)
        on(saved.success, None, self.ready, js=SAVE_FILES)

    def with_new(self, drawn: Sequence[Drawn], new: Sequence[Drawn]) -> tuple[Any, ...]:
        """The updates after `new` pictures were drawn: pinned ones first, then the newest."""
        files = {one.file for one in new}
        all_of = [*new, *(one for one in drawn if one.file not in files)]
        pinned = {one.file for one in drawn if one.is_pinned}
        return self._shown([replace(one, is_pinned=one.file in pinned) for one in all_of])

    def on_select(self, drawn: Sequence[Drawn], event: gr.SelectData) -> tuple[str, Any]:
        """The file of the picture that was chosen, and what the button would do with it."""
        index = event.index if isinstance(event.index, int) else -1
        if not 0 <= index < len(drawn):
            raise ConfigError(_NONE)
        return drawn[index].file, "Unpin it" if drawn[index].is_pinned else "Pin it"

    def on_pin(self, drawn: Sequence[Drawn], chosen: str) -> tuple[Any, ...]:
        """Pin the chosen picture, or unpin it."""
        if chosen not in [one.file for one in drawn]:
            raise ConfigError(_NONE)
        turned = [replace(one, is_pinned=one.is_pinned != (one.file == chosen)) for one in drawn]
        is_pinned = any(one.is_pinned for one in turned if one.file == chosen)
        return *self._shown(turned), "Unpin it" if is_pinned else "Pin it"

    def on_save(self, drawn: Sequence[Drawn]) -> list[str]:
        """All pictures of the strip as one file."""
        files = [Path(one.file) for one in drawn if Path(one.file).is_file()]
        if not files:
            raise ConfigError("nothing has been drawn yet; draw something first")

        def write(out: Path) -> None:
            with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:  # pictures are compressed already
                for number, file in enumerate(reversed(files), 1):
                    archive.write(file, f"{number:03} {file.name}")

        key = "\n".join(map(str, files)).encode()
        return [str(cached_file(self.site.work, key, "pictures.zip", write))]

    def _shown(self, drawn: Sequence[Drawn]) -> tuple[Any, ...]:
        """State, frame and strip; without pictures whose files are gone."""
        there = [one for one in drawn if Path(one.file).is_file()]
        pinned, rest = ([one for one in there if one.is_pinned is kind] for kind in (True, False))
        kept = [*pinned, *rest[:_MOST]]
        cells = [(one.file, f"pinned · {one.label}" if one.is_pinned else one.label) for one in kept]
        return kept, gr.update(visible=bool(kept)), gr.update(value=cells, selected_index=None)
