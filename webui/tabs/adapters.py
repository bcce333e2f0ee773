"""The Adapters tab: every adapter on this machine, what its file contains, and copies to download."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from sd_lora.adapters.summary import AdapterSummary, local, read_summary
from sd_lora.errors import ConfigError, SdLoraError

from .. import components
from ..adapter_files import CHOICES, converted, copied, picture
from ..browser_state import tab_selected
from ..components import html_field, on
from ..messages import escaped, status_html
from ..site import Site
from .preview import OPEN_TAB, PreviewInputs

#: the id, which identifies the row, is the last
HEADERS = (
    "name", "base", "fits", "rank", "alpha", "steps", "images", "trigger", "strength", "MB", "sha256", "id",
)  # fmt: skip
_WIDTHS: list[str | int] = [296, 110, 80, 64, 68, 68, 78, 110, 94, 64, 122, 58]
_NONE = "no adapters yet: train one, or start the page with the folder that contains them"
_SOME = "select a row to see more of an adapter"
#: seconds for hashes in one listing; the others are computed at the next one, or when an adapter is selected
_HASHING = 2.0
_MOST_FACTS, _MOST_TEXT = 200, 500
#: in the browser: a click on the link of the file that the server has just prepared
_SAVE = """(file) => { if (file) { const link = document.createElement('a'); link.href = file.url;
link.download = file.orig_name || 'adapter.safetensors'; document.body.append(link); link.click(); link.remove(); } }"""


def build(site: Site, preview: PreviewInputs | None = None) -> None:
    """The tab, inside the ``with`` of its gr.Tab. With `preview`, adapters can be sent to those fields."""
    tab = _Tab(site, preview)
    tab.table_of_all()
    with gr.Row(equal_height=False, visible=False) as tab.details:
        with gr.Column(scale=1, min_width=220):
            tab.picture = components.picture("adapters-picture", 260, label="Picture")
        with gr.Column(scale=2, min_width=300):
            tab.facts()
        with gr.Column(scale=1, min_width=220):
            tab.conversion()
    tab.wire()


class _Tab:
    """The tab's components and their events."""

    def __init__(self, site: Site, preview: PreviewInputs | None) -> None:
        self.site, self.preview = site, preview
        #: by path, size and time of change: summaries without metadata, and whether the adapter fits
        self.rows: dict[tuple[str, int, int], AdapterSummary] = {}
        self.fits: dict[tuple[str, int, int], bool] = {}

    # ---- components

    def table_of_all(self) -> None:
        with gr.Row(equal_height=True):
            self.hint = html_field("adapters-hint", status_html(_SOME))
            self.refresh = gr.Button("Rescan", size="sm", scale=0, min_width=110, elem_id="adapters-refresh")
        self.table = gr.Dataframe(
            headers=list(HEADERS),
            datatype="str",
            type="array",
            interactive=False,
            elem_id="adapters-table",
            column_widths=_WIDTHS,
            show_search="filter",
            buttons=[],
            max_height=420,
            max_chars=60,
            label="Adapters",
            show_label=False,
        )
        self.chosen = gr.State("")

    def facts(self) -> None:
        self.description = html_field("adapters-description")
        self.trigger = gr.Textbox(
            label="Trigger phrase",
            interactive=False,
            buttons=["copy"],
            elem_id="adapters-trigger",
            placeholder="none is recorded",
        )
        with gr.Row():
            can_use = self.preview is not None
            self.use = gr.Button("Use in Preview", variant="primary", elem_id="adapters-use", visible=can_use)
            self.download = gr.Button("Download", elem_id="adapters-download")
        self.ready = gr.DownloadButton(visible=False, elem_id="adapters-ready")
        with gr.Accordion("Metadata", open=False):
            self.metadata = gr.JSON(show_label=False, elem_id="adapters-metadata", open=True, max_height=420)

    def conversion(self) -> None:
        types = [(name or "unchanged", name) for name in CHOICES["type"]]
        kinds = [(name or "as the file says", name) for name in CHOICES["kind"]]
        info = "needed only if the file does not say"
        with gr.Accordion("Convert", open=False):
            self.layout = gr.Radio([*CHOICES["layout"]], value="kohya", label="Layout", elem_id="adapters-layout")
            self.dtype = gr.Dropdown(types, value="", label="Type", elem_id="adapters-dtype")
            self.kind = gr.Dropdown(kinds, value="", label="Kind of base model", elem_id="adapters-kind", info=info)
            self.convert = gr.Button("Convert", elem_id="adapters-convert")
            self.result = gr.DownloadButton("Download", visible=False, elem_id="adapters-converted")

    def wire(self) -> None:
        outputs = [self.chosen, self.details, self.description, self.picture, self.trigger, self.metadata, self.result]
        options = [self.chosen, self.layout, self.dtype, self.kind]
        on([self.refresh.click, *tab_selected()], self.on_list, None, [self.table, self.hint])
        on(self.table.select, self.on_select, None, outputs, trigger_mode="always_last")
        ready = on(self.download.click, self.on_download, self.chosen, self.ready)
        on(ready.success, None, self.ready, js=_SAVE)
        on(self.convert.click, self.on_convert, options, self.result, concurrency_limit=1)
        if self.preview is not None:
            field = self.preview.adapter
            used = on(self.use.click, self.on_use, [self.chosen, field], field)
            on(used.success, None, js=OPEN_TAB)

    # ---- events

    def on_list(self) -> tuple[list[list[str]], str]:
        """The rows of all adapters."""
        files = self.site.adapters()
        if len(self.rows) > 4 * len(files) + 100:  # most of them deleted or changed
            self.rows.clear()
            self.fits.clear()
        summaries = {identity: self._summary(path) for identity, path in files.items()}
        kinds = {summary.kind for summary in summaries.values() if self._fits(summary, set()) == "yes"} - {""}
        until = time.monotonic() + _HASHING
        rows = [self._row(identity, summary, kinds, until) for identity, summary in summaries.items()]
        return rows, status_html(_SOME if rows else _NONE)

    def on_select(self, event: gr.SelectData) -> Iterator[tuple[Any, ...]]:
        """The adapter of a row: at once what its header says, then whether it fits."""
        row = event.row_value
        identity = str(row[-1]) if isinstance(row, list) and row else ""
        path = self.site.adapter(identity)
        summary = read_summary(path)
        name = self.site.name_of(path)
        rest = (picture(summary), summary.phrase, _facts(summary), gr.update(visible=False))
        checking = "Checking whether it fits …"
        yield identity, gr.update(visible=True), _description(name, summary, checking), *rest
        why, base = self._misfit(path), self.site.service.base
        fits = f"It cannot be used on {base}: {why}" if why else f"It fits {base}."
        yield identity, gr.update(visible=True), _description(name, summary, fits), *rest

    def on_download(self, identity: str) -> str:
        """A copy of the file, named like the adapter on the page."""
        return str(copied(self.site, self._chosen(identity)))

    def on_convert(self, identity: str, layout: str, dtype: str, kind: str) -> Any:
        """The adapter in another layout and type, as a file to download."""
        out = converted(self.site, self._chosen(identity), layout, dtype, kind)
        label = f"Download {out.name} ({out.stat().st_size / 1e6:.1f} MB)"
        return gr.update(value=str(out), label=label, visible=True)

    def on_use(self, identity: str, chosen: list[str] | None) -> Any:
        """The preview's adapters with this one added; refused if it does not fit the base model."""
        why = self._misfit(self._chosen(identity))
        if why:
            raise ConfigError(f"it cannot be used on {self.site.service.base}: {why}")
        choices = self.site.adapter_choices()
        existing = {one for _, one in choices}
        ids = dict.fromkeys([*(one for one in chosen or () if one in existing), identity])
        return gr.update(choices=choices, value=list(ids))

    # ---- facts

    def _chosen(self, identity: str) -> Path:
        if not identity:
            raise ConfigError("no adapter is selected; select one in the table")
        return self.site.adapter(identity)

    def _summary(self, path: Path) -> AdapterSummary:
        key = _version(path)
        if key not in self.rows:
            self.rows[key] = replace(read_summary(path), metadata={})
        return self.rows[key]

    def _misfit(self, path: Path) -> str:
        """Why it does not fit, without its place on this machine; empty if it fits."""
        key, why = _version(path), self.site.service.misfit(path)
        self.fits[key] = not why
        return local(why, path)

    def _fits(self, summary: AdapterSummary, kinds: set[str]) -> str:
        """Whether it fits, as far as is known: by the check when it was selected, by the name of its base, and by the
        `kinds` of those that fit."""
        checked = self.fits.get(_version(summary.path))
        if summary.problem or checked is False:
            return "no"
        if checked or summary.base == self.site.service.base:
            return "yes"
        return "no" if len(kinds) == 1 and summary.kind and summary.kind not in kinds else "unknown"

    def _row(self, identity: str, summary: AdapterSummary, kinds: set[str], until: float) -> list[str]:
        digest = "…"
        if time.monotonic() < until:
            try:
                digest = self.site.service.sha256(summary.path)[:12]
            except SdLoraError:
                digest = ""
        strength = "" if summary.strength is None else f"{summary.strength:g}"
        return [
            self.site.name_of(summary.path), summary.base or summary.kind, self._fits(summary, kinds), summary.rank,
            summary.alpha, *("" if count is None else str(count) for count in (summary.steps, summary.images)),
            summary.trigger, strength, f"{summary.bytes / 1e6:.1f}", digest, identity,
        ]  # fmt: skip


def _version(path: Path) -> tuple[str, int, int]:
    """The same as long as the file is not changed."""
    try:
        facts = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), facts.st_size, facts.st_mtime_ns


def _description(name: str, summary: AdapterSummary, fits: str) -> str:
    """The lines above an adapter's fields, as HTML."""
    rank = f"rank {summary.rank}" if summary.rank else ""
    facts = " · ".join(filter(None, (summary.base or summary.kind, rank, summary.layout, summary.title)))
    lines = [f"<b>{escaped(name)}</b>", escaped(facts), escaped(fits)]
    return f'<div class="status" role="status">{"<br>".join(line for line in lines if line)}</div>'


def _facts(summary: AdapterSummary) -> dict[str, str]:
    """The metadata, cut to what a page can show."""
    facts = {key[:100]: _cut(value) for key, value in list(summary.metadata.items())[:_MOST_FACTS]}
    hidden = len(summary.metadata) - len(facts)
    return {**facts, **({"…": f"{hidden} more"} if hidden else {})}


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}… ({len(text)} characters)"
