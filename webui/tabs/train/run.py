"""A run in the Train tab, read from its files each time: the page keeps nothing of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from sd_lora.runs.control import resume_run, stop_run
from sd_lora.runs.state import RunState, list_runs, read_run, run_status

from ...components import gallery, html_field, on
from ...site import Site
from ..preview import OPEN_TAB, PreviewInputs
from . import view as train_view

#: runs started from the page that may be active at once
MOST_RUNS = 2
_MOST_LISTED = 100
_EVERY = 2.0


class RunView:
    """The components that show a run, and their events."""

    def __init__(self, site: Site, preview: PreviewInputs | None) -> None:
        self.site, self.preview = site, preview
        self.run = gr.Dropdown(self.runs(), value=None, label="Run", elem_id="train-run")
        with gr.Row():
            self.stop = gr.Button("Stop and save", elem_id="train-stop", interactive=False, min_width=100)
            self.resume = gr.Button("Resume", elem_id="train-resume", interactive=False, min_width=100)
            self.end = gr.Button("End the run here", elem_id="train-end", interactive=False, min_width=100)
        self.progress = html_field("train-progress", visible=False)
        self.loss = html_field("train-loss", visible=False)
        self.validation = html_field("train-validation", visible=False)
        self.samples = gallery("train-samples", "Samples, the newest last", 2, visible=False)
        with gr.Row(equal_height=True, visible=False) as self.results:
            self.adapter = gr.Dropdown([], label="Adapter after", elem_id="train-adapter", min_width=150)
            options: dict[str, Any] = {"visible": preview is not None, "min_width": 150, "elem_classes": "beside"}
            self.preview_button = gr.Button("Preview result", elem_id="train-preview", **options)
        self.log = gr.Textbox(
            "",
            label="Log",
            lines=6,
            max_lines=16,
            elem_id="train-log",
            interactive=False,
            visible=False,
            autoscroll=True,
            buttons=["copy"],
        )
        self.timer, self.seen = gr.Timer(_EVERY, active=False), gr.State({})

    def wire(self) -> None:
        """Events."""
        outputs = [self.timer, self.progress, self.loss, self.validation, self.samples, self.results, self.adapter,
                   self.log, self.stop, self.resume, self.end, self.seen]  # fmt: skip
        on(self.run.change, self.on_run, self.run, outputs)
        on(self.timer.tick, self.on_tick, [self.run, self.seen], [*outputs, self.run])
        on(self.stop.click, self.on_stop, self.run, outputs)
        on(self.resume.click, self.on_resume, self.run, [*outputs, self.run])
        on(self.end.click, self.on_end, self.run, [*outputs, self.run])
        if self.preview is not None:
            sent = on(self.preview_button.click, self.on_preview, self.adapter, self.preview.adapter)
            on(sent.success, None, js=OPEN_TAB)

    def runs(self) -> list[tuple[str, str]]:
        """Runs with their status, the newest first, and their ids."""
        newest = list_runs(self.site.runs)[:_MOST_LISTED]
        return [(f"{path.name} · {run_status(path)}", self.site.id_of(path)) for path in newest]

    def folder_of(self, identity: str | None) -> Path | None:
        """The folder of a run; None if it no longer exists."""
        return next((path for path in list_runs(self.site.runs) if self.site.id_of(path) == identity), None)

    def on_run(self, identity: str | None) -> list[Any]:
        """A run that was chosen, with everything that is shown of it."""
        folder = self.folder_of(identity)
        return self.updates(read_run(folder) if folder is not None else None, {})

    def on_tick(self, identity: str | None, seen: dict[str, Any]) -> list[Any]:
        """What has changed in a run; and the list of runs if its status has. One that was to end has stopped first."""
        folder = self.folder_of(identity)
        state = read_run(folder) if folder is not None else None
        if folder is None or state is None:
            return [*self.updates(None, seen), gr.update(choices=self.runs(), value=None)]
        if seen.get("name") == state.name and seen.get("ending") and state.status == "stopped":
            return self.on_end(identity)
        changed = seen.get("status") != state.status
        return [*self.updates(state, seen), gr.update(choices=self.runs()) if changed else gr.skip()]

    def on_stop(self, identity: str | None) -> list[Any]:
        if (folder := self.folder_of(identity)) is not None:
            stop_run(folder)
        return self.on_run(identity)

    def on_resume(self, identity: str | None) -> list[Any]:
        if (folder := self.folder_of(identity)) is not None:
            resume_run(folder, most=MOST_RUNS)
        return [*self.on_run(identity), gr.update(choices=self.runs())]

    def on_end(self, identity: str | None) -> list[Any]:
        """End a run at the step it reached: at once if it has stopped, or else when it has."""
        state = None
        if (folder := self.folder_of(identity)) is not None:
            state = read_run(folder)
            if state.is_alive:
                stop_run(folder)
            else:
                resume_run(folder, most=MOST_RUNS, finish=True)
        *updates, now = self.on_run(identity)
        ending = state is not None and state.is_alive
        return [*updates, {**now, "ending": ending} if now else now, gr.update(choices=self.runs())]

    def on_preview(self, identity: str | None) -> Any:
        """The Preview tab with an adapter of the run chosen."""
        self.site.adapter(identity or "")
        return gr.update(choices=self.site.adapter_choices(), value=[identity])

    def updates(self, state: RunState | None, seen: dict[str, Any]) -> list[Any]:
        """The updates that show a run; only what differs from what the browser has `seen` is sent."""
        if state is None:
            hidden = gr.update(visible=False)
            return [gr.Timer(active=False), *(hidden,) * 7, *_buttons(None), {}]
        seen = seen if seen.get("name") == state.name else {}
        now = {
            "name": state.name, "status": state.status, "progress": train_view.progress_html(state),
            "loss": state.losses[-1:], "validation": state.validation[-1:],
            "samples": [str(path) for _, path in state.samples],
            "adapters": [f"{step} {path}" for step, path in state.adapters], "log": state.log,
            "ending": seen.get("ending", False) and state.is_alive,
        }  # fmt: skip
        changed = {key for key, value in now.items() if seen.get(key) != value}

        def part(key: str, value: Any) -> Any:
            return value() if key in changed else gr.skip()

        return [
            part("status", lambda: gr.Timer(active=state.is_alive)),
            part("progress", lambda: hidden_if_empty(now["progress"])),
            part("loss", lambda: hidden_if_empty(train_view.losses_html(state))),
            part("validation", lambda: hidden_if_empty(train_view.validation_html(state))),
            part("samples", lambda: hidden_if_empty(train_view.sample_sheets(state, self.site.work))),
            part("adapters", lambda: gr.update(visible=bool(state.adapters))),
            part("adapters", lambda: self.adapters_of(state)),
            part("log", lambda: hidden_if_empty(state.log)),
            *_buttons(state), now,
        ]  # fmt: skip

    def adapters_of(self, state: RunState) -> Any:
        """The run's adapters by step, the last one chosen."""
        choices = [(f"step {step:,}", self.site.id_of(path)) for step, path in state.adapters]
        return gr.update(choices=choices, value=choices[-1][1] if choices else None)


def hidden_if_empty(value: Any) -> Any:
    """An update to `value`, which hides the component if that is empty."""
    return gr.update(value=value, visible=bool(value))


def _buttons(state: RunState | None) -> list[Any]:
    """Whether a run can be stopped, resumed, and ended where it is."""
    can_stop = state is not None and state.is_alive and not state.stopping
    can_resume = state is not None and state.can_resume
    return [gr.update(interactive=can) for can in (can_stop, can_resume, can_stop or can_resume)]
