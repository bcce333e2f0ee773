"""A run in the Train tab, read anew from its files each time: nothing of it is kept in the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from sd_lora.runs.control import resume_run, stop_run
from sd_lora.runs.state import RunState, list_runs, read_run, run_status

from ...messages import PRIVATE, telling
from ...site import Site
from ..preview import GO, PreviewInputs, choices
from . import view as train_view

#: runs that are at work at once, if they were started from the page
MOST_RUNS = 2
_MOST_LISTED = 100
_EVERY = 2.0


class RunView:
    """The components that show a run, and what happens with them."""

    def __init__(self, site: Site, preview: PreviewInputs | None) -> None:
        self.site, self.preview = site, preview
        self.lay_out()

    def lay_out(self) -> None:
        """Components, the run that is chosen first."""
        self.run = gr.Dropdown(self.runs(), value=None, label="Run", elem_id="train-run")
        with gr.Row():
            self.stop = gr.Button("Stop and save", elem_id="train-stop", interactive=False, min_width=100)
            self.resume = gr.Button("Resume", elem_id="train-resume", interactive=False, min_width=100)
        self.progress = gr.HTML("", elem_id="train-progress", padding=False, visible=False)
        self.loss = gr.HTML("", elem_id="train-loss", padding=False, visible=False)
        self.validation = gr.HTML("", elem_id="train-validation", padding=False, visible=False)
        self.samples = gr.Gallery(
            label="Samples, the newest last",
            columns=2,
            fit_columns=False,
            object_fit="contain",
            height="auto",
            format="png",
            elem_id="train-samples",
            interactive=False,
            visible=False,
            buttons=["download", "fullscreen"],
        )
        with gr.Row(equal_height=True, visible=False) as self.results:
            self.adapter = gr.Dropdown([], label="Adapter after", elem_id="train-adapter", min_width=150)
            self.preview_button = gr.Button(
                "Preview result",
                elem_id="train-preview",
                visible=self.preview is not None,
                min_width=150,
                elem_classes="beside",
            )
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
        shown = [self.timer, self.progress, self.loss, self.validation, self.samples, self.results, self.adapter,
                 self.log, self.stop, self.resume, self.seen]  # fmt: skip
        self.run.change(telling(self.on_run), self.run, shown, **PRIVATE)
        self.timer.tick(telling(self.on_tick), [self.run, self.seen], [*shown, self.run], **PRIVATE)
        self.stop.click(telling(self.on_stop), self.run, shown, **PRIVATE)
        self.resume.click(telling(self.on_resume), self.run, [*shown, self.run], **PRIVATE)
        if self.preview is not None:
            self.preview_button.click(telling(self.on_preview), self.adapter, self.preview.adapter, **PRIVATE).success(
                None, None, None, js=GO, **PRIVATE
            )

    def runs(self) -> list[tuple[str, str]]:
        """Runs with what they are at, the newest first, and their ids."""
        newest = list_runs(self.site.runs)[:_MOST_LISTED]
        return [(f"{path.name} · {run_status(path)}", self.site.id_of(path)) for path in newest]

    def folder_of(self, identity: str | None) -> Path | None:
        """The folder of a run that is listed; of one that has gone, None."""
        return next((path for path in list_runs(self.site.runs) if self.site.id_of(path) == identity), None)

    def on_run(self, identity: str | None) -> list[Any]:
        """A run that was chosen, from the start."""
        folder = self.folder_of(identity)
        if folder is None:
            return self.shown(None, {})
        return self.shown(read_run(folder), {})

    def on_tick(self, identity: str | None, seen: dict[str, Any]) -> list[Any]:
        """What has changed of a run; the list of runs too, if its status has."""
        folder = self.folder_of(identity)
        state = read_run(folder) if folder is not None else None
        if state is None:
            return [*self.shown(None, seen), gr.update(choices=self.runs(), value=None)]
        changed = seen.get("status") != state.status
        return [*self.shown(state, seen), gr.update(choices=self.runs()) if changed else gr.skip()]

    def on_stop(self, identity: str | None) -> list[Any]:
        if (folder := self.folder_of(identity)) is not None:
            stop_run(folder)
        return self.on_run(identity)

    def on_resume(self, identity: str | None) -> list[Any]:
        if (folder := self.folder_of(identity)) is not None:
            resume_run(folder, most=MOST_RUNS)
        return [*self.on_run(identity), gr.update(choices=self.runs())]

    def on_preview(self, identity: str | None) -> Any:
        """The Preview tab with an adapter of the run chosen."""
        self.site.adapter(identity or "")
        return gr.update(choices=choices(self.site), value=[identity])

    def shown(self, state: RunState | None, seen: dict[str, Any]) -> list[Any]:
        """The view of a run; only what differs from what was `seen` is sent anew."""
        if state is None:
            hidden = gr.update(visible=False)
            return [gr.Timer(active=False), *(hidden,) * 7, *_buttons(None), {}]
        seen = seen if seen.get("name") == state.name else {}
        now = {
            "name": state.name, "status": state.status, "progress": train_view.progress_shown(state),
            "loss": state.losses[-1:], "validation": state.validation[-1:],
            "samples": [str(path) for _, path in state.samples],
            "adapters": [str(path) for _, path in state.adapters], "log": state.log,
        }  # fmt: skip
        fresh = {key for key, value in now.items() if seen.get(key) != value}

        def part(key: str, value: Any) -> Any:
            return value() if key in fresh else gr.skip()

        return [
            gr.Timer(active=state.is_alive) if "status" in fresh else gr.skip(),
            part("progress", lambda: shown_if(now["progress"])),
            part("loss", lambda: shown_if(train_view.losses_shown(state))),
            part("validation", lambda: shown_if(train_view.validation_shown(state))),
            part("samples", lambda: shown_if(train_view.samples_shown(state, self.site.work))),
            part("adapters", lambda: gr.update(visible=bool(state.adapters))),
            part("adapters", lambda: self.adapters_of(state)),
            part("log", lambda: shown_if(state.log)),
            *_buttons(state), now,
        ]  # fmt: skip

    def adapters_of(self, state: RunState) -> Any:
        """The run's adapters by step, the last chosen."""
        choices = [(f"step {step:,}", self.site.id_of(path)) for step, path in state.adapters]
        return gr.update(choices=choices, value=choices[-1][1] if choices else None)


def shown_if(value: Any) -> Any:
    """A component with `value`, and out of the way if that is empty."""
    return gr.update(value=value, visible=bool(value))


def _buttons(state: RunState | None) -> tuple[Any, Any]:
    """Whether a run can be stopped, and resumed."""
    return (
        gr.update(interactive=state is not None and state.is_alive and not state.stopping),
        gr.update(interactive=state is not None and state.can_resume),
    )
