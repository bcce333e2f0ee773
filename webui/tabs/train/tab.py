"""The Train tab: a form of the config, a check of the dataset, and runs that continue without the page."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from sd_lora.check.result import Check
from sd_lora.config.help import setting_help
from sd_lora.config.presets import preset_names
from sd_lora.config.schema import RunConfig
from sd_lora.errors import SdLoraError
from sd_lora.runs.control import start_run

from ...browser_state import page_of, remember, tab_selected
from ...checks import check_folder, check_settings
from ...components import choice_with_rescan, html_field, on, side_by_side
from ...site import Site
from ..dataset.report import check_html
from ..preview import PreviewInputs
from . import form
from .run import MOST_RUNS, RunView, hidden_if_empty
from .view import message_html

#: the tab's own look, for `launch(css_paths=…)`
STYLES = Path(__file__).with_name("train.css")
#: seconds for which a check is still valid when a run is started
_FRESH = 300.0
_TITLES = {"lora": "LoRA"}


def build(site: Site, preview: PreviewInputs | None = None) -> None:
    """The tab, inside the ``with`` of its gr.Tab. With `preview`, a result can be sent to those fields."""
    tab = _Tab(site, preview)
    side_by_side(tab.lay_out_form, tab.results)
    tab.wire()


class _Tab:
    """The form's components and their events."""

    view: RunView

    def __init__(self, site: Site, preview: PreviewInputs | None) -> None:
        self.site, self.preview = site, preview
        self.settings = form.settings()
        self.config = form.preset_config(site, "")
        self.fields: dict[tuple[str, str], Any] = {}
        #: lists of what is on this machine, with their choices
        self.lists: dict[Any, Any] = {}
        self.checks: dict[str, tuple[float, Check]] = {}
        self.checking = threading.Lock()

    def results(self) -> None:
        self.view = RunView(self.site, self.preview)

    def lay_out_form(self) -> None:
        """What every run needs, the buttons with their answers, then every other setting by section."""
        self.dataset, self.refresh = choice_with_rescan(
            "train-dataset", "Dataset", self.site.dataset_choices(), info=f"a folder of images in {self.site.data}"
        )
        with gr.Row(equal_height=True):
            options: dict[str, Any] = {"max_length": 200, "min_width": 150, "info": "the folder that the run creates"}
            self.name = gr.Textbox("", label="Run name", elem_id="train-name", **options)
            presets, info = [("default", ""), *preset_names()], "fills the form; what you changed is kept"
            self.preset = gr.Dropdown(
                presets, value="", label="Preset", elem_id="train-preset", min_width=150, info=info
            )
        self.in_pairs([next(s for s in self.settings if s.place == place) for place in form.ESSENTIALS])
        self.filled_with = gr.Textbox("", visible=False)  # the preset that the form was filled with
        self.answers()
        gr.Markdown("All settings", elem_id="train-all", padding=False)
        for section in (item.name for item in fields(RunConfig)):
            title = _TITLES.get(section, section.capitalize())
            with gr.Accordion(title, open=False, elem_id=f"train-section-{section}"):
                gr.Markdown(setting_help().get(section, ""))
                if section == "model":
                    self.base_model()
                self.in_pairs([s for s in self.settings if s.section == section and s.place not in form.ESSENTIALS])

    def in_pairs(self, settings: Sequence[form.Setting]) -> None:
        """The fields of `settings`, two in a row."""
        for pair in (settings[i : i + 2] for i in range(0, len(settings), 2)):
            with gr.Row(equal_height=True):
                for setting in pair:
                    self.fields[setting.place] = form.field_of(setting, self.site, self.config)

    def base_model(self) -> None:
        """The settings that the page was opened with and that cannot be changed."""
        with gr.Row(equal_height=True):
            for key in ("base", "revision", "config", "vae"):
                info = setting_help().get(f"model.{key}") or "the base model that this page was opened on"
                options: dict[str, Any] = {"elem_id": f"train-model-{key}", "min_width": 150, "interactive": False}
                label = "VAE" if key == "vae" else key.capitalize()
                gr.Textbox(getattr(self.config.model, key), label=label, info=info, **options)

    def answers(self) -> None:
        """The buttons, with their message above them, as text below them would be out of sight."""
        self.message = html_field("train-message", visible=False)
        with gr.Row():
            self.check = gr.Button("Check", elem_id="train-check", min_width=100)
            self.start = gr.Button("Start", variant="primary", elem_id="train-start", min_width=100)
        self.findings = html_field("train-findings", visible=False)

    def wire(self) -> None:
        """Events."""
        values = [self.fields[setting.place] for setting in self.settings]
        by_id = [setting for setting in self.settings if setting.by_id]
        self.lists = {self.fields[s.place]: partial(form.choices_of, s, self.site) for s in by_id}
        self.lists = {self.dataset: self.site.dataset_choices, **self.lists}
        answers, inputs = [self.message, self.findings], [self.dataset, self.preset, *values]
        one_at_a_time = {"concurrency_id": "train-check", "concurrency_limit": 1}
        filled = [self.filled_with, *values]
        self.view.wire()
        on([self.refresh.click, *tab_selected()], self.on_refresh, None, [self.view.run, *self.lists])
        on(self.preset.input, self.on_preset, [self.preset, *filled], filled)  # by hand, not by a reload
        on(self.check.click, self.on_check, inputs, answers, **one_at_a_time)
        on(self.start.click, self.on_start, [self.name, *inputs], [*answers, self.view.run], **one_at_a_time)
        on(page_of().load, self.on_return, None, self.view.run)
        remember("train", [self.dataset, self.name, self.preset, *filled], self.lists)

    def on_refresh(self) -> list[Any]:
        """Fresh choices of the runs and of all other lists."""
        return [gr.update(choices=choices()) for choices in (self.view.runs, *self.lists.values())]

    def on_return(self) -> Any:
        """A page that is opened or reloaded shows the newest active run, or else the newest run."""
        runs = self.view.runs()
        active = [identity for label, identity in runs if label.endswith((" · running", " · starting"))]
        return gr.update(choices=runs, value=[*active, runs[0][1]][0]) if runs else gr.update(choices=[])

    def on_preset(self, preset: str, filled_with: str, *values: Any) -> list[Any]:
        return [preset, *form.switched(self.site, filled_with, preset, values)]

    def on_check(self, dataset: str, preset: str, *values: Any) -> Iterator[tuple[Any, Any]]:
        """What is wrong with the dataset, and the plan of a run on it."""
        try:
            config = form.config_of(self.site, preset, dataset, values)
            yield _message("checking the images, and timing a step …"), hidden_if_empty("")
            yield hidden_if_empty(""), hidden_if_empty(check_html(self.checked(config, again=True)))
        except SdLoraError as error:
            yield _message(str(error), is_error=True), hidden_if_empty("")

    def on_start(self, name: str, dataset: str, preset: str, *values: Any) -> Iterator[tuple[Any, Any, Any]]:
        """Start a run, unless the check found errors."""
        try:
            config = form.config_of(self.site, preset, dataset, values)
            folder = self.site.runs / form.run_name(self.site, name)
            yield _message("checking the images before the run starts …"), hidden_if_empty(""), gr.skip()
            check = self.checked(config, again=False)
            findings = hidden_if_empty(check_html(check))
            if _is_refused(check):
                text = "not started: fix the errors below, then start again"
                yield _message(text, is_error=True), findings, gr.skip()
                return
            start_run(config, folder, most=MOST_RUNS)
        except SdLoraError as error:
            yield _message(str(error), is_error=True), gr.skip(), gr.skip()
            return
        message = _message(f"{folder.name} has started; it continues if this page is closed")
        yield message, findings, gr.update(choices=self.view.runs(), value=self.site.id_of(folder))

    def checked(self, config: RunConfig, *, again: bool) -> Check:
        """The check of a config, or the recent one if it is not to be made `again`; checks run one at a time, as each
        opens the base model."""
        check_settings(config)
        key = config.to_toml()
        with self.checking:
            made, check = self.checks.get(key, (0.0, None))
            is_old = time.monotonic() - made > _FRESH
            if again or is_old or check is None or _is_refused(check):
                check = check_folder(config)
                self.checks = {key: (time.monotonic(), check)}
            return check


def _is_refused(check: Check) -> bool:
    return check.has_errors or check.plan is None


def _message(text: str, *, is_error: bool = False) -> Any:
    return hidden_if_empty(message_html(text, is_error=is_error))
