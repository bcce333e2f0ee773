"""The LoRAs tab: every adapter on this machine as a card, what its file contains, and the way to other programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from sd_lora.adapters.summary import AdapterSummary, local, read_summary
from sd_lora.errors import ConfigError, SdLoraError

from .. import cards, components
from ..adapter_files import CHOICES, bundle, converted, line_to_type, picture
from ..browser_state import page_of, tab_selected
from ..cached_files import picture_file
from ..choices import newest_first
from ..components import html_field, on
from ..installing import Program, install
from ..messages import escaped, status_html
from ..site import Site
from .preview import OPEN_TAB, PreviewInputs

_NONE = "no LoRAs yet: train one, or start the page with the folder that contains them (--adapters)"
_MOST_FACTS, _MOST_TEXT = 200, 500


def build(site: Site, preview: PreviewInputs | None = None) -> None:
    """The tab, inside the ``with`` of its gr.Tab. With `preview`, adapters can be sent to those fields."""
    tab = _Tab(site, preview)
    components.side_by_side(tab.list_of_all, tab.one)
    tab.wire()


class _Tab:
    """The tab's components and their events."""

    def __init__(self, site: Site, preview: PreviewInputs | None) -> None:
        self.site, self.preview = site, preview

    # ---- components

    def list_of_all(self) -> None:
        with gr.Row(equal_height=True):
            gr.Textbox(label="Find", elem_id="adapters-find", placeholder="name, base or trigger word")
            self.every = gr.Checkbox(False, label="Also checkpoints of runs", elem_id="adapters-every", min_width=150)
        self.hint = html_field("adapters-hint")
        self.cards = gr.HTML("", elem_id="adapters-cards", padding=False, js_on_load=cards.ON_LOAD)
        self.chosen = gr.State("")

    def one(self) -> None:
        """The adapter whose card is chosen."""
        with gr.Column(visible=False, elem_id="adapters-one") as self.details:
            with gr.Row(equal_height=False):
                self.picture = components.picture("adapters-picture", 220, label="Picture", min_width=200)
                with gr.Column(scale=2, min_width=260):
                    self.description = html_field("adapters-description")
                    can_use = self.preview is not None
                    self.use = gr.Button("Use in Preview", variant="primary", elem_id="adapters-use", visible=can_use)
            self.to_other_programs()
            with gr.Accordion("Details", open=False, elem_id="adapters-details"):
                self.hashes = html_field("adapters-hashes")
                self.metadata = gr.JSON(show_label=False, elem_id="adapters-metadata", open=True, max_height=420)
            self.conversion()

    def to_other_programs(self) -> None:
        """Files for other programs, and what calls the style there."""
        self.line = gr.Textbox(
            label="To type in A1111 or Forge, after the prompt",
            interactive=False,
            buttons=["copy"],
            elem_id="adapters-line",
            info="in ComfyUI, load the file with LoraLoader and type the words before the tag",
        )
        with gr.Row():
            self.download = gr.Button("Download", elem_id="adapters-download", min_width=120)
            self.copies = [
                (gr.Button(f"Copy to {program.name}", elem_id=f"adapters-copy-{number}", min_width=120), program)
                for number, program in enumerate(self.site.programs)
            ]
        self.copied = html_field("adapters-copied")
        self.ready = gr.File(file_count="multiple", elem_classes="unseen", elem_id="adapters-ready")

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
        shown = [self.details, self.description, self.picture, self.line, self.hashes, self.metadata, self.result,
                 self.copied]  # fmt: skip
        options, listed = [self.chosen, self.layout, self.dtype, self.kind], [self.cards, self.hint, self.chosen]
        opened = tab_selected() or [page_of().load]
        fresh = on([*opened, self.every.change], self.on_list, [self.chosen, self.every], listed)
        on(fresh.success, self.on_show, self.chosen, shown, trigger_mode="always_last")
        picked = on(self.cards.click, self.on_pick, None, self.chosen, trigger_mode="always_last")
        on(picked.success, self.on_show, self.chosen, shown, trigger_mode="always_last")
        ready = on(self.download.click, self.on_download, self.chosen, self.ready)
        on(ready.success, None, self.ready, js=components.SAVE_FILES)
        for button, program in self.copies:
            on(button.click, self.copier(program), self.chosen, self.copied, concurrency_limit=1)
        on(self.convert.click, self.on_convert, options, self.result, concurrency_limit=1)
        if self.preview is not None:
            field = self.preview.adapter
            used = on(self.use.click, self.on_use, [self.chosen, field], field)
            on(used.success, None, js=OPEN_TAB)

    # ---- events

    def on_list(self, chosen: str, every: bool) -> tuple[str, str, str]:
        """The cards of all adapters, the newest first; checkpoints of runs that have a final one only with `every`."""
        files = self.site.adapters()
        rows = [(one, self.site.name_of(path), read_summary(path)) for one, path in newest_first(files)
                if every or not _is_superseded(path)]  # fmt: skip
        if rows and chosen not in [identity for identity, *_ in rows]:
            chosen = rows[0][0]
        return cards.cards_html(rows, chosen), "" if rows else status_html(_NONE), chosen if rows else ""

    def on_pick(self, event: gr.EventData) -> str:
        """The id of a card that was clicked."""
        identity = getattr(event, "id", None)
        return self.site.id_of(self._chosen(identity if isinstance(identity, str) else ""))

    def on_show(self, identity: str) -> Iterator[tuple[Any, ...]]:
        """The adapter of a card: at once what its header says, then whether it fits."""
        if not identity:
            yield gr.update(visible=False), *(gr.skip(),) * 7
            return
        path = self._chosen(identity)
        summary, name = read_summary(path), self.site.name_of(path)
        image = picture(summary)  # as a file that is there once: Gradio writes one anew while browsers read it
        file = picture_file(self.site.work, image, {}) if image else None
        rest = (file, line_to_type(self.site, path), self._hashes(path, summary), _facts(summary),
                gr.update(visible=False), "")  # fmt: skip
        yield gr.update(visible=True), _description(name, summary, "Checking whether it fits …"), *rest
        why, base = local(self.site.service.misfit(path), path), self.site.service.base
        fits = f"It cannot be used on {base}: {why}" if why else f"It fits {base}."
        yield gr.update(visible=True), _description(name, summary, fits), *rest

    def on_download(self, identity: str) -> list[str]:
        """The file, its facts and its picture, named like the adapter on the page."""
        return [str(file) for file in bundle(self.site, self._chosen(identity))]

    def copier(self, program: Program) -> Any:
        """The event that copies the same files to `program`."""

        def on_copy(identity: str) -> str:
            return status_html(install(bundle(self.site, self._chosen(identity)), program))

        return on_copy

    def on_convert(self, identity: str, layout: str, dtype: str, kind: str) -> Any:
        """The adapter in another layout and type, as a file to download."""
        out = converted(self.site, self._chosen(identity), layout, dtype, kind)
        label = f"Download {out.name} ({out.stat().st_size / 1e6:.1f} MB)"
        return gr.update(value=str(out), label=label, visible=True)

    def on_use(self, identity: str, chosen: list[str] | None) -> Any:
        """The preview's adapters with this one added; refused if it does not fit the base model."""
        path = self._chosen(identity)
        if why := local(self.site.service.misfit(path), path):
            raise ConfigError(f"it cannot be used on {self.site.service.base}: {why}")
        choices = self.site.adapter_choices()
        existing = {one for _, one in choices}
        ids = dict.fromkeys([*(one for one in chosen or () if one in existing), identity])
        return gr.update(choices=choices, value=list(ids))

    # ---- facts

    def _chosen(self, identity: str) -> Path:
        if not identity:
            raise ConfigError("no LoRA is chosen; choose one of the cards")
        return self.site.adapter(identity)

    def _hashes(self, path: Path, summary: AdapterSummary) -> str:
        """The facts that tell files apart, as HTML."""
        try:
            digest = self.site.service.sha256(path)
        except SdLoraError as error:
            digest = str(error)
        facts = {
            "file": path.name, "size": f"{summary.bytes / 1e6:.1f} MB", "alpha": summary.alpha, "steps": summary.steps,
            "images": summary.images, "sha256": digest,
            "A1111's hash": summary.metadata.get("sshs_model_hash", "")[:12],
        }  # fmt: skip
        rows = [f"<dt>{escaped(key)}</dt><dd>{escaped(value)}</dd>" for key, value in facts.items() if value]
        return f'<dl class="facts-list">{"".join(rows)}</dl>'


def _is_superseded(path: Path) -> bool:
    """Whether it is a checkpoint of a run that has ended with an adapter."""
    run = path.parent.parent
    return (
        path.parent.name == "adapters" and (run / "adapter.safetensors").is_file() and (run / "config.toml").is_file()
    )


def _description(name: str, summary: AdapterSummary, fits: str) -> str:
    """The lines above an adapter's fields, as HTML."""
    rank = f"rank {summary.rank}" if summary.rank else ""
    trigger = f"trigger word {summary.trigger}" if summary.trigger else "no trigger word"
    strength = "" if summary.strength is None else f"strength {summary.strength:g}"
    known = (summary.base or summary.kind, rank, summary.layout, summary.title, trigger, strength)
    facts = " · ".join(filter(None, known))
    lines = [f"<b>{escaped(name)}</b>", escaped(facts), escaped(fits)]
    return f'<div class="status" role="status">{"<br>".join(line for line in lines if line)}</div>'


def _facts(summary: AdapterSummary) -> dict[str, str]:
    """The metadata, cut to what a page can show."""
    facts = {key[:100]: _cut(value) for key, value in list(summary.metadata.items())[:_MOST_FACTS]}
    hidden = len(summary.metadata) - len(facts)
    return {**facts, **({"…": f"{hidden} more"} if hidden else {})}


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}… ({len(text)} characters)"
