"""The Train tab: a dataset, a trigger word, a length; every other setting behind them; runs that continue without the
page."""

from __future__ import annotations

import re
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
from sd_lora.config.schema import RunConfig
from sd_lora.errors import ConfigError, SdLoraError

from ...browser_state import page_of, remember, tab_selected
from ...checks import check_folder, check_settings
from ...components import html_field, on
from ...dataset_notes import keep_trigger, suggested_trigger, trigger_of
from ...site import Site
from ..dataset.report import check_html
from ..dataset.tab import DatasetChoice
from . import form, lengths, sources
from .idle import DECIDING, TRIED, idle_reasons
from .queue import RunQueue
from .run import RunView, hidden_if_empty
from .view import message_html

#: the tab's own look, for `launch(css_paths=…)`
STYLES = Path(__file__).with_name("train.css")
#: in the browser: opens this tab
OPEN_TAB = """() => { const tabs = [...document.querySelectorAll('#tabs button[role="tab"]')];
tabs.find((tab) => tab.textContent.trim() === 'Train')?.click(); }"""
#: seconds for which a check is still valid when a run is started
_FRESH = 300.0
_TITLES = {"lora": "LoRA"}
_STEPS = ("training", "steps")


def build(site: Site, dataset: DatasetChoice | None = None) -> RunView:
    """The tab, inside the ``with`` of its gr.Tab. With `dataset`, that of the Dataset tab can be sent to this one."""
    tab = _Tab(site)
    tab.view = RunView(site)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            tab.lay_out_form()
        with gr.Column(scale=3, min_width=300):
            tab.view.lay_out_results()
    tab.wire(dataset)
    return tab.view


class _Tab:
    """The form's components and their events."""

    view: RunView

    def __init__(self, site: Site) -> None:
        self.site, self.settings, self.queue = site, form.settings(), RunQueue(site.runs)
        self.queue.start()
        self.config = form.preset_config(site, "")
        self.fields: dict[tuple[str, str], Any] = {}
        #: lists of what is on this machine, with their choices
        self.lists: dict[Any, Any] = {}
        self.checks: dict[str, tuple[float, Check]] = {}
        self.checking = threading.Lock()

    def lay_out_form(self) -> None:
        """What every run needs, the buttons with their answers, then every other setting by section."""
        choices = self.site.dataset_choices()
        self.dataset = gr.Dropdown(choices, value=None, label="Dataset", elem_id="train-dataset")
        essential = [next(s for s in self.settings if s.place == place) for place in form.ESSENTIALS]
        self.in_pairs(essential)
        self.length = gr.Radio(
            list(lengths.LENGTHS), value=lengths.NORMAL, label="How long", elem_id="train-length",
            info=lengths.lengths_sentence(self.config, None),
        )  # fmt: skip
        options: dict[str, Any] = {"max_length": 200, "info": "the folder that the run makes"}
        self.name = gr.Textbox("", label="Run name", elem_id="train-name", **options)
        self.answers()
        with gr.Accordion("More settings", open=False, elem_id="train-more") as self.area:
            self.more()

    def answers(self) -> None:
        """The buttons, and below them what they answer."""
        with gr.Row():
            self.start = gr.Button("Start", variant="primary", elem_id="train-start", min_width=100)
            self.check = gr.Button("Check", elem_id="train-check", min_width=100)
        self.message = html_field("train-message", visible=False)
        with gr.Row(visible=False) as self.wordless:
            self.suggested = gr.Button("Use it", variant="primary", elem_id="train-suggested", min_width=120)
            self.without = gr.Button("Train without one", elem_id="train-without", min_width=120)
        self.findings = html_field("train-findings", visible=False)

    def more(self) -> None:
        """Where the settings come from, and a field for each, by section."""
        info = "fills the form; what you changed is kept"
        first = sources.usual(self.site)
        self.preset = gr.Dropdown(
            sources.choices(self.site), value=first, label="Preset", elem_id="train-preset", info=info
        )
        with gr.Row(equal_height=True):
            options: dict[str, Any] = {"max_length": 60, "elem_id": "train-save-name", "min_width": 140}
            self.save_name = gr.Textbox("", label="Save these settings as", **options)
            self.save = gr.Button("Save", elem_id="train-save", elem_classes="beside", scale=0, min_width=90)
        self.filled_with = gr.Textbox("", visible=False)  # the preset that the form was filled with
        gr.Textbox("", label="Find a setting", elem_id="train-search", placeholder="rank, noise, captions …")
        for section in (item.name for item in fields(RunConfig)):
            title = _TITLES.get(section, section.capitalize())
            with gr.Column(elem_id=f"train-section-{section}", elem_classes="settings-section"):
                gr.Markdown(f"### {title}\n{setting_help().get(section, '')}", elem_classes="settings-title")
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

    # ---- events

    def wire(self, chosen: DatasetChoice | None) -> None:
        """Events."""
        values = [self.fields[setting.place] for setting in self.settings]
        trigger, steps = self.fields["data", "trigger"], self.fields[_STEPS]
        by_id = [setting for setting in self.settings if setting.by_id]
        self.lists = {self.fields[s.place]: partial(form.choices_of, s, self.site) for s in by_id}
        self.lists = {self.dataset: self.site.dataset_choices, self.preset: self.presets, **self.lists}
        answers, inputs = [self.message, self.findings], [self.dataset, self.preset, *values]
        one_at_a_time = {"concurrency_id": "train-check", "concurrency_limit": 1}
        filled = [self.filled_with, *values]
        self.view.wire(self.queue)
        on([*tab_selected(), self.dataset.focus], self.on_refresh, None, [self.view.run, *self.lists])
        for event in tab_selected():  # the word may have been changed on the Dataset tab
            on(event, self.on_opened, self.dataset, trigger)
        of_dataset = [trigger, self.name, self.length, steps]
        on(self.dataset.input, self.on_dataset, [self.dataset, self.preset, self.length, self.name], of_dataset)
        # the answer to the last choice counts, also where several are made before the first is answered
        chosen_with = [self.length, self.preset, self.dataset]
        on(self.length.input, self.on_length, chosen_with, steps, trigger_mode="always_last")
        on(trigger.blur, self.on_trigger, [self.dataset, trigger])
        on(self.preset.input, self.on_preset, [self.preset, self.length, self.dataset, *filled], [*filled, self.length])
        idle = [self.fields[place] for place in TRIED]
        deciding = [self.area.expand, *(self.fields[place].change for place in DECIDING)]
        on(deciding, self.on_deciding, [self.preset, *values], idle, trigger_mode="always_last")
        on(self.check.click, self.on_check, inputs, answers, **one_at_a_time)
        started = [*answers, self.view.run, self.name, self.wordless, self.suggested, trigger]
        on([self.start.click, self.name.submit], self.on_start, [self.name, *inputs], started, **one_at_a_time)
        on(self.suggested.click, self.on_suggested, [self.name, *inputs], started, **one_at_a_time)
        on(self.without.click, self.on_without, [self.name, *inputs], started, **one_at_a_time)
        on(
            self.save.click,
            self.on_save,
            [self.save_name, self.preset, *values],
            [self.preset, self.filled_with, self.save_name, self.message],
        )
        on(page_of().load, self.on_return, None, self.view.run)
        remember("train", [self.dataset, self.name, self.length, self.preset, *filled], self.lists)
        if chosen is not None:
            sent = [self.dataset, *of_dataset]
            given = [chosen.dataset, chosen.trigger, self.preset, self.length, self.name]
            handed = on(chosen.train.click, self.on_handed_over, given, sent)
            on(handed.success, None, js=OPEN_TAB)

    def presets(self) -> list[tuple[str, str]]:
        return sources.choices(self.site)

    def on_refresh(self) -> list[Any]:
        """Fresh choices of the runs and of all other lists."""
        return [gr.update(choices=choices()) for choices in (self.view.runs, *self.lists.values())]

    def on_opened(self, identity: str | None) -> Any:
        """The trigger word that is kept with the dataset."""
        folder = self.site.datasets().get(identity or "")
        return (trigger_of(folder) if folder else "") or gr.skip()

    def on_return(self) -> Any:
        """A page that is opened or reloaded shows the newest active run, or else the newest run."""
        runs = self.view.runs()
        active = [identity for label, identity in runs if label.endswith((" · running", " · starting"))]
        return gr.update(choices=runs, value=[*active, runs[0][1]][0]) if runs else gr.update(choices=[])

    def on_handed_over(self, identity: str | None, trigger: str, preset: str, length: str, name: str) -> list[Any]:
        """The dataset of the Dataset tab, with its trigger word."""
        if not identity:
            raise ConfigError("no dataset is chosen; choose one, or drop pictures to make one")
        keep_trigger(self.site.dataset(identity), trigger or "")
        chosen = gr.update(choices=self.site.dataset_choices(), value=identity)
        return [chosen, *self.on_dataset(identity, preset, length, name)]

    def on_dataset(self, identity: str | None, preset: str, length: str, name: str) -> list[Any]:
        """The trigger word that is kept with a dataset, a free name for its run, and the steps that follow."""
        if not identity:
            return [gr.skip()] * 4
        folder, config = self.site.dataset(identity), form.preset_config(self.site, preset or "")
        told = gr.update(info=lengths.lengths_sentence(config, folder))
        new = gr.skip() if name and not form.is_suggested(self.site, name) else form.suggested_name(self.site, folder)
        wanted = lengths.steps_of_length(length, config, folder)
        follows = length != lengths.NORMAL and config.training.steps is None
        return [trigger_of(folder), new, told, ("" if wanted is None else str(wanted)) if follows else gr.skip()]

    def on_length(self, length: str, preset: str, identity: str | None) -> str:
        """The steps of that length, in their field."""
        config = form.preset_config(self.site, preset or "")
        wanted = lengths.steps_of_length(length, config, self.site.dataset(identity) if identity else None)
        return "" if wanted is None else str(wanted)

    def on_trigger(self, identity: str | None, trigger: str) -> None:
        """The trigger word is kept with its dataset, so that it need not be given again."""
        word = (trigger or "").strip()
        if identity and "," not in word and trigger_of(self.site.dataset(identity)) != word:
            keep_trigger(self.site.dataset(identity), word)

    def on_preset(self, preset: str, length: str, identity: str | None, filled_with: str, *values: Any) -> list[Any]:
        """The fields as a preset has them, but for those changed by hand; the length stays as well."""
        folder = self.site.dataset(identity) if identity else None
        before, after = form.filled_config(self.site, filled_with), form.preset_config(self.site, preset)
        new = form.switched(self.site, filled_with, preset, values)
        place = next(i for i, setting in enumerate(self.settings) if setting.place == _STEPS)
        shown = str(values[place] or "")
        if shown == str(lengths.steps_of_length(length, before, folder) or ""):
            new[place] = str(lengths.steps_of_length(length, after, folder) or "")
        return [preset, *new, gr.update(info=lengths.lengths_sentence(after, folder))]

    def on_deciding(self, preset: str, *values: Any) -> list[Any]:
        """Which settings have no effect beside the others: their fields say so and cannot be changed."""
        try:
            config = form.tried_config(self.site, preset, values)
            reasons = idle_reasons(config)
        except (SdLoraError, ValueError):  # a value that cannot be used yet
            return [gr.skip()] * len(TRIED)
        by_place = {setting.place: (setting, raw) for setting, raw in zip(self.settings, values, strict=True)}
        plain = form.preset_config(self.site, preset)
        return [form.idle_update(*by_place[place], plain, reasons.get(place, "")) for place in TRIED]

    def on_save(self, name: str, preset: str, *values: Any) -> list[Any]:
        """The settings of the form as a preset of this page."""
        changed = form.overrides(form.preset_config(self.site, preset), values, self.site)
        config = sources.with_options(form.preset_config(self.site, preset), changed)
        value = sources.save(self.site, name, config)
        line = f"saved; it is among the presets as {name.strip()}"
        return [gr.update(choices=self.presets(), value=value), value, "", _message(line)]

    def on_check(self, dataset: str, preset: str, *values: Any) -> Iterator[tuple[Any, Any]]:
        """What is wrong with the dataset, and the plan of a run on it."""
        try:
            config = form.config_of(self.site, preset, dataset, values)
            yield _message("checking the pictures, and timing a step …"), hidden_if_empty("")
            yield hidden_if_empty(""), hidden_if_empty(check_html(self.checked(config, again=True)))
        except SdLoraError as error:
            yield _message(str(error), is_error=True), hidden_if_empty("")

    def on_suggested(self, name: str, dataset: str, preset: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Start with the trigger word that was suggested."""
        word = suggested_trigger(self.site.dataset(dataset))
        keep_trigger(self.site.dataset(dataset), word)
        place = next(i for i, setting in enumerate(self.settings) if setting.place == ("data", "trigger"))
        given = [*values[:place], word, *values[place + 1 :]]
        for *updates, _ in self.on_start(name, dataset, preset, *given):
            yield (*updates, word)

    def on_without(self, name: str, dataset: str, preset: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Start without a trigger word."""
        yield from self._started(name, dataset, preset, values)

    def on_start(self, name: str, dataset: str, preset: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Start a run, unless the check finds errors; without a trigger word ask first."""
        place = next(i for i, setting in enumerate(self.settings) if setting.place == ("data", "trigger"))
        if dataset and not (values[place] or "").strip():
            word = suggested_trigger(self.site.dataset(dataset))
            text = "there is no trigger word, the word in a prompt that calls the style; use one, or train without"
            yield (
                _message(text, marks=["train-trigger"]), hidden_if_empty(""), gr.skip(), gr.skip(),
                gr.update(visible=True), gr.update(value=f'Use "{word}"'), gr.skip(),
            )  # fmt: skip
            return
        yield from self._started(name, dataset, preset, values)

    def _started(self, name: str, dataset: str, preset: str, values: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        rest = (gr.update(visible=False), gr.skip(), gr.skip())
        try:
            config = form.config_of(self.site, preset, dataset, values)
            folder = self.site.runs / form.run_name(self.site, name, self.site.dataset(dataset))
            yield (
                _message("checking the pictures before the run starts …"),
                hidden_if_empty(""),
                gr.skip(),
                gr.skip(),
                *rest,
            )
            check = self.checked(config, again=False)
            findings = hidden_if_empty(check_html(check))
            if _is_refused(check):
                text = "not started: fix the errors below, on the Dataset tab, then start again"
                yield _message(text, is_error=True, marks=["train-dataset"]), findings, gr.skip(), gr.skip(), *rest
                return
            line = self.queue.add(config, folder)
        except SdLoraError as error:
            marks = _marked(str(error), dataset)
            yield _message(str(error), is_error=True, marks=marks), gr.skip(), gr.skip(), gr.skip(), *rest
            return
        waits = folder.name in self.queue.waiting()
        run = gr.update(choices=self.view.runs(), value=self.view.active() if waits else self.site.id_of(folder))
        following = form.suggested_name(self.site, self.site.dataset(dataset), besides=folder.name)
        yield _message(line), findings, run, following, *rest

    def checked(self, config: RunConfig, *, again: bool) -> Check:
        """The check of a config, or the recent one if it is not to be made `again`, which also times a step."""
        check_settings(config)
        key = config.to_toml()
        with self.checking:
            made, check = self.checks.get(key, (0.0, None))
            is_old = time.monotonic() - made > _FRESH
            if again or is_old or check is None or _is_refused(check):
                check = (
                    check_folder(config) if again else check_folder(config, base=self.site.service.reader.open_base())
                )
                self.checks = {key: (time.monotonic(), check)}
            return check


def _is_refused(check: Check) -> bool:
    return check.has_errors or check.plan is None


def _message(text: str, *, is_error: bool = False, marks: Sequence[str] = ()) -> Any:
    return hidden_if_empty(message_html(text, is_error=is_error, marks=marks))


def _marked(message: str, dataset: str) -> list[str]:
    """The ids of the fields that an error is about."""
    if not dataset:
        return ["train-dataset"]
    if "run's name" in message or "choose another name" in message:
        return ["train-name"]
    named = re.findall(r"\b(\w+)\.(\w+)\b", message)
    settings = {setting.place: setting for setting in form.settings()}
    return [form.elem_id(settings[place]) for place in dict.fromkeys(named) if place in settings]
