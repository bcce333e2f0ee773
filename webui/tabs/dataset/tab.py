"""The Dataset tab: folders of images made, checked and captioned; by id and image name, never by path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from sd_lora.check.result import Check
from sd_lora.data.pictures.decode import IMAGE_SUFFIXES
from sd_lora.errors import ConfigError, SdLoraError

from ...browser_state import opened, remember
from ...messages import PRIVATE, status_html, telling
from ...site import Site
from . import report
from .captions import Captions, Updates
from .checker import Checker
from .drafts import Desk, Visit
from .upload import TEXTS, add_to_folder, folder_name, make_folder, planned, staged, verified

#: the tab's own look, for `launch(css_paths=…)`
STYLES = Path(__file__).with_name("dataset.css")
_LONGEST_NAME, _LONGEST_TRIGGER = 200, 100


def build(site: Site) -> None:
    """The tab, inside the ``with`` of its gr.Tab."""
    _Tab(site)


class _Tab:
    """The tab's components and what happens with them."""

    def __init__(self, site: Site) -> None:
        self.site, self.checker = site, Checker(site)
        self.visit = gr.State(None)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                self._choosing()
            with gr.Column(scale=3, min_width=300):
                self._results()
        self.captions = Captions(site, self.visit, self.trigger)
        self._wire()

    def _choosing(self) -> None:
        with gr.Row(equal_height=True):
            self.dataset = gr.Dropdown(
                self.choices(),
                value=None,
                label="Dataset",
                elem_id="dataset-choice",
                scale=5,
                info="a folder of images with their captions",
            )
            self.reload = gr.Button("Rescan", elem_id="dataset-reload", scale=0, min_width=90, elem_classes="beside")
        self.trigger = gr.Textbox(
            "",
            label="Trigger word",
            elem_id="dataset-trigger",
            max_length=_LONGEST_TRIGGER,
            info="the word that will call the style; captions are checked with it",
        )
        self.check = gr.Button("Check", variant="primary", elem_id="dataset-check")
        with gr.Accordion("Add pictures", open=not self.choices(), elem_id="dataset-adding"):
            self.files = gr.File(
                label="Pictures, and captions as .txt of the same name",
                file_count="multiple",
                height=160,
                file_types=[*sorted(IMAGE_SUFFIXES), *TEXTS],
                elem_id="dataset-upload",
            )
            self.name = gr.Textbox(
                "",
                label="Name of the new dataset",
                elem_id="dataset-name",
                max_length=_LONGEST_NAME,
                placeholder="ink-drawings",
            )
            with gr.Row():
                self.create = gr.Button("New dataset", elem_id="dataset-create")
                self.add = gr.Button("Add to the chosen one", elem_id="dataset-add")
        self.status = gr.HTML(status_html(""), elem_id="dataset-status", padding=False)

    def _results(self) -> None:
        self.summary = gr.HTML("", elem_id="dataset-summary", padding=False)
        self.duplicates = gr.HTML("", elem_id="dataset-duplicates", padding=False)
        self.found = gr.HTML("", elem_id="dataset-findings", padding=False)
        self.buckets = gr.HTML("", elem_id="dataset-buckets", padding=False)

    def choices(self) -> list[tuple[str, str]]:
        """Datasets by name, with their ids."""
        return [(self.site.name_of(path), identity) for identity, path in self.site.datasets().items()]

    def _wire(self) -> None:
        asked = [self.dataset, *self.captions.inputs]
        results = [self.visit, self.status, self.summary, self.duplicates, self.found, self.buckets,
                   self.captions.place, *self.captions.outputs]  # fmt: skip
        added = [self.dataset, self.files, self.name, self.status]
        remember("dataset", [self.dataset, self.trigger], {self.dataset: self.choices})
        self.reload.click(telling(self.on_reload), self.dataset, self.dataset, **PRIVATE)
        for event in opened():  # what is chosen stays, as a reload may still be filling it in
            event(telling(self.on_opened), None, self.dataset, **PRIVATE)
        self.dataset.change(telling(self.on_choose), asked, results, **PRIVATE)
        self.check.click(telling(self.on_check), asked, results, **PRIVATE)
        self.create.click(telling(self.on_create), [self.name, self.files], added, **PRIVATE)
        self.add.click(telling(self.on_add), [self.dataset, self.files], added, **PRIVATE)

    def on_opened(self) -> Any:
        return gr.update(choices=self.choices())

    def on_reload(self, identity: str | None) -> Any:
        known = self.site.datasets()
        return gr.update(choices=self.choices(), value=identity if identity in known else None)

    def on_choose(self, identity: str | None, visit: Visit | None, name: str, text: str, _trigger: str) -> Updates:
        """Another dataset: what is not saved of the one before is kept."""
        visit = visit if visit is not None else Visit()
        visit.wanted = identity or ""
        if visit.is_open(visit.wanted):
            return {self.visit: visit}
        visit.keep(name, text)
        visit.desk = None
        if identity:
            self.site.dataset(identity)
        empty = dict.fromkeys([self.duplicates, self.found, self.buckets], "")
        hint = status_html("press Check to see its pictures and captions" if identity else "")
        return {self.visit: visit, self.summary: hint, **empty, **self.captions.nothing()}

    def on_create(self, name: str, files: list[str] | None) -> Iterator[Updates]:
        """A new dataset of uploaded files."""
        folder = self.site.data / folder_name(name, _names_in(self.site.data))
        plan = planned(files)
        if all(path.suffix.lower() in TEXTS for path, _ in plan):
            raise ConfigError("a dataset needs pictures, and only captions were given; choose pictures as well")
        with staged(self.site.data, plan) as staging:
            yield from self._cleared(self._verified(staging))
            make_folder(staging, folder)
        yield self._added(self.site.id_of(folder), f"{len(plan)} files in the new dataset {folder.name}; check it next")

    def on_add(self, identity: str | None, files: list[str] | None) -> Iterator[Updates]:
        """Uploaded files added to a dataset."""
        folder = self._chosen(identity)
        plan = planned(files, _names_in(folder))
        with staged(folder, plan) as staging:
            yield from self._cleared(self._verified(staging))
            add_to_folder(staging, folder)
        yield self._added(identity, f"{len(plan)} files added to {self.site.name_of(folder)}; check it to see them")

    def _verified(self, staging: Path) -> Iterator[Updates]:
        for done, total in verified(staging):
            yield {self.status: status_html(f"picture {done} of {total}", done / total)}

    def _added(self, identity: str | None, line: str) -> Updates:
        return {
            self.dataset: gr.update(choices=self.choices(), value=identity), self.files: None, self.name: "",
            self.status: status_html(line),
        }  # fmt: skip

    def on_check(
        self, identity: str | None, visit: Visit | None, name: str, text: str, trigger: str
    ) -> Iterator[Updates]:
        """Check the dataset and show what was found."""
        folder, visit = self._chosen(identity), visit if visit is not None else Visit()
        visit.keep(name, text)
        visit.wanted = identity = str(identity)
        yield {self.visit: visit, self.status: status_html("loading the base model …", 0)}
        yield from self._cleared(self._checked(visit, identity, folder, trigger))

    def _checked(self, visit: Visit, identity: str, folder: Path, trigger: str) -> Iterator[Updates]:
        for event in self.checker.check(folder, (trigger or "").strip()):
            if not isinstance(event, Check):
                done, total = event
                line = f"picture {done} of {total}" if done < total else "timing a step …"
                yield {self.status: status_html(line, done / max(1, total))}
            elif visit.wanted == identity:
                # a picture that is shown already stays, with what was typed meanwhile
                stays = visit.is_open(identity)
                desk = visit.open(identity, folder, event)
                yield self._results_of(desk) | self._editing(desk, trigger, stays)
            else:
                yield {self.status: status_html("")}

    def _results_of(self, desk: Desk) -> Updates:
        check, more = desk.check, desk.pictured < len(desk.names)
        rest = f"; the first {desk.pictured} are shown, Next leads to the others" if more else ""
        return {
            self.status: status_html(f"checked{rest}"),
            self.summary: report.summary_html(check), self.duplicates: report.duplicates_html(check),
            self.found: report.findings_html(check), self.buckets: report.buckets_html(check),
            self.captions.place: gr.update(visible=bool(desk.names)),
        }  # fmt: skip

    def _editing(self, desk: Desk, trigger: str, stays: bool) -> Updates:
        if not desk.names:
            return {}
        return self.captions.marks(desk) if stays else self.captions.show(desk, desk.names[0], trigger)

    def _cleared(self, updates: Iterator[Updates]) -> Iterator[Updates]:
        """`updates`; an error takes the bar away."""
        try:
            yield from updates
        except SdLoraError:
            yield {self.status: status_html("")}
            raise

    def _chosen(self, identity: str | None) -> Path:
        if not identity:
            raise ConfigError("no dataset is chosen; choose one from the list, or make a new one")
        return self.site.dataset(identity)


def _names_in(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []
