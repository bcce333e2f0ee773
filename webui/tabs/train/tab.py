"""The Train tab: a form of the config, a check of the dataset, and runs that go on without the page."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from typing import Any

import gradio as gr

from sd_lora import check_folder, check_settings
from sd_lora.check.result import Check
from sd_lora.config.help import setting_help
from sd_lora.config.presets import preset_names
from sd_lora.config.schema import RunConfig
from sd_lora.errors import SdLoraError
from sd_lora.runs.control import start_run

from ...browser_state import opened, page_of, remember
from ...messages import PRIVATE, telling
from ...site import Site
from ..dataset.report import check_html
from ..preview import PreviewInputs
from . import form
from . import plots as train_plots
from . import view as train_view
from .run import MOST_RUNS, RunView, shown_if

#: seconds for which a run may start by the check that was made
_FRESH = 300.0
_TITLES = {"lora": "LoRA"}


def build(site: Site, preview: PreviewInputs | None = None) -> None:
    """The tab, inside the ``with`` of its gr.Tab. With `preview`, a result can be handed to those fields."""
    tab = _Tab(site)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            tab.essentials()
            tab.answers()
            tab.rest()
        with gr.Column(scale=3, min_width=300):
            tab.view = RunView(site, preview)
    gr.HTML(train_plots.STYLES + train_view.STYLES, padding=False)
    tab.wire()


class _Tab:
    """The form's components and what happens with them."""

    view: RunView

    def __init__(self, site: Site) -> None:
        self.site = site
        self.settings = form.settings()
        self.fields: dict[tuple[str, str], Any] = {}
        self.checks: dict[str, tuple[float, Check]] = {}
        self.checking = threading.Lock()

    def essentials(self) -> None:
        """What a run needs to be told."""
        first = form.preset_config(self.site, "")
        with gr.Row(equal_height=True):
            self.dataset = gr.Dropdown(
                self.datasets(),
                value=None,
                label="Dataset",
                elem_id="train-dataset",
                scale=5,
                info=f"a folder of images in {self.site.data}",
            )
            self.refresh = gr.Button("Rescan", elem_id="train-refresh", scale=0, min_width=90, elem_classes="beside")
        with gr.Row(equal_height=True):
            self.name = gr.Textbox(
                "",
                label="Run name",
                elem_id="train-name",
                max_length=200,
                min_width=150,
                info="the folder that the run makes",
            )
            self.preset = gr.Dropdown(
                [("default", ""), *preset_names()],
                value="",
                label="Preset",
                elem_id="train-preset",
                min_width=150,
                info="fills the form; what you changed stays",
            )
        for pair in (form.ESSENTIALS[i : i + 2] for i in range(0, len(form.ESSENTIALS), 2)):
            with gr.Row(equal_height=True):
                for place in pair:
                    self.field(next(s for s in self.settings if s.place == place), first)
        self.before = gr.Textbox("", visible=False)  # the preset that the form was filled with

    def rest(self) -> None:
        """Every other setting, by section."""
        first = form.preset_config(self.site, "")
        gr.Markdown("All settings", elem_id="train-all", padding=False)
        for section in (item.name for item in fields(RunConfig)):
            with gr.Accordion(
                _TITLES.get(section, section.capitalize()), open=False, elem_id=f"train-section-{section}"
            ):
                gr.Markdown(setting_help().get(section, ""))
                if section == "model":
                    with gr.Row(equal_height=True):
                        for key in ("base", "revision", "config"):
                            self.given(key, getattr(first.model, key))
                settings = [s for s in self.settings if s.section == section and s.place not in form.ESSENTIALS]
                for pair in (settings[i : i + 2] for i in range(0, len(settings), 2)):
                    with gr.Row(equal_height=True):
                        for setting in pair:
                            self.field(setting, first)

    def field(self, setting: form.Setting, config: RunConfig) -> None:
        self.fields[setting.place] = form.field_of(setting, self.site, config)

    def given(self, key: str, value: str) -> None:
        """A setting of the base model, which the page was opened on."""
        info = setting_help().get(f"model.{key}") or "the base model that this page was opened on"
        gr.Textbox(
            value, label=key.capitalize(), interactive=False, elem_id=f"train-model-{key}", min_width=150, info=info
        )

    def answers(self) -> None:
        """What is asked of the form, and what is said to it: above the buttons, as below them is out of sight."""
        self.message = gr.HTML("", elem_id="train-message", padding=False, visible=False)
        with gr.Row():
            self.check = gr.Button("Check", elem_id="train-check", min_width=100)
            self.start = gr.Button("Start", variant="primary", elem_id="train-start", min_width=100)
        self.findings = gr.HTML("", elem_id="train-findings", padding=False, visible=False)

    def wire(self) -> None:
        """Events."""
        ordered = [self.fields[setting.place] for setting in self.settings]
        lists = [self.dataset, *(self.fields[s.place] for s in self.settings if s.by_id)]
        answers, asked = [self.message, self.findings], [self.dataset, self.preset, *ordered]
        one = {"concurrency_id": "train-check", "concurrency_limit": 1, **PRIVATE}
        self.view.wire()
        listed = [self.refresh.click, *opened()]
        gr.on(listed, telling(self.on_refresh), None, [self.view.run, *lists], **PRIVATE)
        self.preset.input(  # by hand, not by a reload
            telling(self.on_preset), [self.preset, self.before, *ordered], [self.before, *ordered], **PRIVATE
        )
        self.check.click(telling(self.on_check), asked, answers, **one)
        self.start.click(telling(self.on_start), [self.name, *asked], [*answers, self.view.run], **one)
        page_of().load(telling(self.on_return), None, self.view.run, **PRIVATE)
        ids = {self.fields[s.place]: partial(form.choices_of, s, self.site) for s in self.settings if s.by_id}
        remember(
            "train",
            [self.dataset, self.name, self.preset, self.before, *ordered],
            {self.dataset: self.datasets, **ids},
        )

    def datasets(self) -> list[tuple[str, str]]:
        return [(path.name, identity) for identity, path in self.site.datasets().items()]

    def on_refresh(self) -> list[Any]:
        """What there is to choose from now."""
        lists = [gr.update(choices=form.choices_of(s, self.site)) for s in self.settings if s.by_id]
        return [gr.update(choices=self.view.runs()), gr.update(choices=self.datasets()), *lists]

    def on_return(self) -> Any:
        """A page that is opened, or reloaded: the newest run that is at work, or the newest of all."""
        runs = self.view.runs()
        working = [identity for label, identity in runs if label.endswith((" · running", " · starting"))]
        return gr.update(choices=runs, value=[*working, runs[0][1]][0]) if runs else gr.update(choices=[])

    def on_preset(self, preset: str, before: str, *values: Any) -> list[Any]:
        return [preset, *form.switched(self.site, before, preset, values)]

    def on_check(self, dataset: str, preset: str, *values: Any) -> Iterator[tuple[Any, Any]]:
        """What is wrong with the dataset, and what a run on it will be."""
        try:
            config = form.config_of(self.site, preset, dataset, values)
            yield _said("looking at the images, and trying a step …"), shown_if("")
            yield shown_if(""), shown_if(check_html(self.checked(config, anew=True)))
        except SdLoraError as error:
            yield _said(str(error), wrong=True), shown_if("")

    def on_start(self, name: str, dataset: str, preset: str, *values: Any) -> Iterator[tuple[Any, Any, Any]]:
        """Start a run, if nothing stands against it."""
        try:
            config = form.config_of(self.site, preset, dataset, values)
            folder = self.site.runs / form.run_name(self.site, name)
            yield _said("looking at the images before the run starts …"), shown_if(""), gr.skip()
            check = self.checked(config, anew=False)
            findings = shown_if(check_html(check))
            if _is_refused(check):
                yield _said("not started: correct the errors below, then start again", wrong=True), findings, gr.skip()
                return
            start_run(config, folder, most=MOST_RUNS)
        except SdLoraError as error:
            yield _said(str(error), wrong=True), gr.skip(), gr.skip()
            return
        message = _said(f"{folder.name} has started; it goes on if this page is closed")
        yield message, findings, gr.update(choices=self.view.runs(), value=self.site.id_of(folder))

    def checked(self, config: RunConfig, *, anew: bool) -> Check:
        """The check of a config, or the one that was made just now; checks wait for one another, as each opens the base
        model."""
        check_settings(config)
        key = config.to_toml()
        with self.checking:
            made, check = self.checks.get(key, (0.0, None))
            old = time.monotonic() - made > _FRESH
            if anew or old or check is None or _is_refused(check):
                check = check_folder(config)
                self.checks = {key: (time.monotonic(), check)}
            return check


def _is_refused(check: Check) -> bool:
    return check.has_errors or check.plan is None


def _said(text: str, *, wrong: bool = False) -> Any:
    return shown_if(train_view.said(text, wrong=wrong))
