"""The Dataset tab: folders of images are created, checked and captioned; by id and image name, never by path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from sd_lora.check.result import Check
from sd_lora.data.pictures.decode import IMAGE_SUFFIXES
from sd_lora.errors import ConfigError, SdLoraError

from ...browser_state import remember, tab_selected
from ...components import choice_with_rescan, html_field, on, side_by_side
from ...messages import status_html
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
    """The tab's components and their events."""

    def __init__(self, site: Site) -> None:
        self.site, self.checker = site, Checker(site)
        self.visit = gr.State(Visit())  # each visitor gets a copy
        side_by_side(self._fields, self._results)
        self.captions = Captions(site, self.visit, self.trigger)
        self._wire()

    def _fields(self) -> None:
        choices = self.site.dataset_choices()
        info = "a folder of images with their captions"
        self.dataset, self.refresh = choice_with_rescan("dataset-choice", "Dataset", choices, info=info)
        self.trigger = gr.Textbox(
            "",
            label="Trigger word",
            elem_id="dataset-trigger",
            max_length=_LONGEST_TRIGGER,
            info="the word that will call the style; captions are checked with it",
        )
        self.check = gr.Button("Check", variant="primary", elem_id="dataset-check")
        with gr.Accordion("Add pictures", open=not choices, elem_id="dataset-adding"):
            self.files = gr.File(
                label="Pictures, and captions as .txt of the same name",
                file_count="multiple",
                height=160,
                file_types=[*sorted(IMAGE_SUFFIXES), *TEXTS],
                elem_id="dataset-upload",
            )
            options: dict[str, Any] = {"max_length": _LONGEST_NAME, "placeholder": "ink-drawings"}
            self.name = gr.Textbox("", label="Name of the new dataset", elem_id="dataset-name", **options)
            with gr.Row():
                self.create = gr.Button("New dataset", elem_id="dataset-create")
                self.add = gr.Button("Add to the chosen dataset", elem_id="dataset-add")
        self.status = html_field("dataset-status", status_html(""))

    def _results(self) -> None:
        names = ("summary", "duplicates", "findings", "buckets")
        self.summary, self.duplicates, self.findings, self.buckets = (html_field(f"dataset-{name}") for name in names)

    def _wire(self) -> None:
        inputs = [self.dataset, *self.captions.inputs]
        results = [self.visit, self.status, self.summary, self.duplicates, self.findings, self.buckets,
                   self.captions.area, *self.captions.outputs]  # fmt: skip
        added = [self.dataset, self.files, self.name, self.status]
        remember("dataset", [self.dataset, self.trigger], {self.dataset: self.site.dataset_choices})
        on(self.refresh.click, self.on_refresh, self.dataset, self.dataset)
        for event in tab_selected():  # the value is left alone, as a reload may still be restoring it
            on(event, self.on_opened, None, self.dataset)
        on(self.dataset.change, self.on_choose, inputs, results)
        on(self.check.click, self.on_check, inputs, results)
        on(self.create.click, self.on_create, [self.name, self.files], added)
        on(self.add.click, self.on_add, [self.dataset, self.files], added)

    def on_opened(self) -> Any:
        return gr.update(choices=self.site.dataset_choices())

    def on_refresh(self, identity: str | None) -> Any:
        choices = self.site.dataset_choices()
        return gr.update(choices=choices, value=identity if identity in dict(choices).values() else None)

    def on_choose(self, identity: str | None, visit: Visit, name: str, text: str, _trigger: str) -> Updates:
        """Another dataset; unsaved text of the previous one is kept as a draft."""
        visit.chosen = identity or ""
        if visit.is_open(visit.chosen):
            return {self.visit: visit}
        visit.keep(name, text)
        visit.desk = None
        if identity:
            self.site.dataset(identity)
        empty = dict.fromkeys([self.duplicates, self.findings, self.buckets], "")
        hint = status_html("press Check to see its pictures and captions" if identity else "")
        return {self.visit: visit, self.summary: hint, **empty, **self.captions.empty()}

    def on_create(self, name: str, files: list[str] | None) -> Iterator[Updates]:
        """A new dataset from uploaded files."""
        folder = self.site.data / folder_name(name, _names_in(self.site.data))
        plan = planned(files)
        if all(path.suffix.lower() in TEXTS for path, _ in plan):
            raise ConfigError("a dataset needs pictures, and only captions were given; choose pictures as well")
        with staged(self.site.data, plan) as staging:
            yield from self._until_error(self._verified(staging))
            make_folder(staging, folder)
        yield self._added(self.site.id_of(folder), f"{len(plan)} files in the new dataset {folder.name}; check it next")

    def on_add(self, identity: str | None, files: list[str] | None) -> Iterator[Updates]:
        """Uploaded files added to a dataset."""
        folder = self._chosen(identity)
        plan = planned(files, _names_in(folder))
        with staged(folder, plan) as staging:
            yield from self._until_error(self._verified(staging))
            add_to_folder(staging, folder)
        yield self._added(identity, f"{len(plan)} files added to {folder.name}; check it to see them")

    def _verified(self, staging: Path) -> Iterator[Updates]:
        for done, total in verified(staging):
            yield self._progress(done, total)

    def _progress(self, done: int, total: int) -> Updates:
        return {self.status: status_html(f"picture {done} of {total}", done / total)}

    def _added(self, identity: str | None, line: str) -> Updates:
        dataset = gr.update(choices=self.site.dataset_choices(), value=identity)
        return {self.dataset: dataset, self.files: None, self.name: "", self.status: status_html(line)}

    def on_check(self, identity: str | None, visit: Visit, name: str, text: str, trigger: str) -> Iterator[Updates]:
        """Check the dataset and show the result."""
        folder = self._chosen(identity)
        visit.keep(name, text)
        visit.chosen = identity = str(identity)
        yield {self.visit: visit, self.status: status_html("loading the base model …", 0)}
        yield from self._until_error(self._checked(visit, identity, folder, trigger))

    def _checked(self, visit: Visit, identity: str, folder: Path, trigger: str) -> Iterator[Updates]:
        for event in self.checker.check(folder, (trigger or "").strip()):
            if not isinstance(event, Check):
                done, total = event
                yield self._progress(*event) if done < total else {self.status: status_html("timing a step …", 1)}
            elif visit.chosen == identity:
                was_open = visit.is_open(identity)
                desk = visit.open(identity, folder, event)
                yield self._results_of(desk) | self._editing(desk, trigger, was_open)
            else:
                yield {self.status: status_html("")}

    def _results_of(self, desk: Desk) -> Updates:
        check, has_more = desk.check, desk.pictured < len(desk.names)
        more = f"; the first {desk.pictured} are shown, use Next to see the others" if has_more else ""
        return {
            self.status: status_html(f"checked{more}"),
            self.summary: report.summary_html(check), self.duplicates: report.duplicates_html(check),
            self.findings: report.findings_html(check), self.buckets: report.buckets_html(check),
            self.captions.area: gr.update(visible=bool(desk.names)),
        }  # fmt: skip

    def _editing(self, desk: Desk, trigger: str, was_open: bool) -> Updates:
        """The first picture; of a dataset that was open the same one, with what has been typed meanwhile."""
        if not desk.names:
            return {}
        return self.captions.marks(desk) if was_open else self.captions.show(desk, desk.names[0], trigger)

    def _until_error(self, updates: Iterator[Updates]) -> Iterator[Updates]:
        """`updates`; an error clears the status."""
        try:
            yield from updates
        except SdLoraError:
            yield {self.status: status_html("")}
            raise

    def _chosen(self, identity: str | None) -> Path:
        if not identity:
            raise ConfigError("no dataset is chosen; choose one from the list, or create one")
        return self.site.dataset(identity)


def _names_in(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []
