"""The Dataset tab: pictures are dropped, checked and captioned; by id and picture name, never by path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from sd_lora.check.result import Check
from sd_lora.errors import ConfigError, SdLoraError

from ...browser_state import remember, tab_selected
from ...components import html_field, on, unseen_field
from ...dataset_notes import keep_trigger, trigger_of
from ...messages import count_of, status_html, warn
from ...site import Site
from . import report
from .captions import Captions, Updates
from .checker import Checker
from .drafts import Desk, Visit
from .intake import Intake, new_name, taken_in
from .upload import (
    TEXTS,
    add_to_folder,
    folder_name,
    make_folder,
    planned,
    remove_leftovers,
    staged,
    verified,
)  # fmt: skip

#: the tab's own look, for `launch(css_paths=…)`
STYLES = Path(__file__).with_name("dataset.css")
_LONGEST_NAME, _LONGEST_TRIGGER = 200, 100
#: in the browser: the name of the folder that the files come from, which page.js has noted
_WITH_FOLDER = "(...given) => [...given.slice(0, -1), window.sdLoraFolder || '']"
_WELCOME = """<div class="welcome"><h2>Teach the base model a style</h2>
<p>Drop some pictures of one style here: eight to forty are good, each with a short caption of what it shows, which can
also be written here. Give the style a trigger word of its own, and press Train. When the run has ended, that word in a
prompt draws anything in the style.</p></div>"""


@dataclass(frozen=True)
class DatasetChoice:
    """What other tabs take from this one: the chosen dataset, its trigger word, and the button that asks to train."""

    dataset: gr.Dropdown
    trigger: gr.Textbox
    train: gr.Button


def build(site: Site) -> DatasetChoice:
    """The tab, inside the ``with`` of its gr.Tab."""
    tab = _Tab(site)
    return DatasetChoice(tab.dataset, tab.trigger, tab.train)


class _Tab:
    """The tab's components and their events."""

    def __init__(self, site: Site) -> None:
        self.site, self.checker = site, Checker(site)
        remove_leftovers(site.data)
        self.visit = gr.State(Visit())  # each visitor gets a copy
        self._fields()
        self.captions = Captions(site, self.visit, self.trigger)
        self.findings, self.duplicates, self.buckets = (
            html_field(f"dataset-{name}") for name in ("findings", "duplicates", "buckets")
        )
        self.results = [self.summary, self.findings, self.duplicates, self.buckets]
        self.captions.wire(self.dataset, [self.visit, *self.results], self.rejudged)
        self._wire()

    def _fields(self) -> None:
        choices = self.site.dataset_choices()
        with gr.Column(visible=not choices, elem_id="dataset-welcome") as self.welcome:
            gr.HTML(_WELCOME, padding=False)
            shown = self.site.demo is not None
            self.demo = gr.Button("Try it with twelve woodcuts", elem_id="dataset-demo", visible=shown)
        with gr.Row(equal_height=True):
            self.dataset = gr.Dropdown(choices, value=None, label="Dataset", elem_id="dataset-choice", min_width=200)
            self.trigger = gr.Textbox(
                "",
                label="Trigger word",
                elem_id="dataset-trigger",
                max_length=_LONGEST_TRIGGER,
                placeholder="my-ink",
                min_width=200,
            )
            self.train = gr.Button(
                "Train on it", variant="primary", elem_id="dataset-train", elem_classes="beside", min_width=150, scale=0
            )
            self.check = gr.Button(
                "Check again", elem_id="dataset-check", elem_classes="beside", min_width=150, scale=0
            )
        with gr.Accordion("New dataset", open=not choices, elem_id="dataset-adding") as self.adding:
            # without `file_types`, by which Gradio would leave files out and not say so
            several: dict[str, Any] = {"file_count": "multiple"}
            label = "Drop pictures, a folder or a .zip"
            self.files = gr.File(label=label, height=140, elem_id="dataset-upload", **several)
            self.folder = gr.UploadButton(
                "Choose a folder", size="sm", file_count="directory", elem_id="dataset-folder"
            )
        with gr.Accordion("Add pictures, or rename", open=False, visible=False, elem_id="dataset-more") as self.more:
            self.add = gr.UploadButton("Add pictures to this dataset", size="sm", elem_id="dataset-add", **several)
            with gr.Row(equal_height=True):
                options: dict[str, Any] = {"max_length": _LONGEST_NAME, "elem_id": "dataset-name"}
                self.name = gr.Textbox("", label="Name of the dataset", **options)
                self.rename = gr.Button("Rename", elem_id="dataset-rename", elem_classes="beside", scale=0)
        self.status, self.summary = html_field("dataset-status", status_html("")), html_field("dataset-summary")
        self.hint = unseen_field("dataset-hint")  # the folder's name, given by _WITH_FOLDER

    def _wire(self) -> None:
        inputs = [self.dataset, *self.captions.inputs]
        shown = [self.visit, self.status, self.trigger, self.welcome, self.adding, self.more, self.name, *self.results,
                 self.captions.area, *self.captions.outputs]  # fmt: skip
        made = [self.dataset, self.files, self.folder, self.status]
        remember("dataset", [self.dataset], {self.dataset: self.site.dataset_choices})
        on(self.dataset.focus, self.on_refresh, None, self.dataset)
        for event in tab_selected():  # the value is left alone, a reload may be restoring it
            on(event, self.on_opened, self.dataset, [self.dataset, self.trigger])
        on(self.dataset.change, self.on_choose, inputs, shown)
        on(self.check.click, self.on_check, inputs, shown)
        on([self.trigger.blur, self.trigger.submit], self.on_trigger, inputs, shown)
        on(self.demo.click, self.on_demo, None, made)
        for field in (self.files, self.folder):
            on(field.upload, self.on_create, [field, self.hint], made, js=_WITH_FOLDER)
        added = on(
            self.add.upload, self.on_add, [self.dataset, self.add, self.hint], [self.status, self.add], js=_WITH_FOLDER
        )
        on(added.success, self.on_changed, inputs, shown)
        renamed = [self.dataset, self.visit, self.status]
        on([self.rename.click, self.name.submit], self.on_rename, [self.name, *inputs], renamed)

    def on_refresh(self) -> Any:
        return gr.update(choices=self.site.dataset_choices())

    def on_opened(self, identity: str | None) -> tuple[Any, Any]:
        """Fresh choices, and the trigger word that is kept with the dataset: the Train tab may have changed it."""
        folder = self.site.datasets().get(identity or "")
        return self.on_refresh(), (trigger_of(folder) if folder else "") or gr.skip()

    def on_choose(self, identity: str | None, visit: Visit, name: str, text: str, _trigger: str) -> Iterator[Updates]:
        """Another dataset, which is checked; the text of the previous one is saved."""
        visit.chosen = identity or ""
        if visit.is_open(visit.chosen):
            yield {self.visit: visit}
            return
        self._leave(visit, name, text)
        visit.desk = None
        empty = {self.visit: visit, **dict.fromkeys(self.results, ""), **self.captions.empty()}
        if not identity:
            areas = {self.more: gr.update(visible=False), self.welcome: gr.update(visible=not self.site.datasets())}
            yield empty | areas | {self.status: status_html("")}
            return
        folder = self.site.dataset(identity)
        trigger = trigger_of(folder)
        fields = {self.trigger: trigger, self.name: folder.name, self.welcome: gr.update(visible=False)}
        areas = {self.more: gr.update(visible=True), self.adding: gr.update(open=False)}
        yield empty | fields | areas | {self.status: status_html("looking at it …", 0)}
        yield from self._until_error(self._checked(visit, identity, folder, trigger))

    def on_create(self, files: list[str] | None, hint: str) -> Iterator[Updates]:
        """A new dataset from what was dropped; the choice of it shows it."""
        with taken_in(files, hint, self.site.work) as intake:
            plan = planned(intake.files)
            if all(path.suffix.lower() in TEXTS for path, _ in plan):
                raise ConfigError("a dataset needs pictures, and only captions were given; choose pictures as well")
            with staged(self.site.data, plan) as staging:
                yield from self._until_error(self._verified(staging))
                folder = self.site.data / new_name(files, hint, _names_in(self.site.data))
                make_folder(staging, folder)
        _say_left_out(intake)
        line = f"{count_of(len(plan), 'file')} in the new dataset {folder.name}{intake.note}"
        yield self._made(folder, line)

    def on_demo(self) -> Iterator[Updates]:
        """The demo's pictures as a dataset, with their trigger word; chosen if they are there already."""
        if self.site.demo is None:
            raise ConfigError("the woodcuts are for the built-in base model; drop pictures of your own")
        folder = self.site.data / "woodcuts"
        if not folder.exists():
            with staged(self.site.data, []) as staging:
                trigger = self.site.demo(staging / "woodcuts")
                keep_trigger(staging / "woodcuts", trigger)
                make_folder(staging / "woodcuts", folder)
        yield self._made(folder, "twelve woodcuts, with captions and a trigger word")

    def on_add(self, identity: str | None, files: list[str] | None, hint: str) -> Iterator[Updates]:
        """Pictures added to the dataset."""
        folder = self._chosen(identity)
        with taken_in(files, hint, self.site.work) as intake:
            plan = planned(intake.files, _names_in(folder))
            with staged(folder, plan) as staging:
                yield from self._until_error(self._verified(staging))
                add_to_folder(staging, folder)
        _say_left_out(intake)
        line = f"{count_of(len(plan), 'file')} added to {folder.name}{intake.note}"
        yield {self.status: status_html(line), self.add: None}

    def on_rename(
        self, wanted: str, identity: str | None, visit: Visit, name: str, text: str, _trigger: str
    ) -> Updates:
        """Another name for the dataset, if no run needs the old one."""
        folder = self._chosen(identity)
        if wanted.strip() == folder.name:
            return {self.status: status_html(f"the dataset is called {folder.name} already")}
        target = self.site.data / folder_name(wanted, _names_in(self.site.data))
        if users := self.site.unfinished_runs_on(folder):
            raise ConfigError(
                f"the run {users[0]} is not finished and needs the dataset's name; finish or end it first"
            )
        self._leave(visit, name, text)
        make_folder(folder, target)
        dataset = gr.update(choices=self.site.dataset_choices(), value=self.site.id_of(target))
        return {self.dataset: dataset, self.visit: visit, self.status: status_html(f"it is now called {target.name}")}

    def _leave(self, visit: Visit, name: str, text: str) -> None:
        """Save the text of the dataset that is left, or keep it as a draft."""
        if visit.desk is not None:
            self.captions.saved(visit.desk, name, text)
            visit.keep(name, text)

    def _verified(self, staging: Path) -> Iterator[Updates]:
        for done, total in verified(staging):
            yield self._progress(done, total)

    def _progress(self, done: int, total: int) -> Updates:
        return {self.status: status_html(f"picture {done} of {total}", done / total)}

    def _made(self, folder: Path, line: str) -> Updates:
        dataset = gr.update(choices=self.site.dataset_choices(), value=self.site.id_of(folder))
        return {self.dataset: dataset, self.files: None, self.folder: None, self.status: status_html(line)}

    def on_trigger(self, identity: str | None, visit: Visit, name: str, text: str, trigger: str) -> Iterator[Updates]:
        """The trigger word is kept with the dataset, which is judged with it."""
        desk = visit.desk
        if desk is None or desk.identity != identity or desk.trigger == (trigger or "").strip():
            yield {self.visit: visit}
            return
        self.captions.saved(desk, name, text)
        updates = self.rejudged(visit, trigger) | self.captions.marks(visit.open_desk())
        is_kept = keep_trigger(desk.folder, trigger)
        line = "the trigger word is kept with the dataset" if is_kept else "the trigger word cannot be kept: read-only"
        yield updates | {self.status: status_html(line)}

    def on_changed(self, identity: str | None, visit: Visit, name: str, text: str, trigger: str) -> Iterator[Updates]:
        """Pictures were added to the open dataset."""
        yield from self._checked_again(identity, visit, name, text, trigger)

    def on_check(self, identity: str | None, visit: Visit, name: str, text: str, trigger: str) -> Iterator[Updates]:
        """Check the dataset once more, and time a step."""
        yield from self._checked_again(identity, visit, name, text, trigger, timed=True)

    def _checked_again(
        self, identity: str | None, visit: Visit, name: str, text: str, trigger: str, timed: bool = False
    ) -> Iterator[Updates]:
        folder = self._chosen(identity)
        self._leave(visit, name, text)
        visit.chosen = identity = str(identity)
        yield {self.visit: visit, self.status: status_html("looking at it …", 0)}
        yield from self._until_error(self._checked(visit, identity, folder, trigger, timed=timed))

    def _checked(
        self, visit: Visit, identity: str, folder: Path, trigger: str, *, timed: bool = False
    ) -> Iterator[Updates]:
        word = (trigger or "").strip()
        for event in self.checker.check(folder, word, timed=timed):
            if visit.chosen != identity:
                yield {self.status: status_html("")}
                return
            if not isinstance(event, Check):
                yield self._progress(*event)
                continue
            was_open = visit.is_open(identity)
            desk = visit.open(identity, folder, event, word)
            yield self._results_of(desk) | self._status_of(desk) | self._editing(desk, trigger, was_open)

    def rejudged(self, visit: Visit, trigger: str) -> Updates:
        """The open dataset judged again after a change; only pictures that changed are decoded."""
        desk, word = visit.open_desk(), (trigger or "").strip()
        check = self.checker.quick(desk.folder, word)
        return {self.visit: visit} | self._results_of(visit.open(desk.identity, desk.folder, check, word))

    def _results_of(self, desk: Desk) -> Updates:
        check = desk.check
        return {
            self.summary: report.summary_html(check),
            self.duplicates: report.duplicates_html(check), self.findings: report.findings_html(check),
            self.buckets: report.buckets_html(check),
        }  # fmt: skip

    def _status_of(self, desk: Desk) -> Updates:
        more = f"; the first {desk.pictured} are shown, use Next to see the others"
        line = f"{count_of(len(desk.names), 'picture')}{more if desk.pictured < len(desk.names) else ''}"
        return {self.status: status_html(line), self.captions.area: gr.update(visible=bool(desk.names))}

    def _editing(self, desk: Desk, trigger: str, was_open: bool) -> Updates:
        """The first picture without a caption, or the first; of a dataset that was open the same one, with what has
        been typed meanwhile."""
        if not desk.names:
            return {}
        if was_open:
            return self.captions.marks(desk)
        return self.captions.show(desk, desk.uncaptioned() or desk.names[0], trigger)

    def _until_error(self, updates: Iterator[Updates]) -> Iterator[Updates]:
        """`updates`; an error clears the status."""
        try:
            yield from updates
        except SdLoraError:
            yield {self.status: status_html("")}
            raise

    def _chosen(self, identity: str | None) -> Path:
        if not identity:
            raise ConfigError("no dataset is chosen; choose one from the list, or drop pictures to make one")
        return self.site.dataset(identity)


def _say_left_out(intake: Intake) -> None:
    """A toast, as the status is soon that of the check."""
    if intake.left_out:
        warn(intake.note.removeprefix("; "))


def _names_in(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []
