"""A run in the Train tab, read from its files each time: the page keeps nothing of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from sd_lora.runs.control import resume_run, stop_run
from sd_lora.runs.state import RunState, list_runs, read_run, run_status

from ...checkpoint_grid import CheckpointGrid, adapter_choices
from ...components import gallery, html_field, on
from ...site import Site
from ..preview import OPEN_TAB, PreviewInputs
from . import view as train_view
from .queue import AT_ONCE, RunQueue
from .samples import strips_html

_MOST_LISTED = 100
_EVERY = 2.0


class RunView:
    """The components that show a run, and their events."""

    queue: RunQueue

    def __init__(self, site: Site) -> None:
        self.site = site
        with gr.Row(equal_height=True, elem_id="train-strip"):
            options: dict[str, Any] = {"elem_classes": "beside", "interactive": False, "min_width": 170, "scale": 0}
            self.run = gr.Dropdown(self.runs(), value=None, label="Run", elem_id="train-run", min_width=220)
            self.stop = gr.Button("Stop and save", elem_id="train-stop", **options)
            self.resume = gr.Button("Resume", elem_id="train-resume", **options)
            self.end = gr.Button("End the run here", elem_id="train-end", **options)
        self.progress = html_field("train-progress", visible=False)
        self.waiting = html_field("train-waiting", visible=False)
        self.drop = gr.Button("Take the last one out of the queue", size="sm", visible=False, elem_id="train-drop")

    def lay_out_results(self) -> None:
        """What a run has made so far."""
        with gr.Row(equal_height=True, visible=False) as self.results:
            self.adapter = gr.Dropdown([], label="Checkpoint after", elem_id="train-adapter", min_width=150)
            options: dict[str, Any] = {"min_width": 150, "elem_classes": "beside"}
            self.preview_button = gr.Button("Preview it", elem_id="train-preview", **options)
        self.grid = CheckpointGrid(self.site)
        self.strips = html_field("train-strips", visible=False)
        with gr.Accordion("Samples at every strength", open=False, visible=False) as self.sheets:
            self.samples = gallery("train-samples", "Samples, the newest last", 2)
        self.loss = html_field("train-loss", visible=False)
        self.validation = html_field("train-validation", visible=False)
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

    def wire(self, queue: RunQueue) -> None:
        """Events."""
        self.queue = queue
        outputs = [self.timer, self.progress, self.loss, self.validation, self.samples, self.results, self.adapter,
                   self.log, self.stop, self.resume, self.end, self.strips, self.sheets, self.grid.button,
                   self.waiting, self.drop, self.seen]  # fmt: skip
        on(self.run.change, self.on_run, self.run, outputs)
        on(self.timer.tick, self.on_tick, [self.run, self.seen], [*outputs, self.run])
        on(self.stop.click, self.on_stop, self.run, outputs)
        on(self.resume.click, self.on_resume, self.run, [*outputs, self.run])
        on(self.end.click, self.on_end, self.run, [*outputs, self.run])
        self.grid.wire(self.run, self.adapter)
        on(self.drop.click, self.on_drop, self.run, outputs)

    def send_results_to(self, preview: PreviewInputs) -> None:
        """From now on the button below a run shows its adapter in those fields."""
        sent = on(self.preview_button.click, self.on_preview, self.adapter, preview.adapter)
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
        if not state.is_alive and seen.get("waiting") and (following := self.active()):
            return [*self.on_run(following), gr.update(choices=self.runs(), value=following)]
        changed = seen.get("status") != state.status
        return [*self.updates(state, seen), gr.update(choices=self.runs()) if changed else gr.skip()]

    def active(self) -> str:
        """The id of a run that is active; empty if none is."""
        active = (path for path in list_runs(self.site.runs) if run_status(path) in ("starting", "running"))
        return next(map(self.site.id_of, active), "")

    def on_drop(self, identity: str | None) -> list[Any]:
        """Take the run that was queued last out of the queue."""
        if waiting := self.queue.waiting():
            self.queue.drop(waiting[-1])
        return self.on_run(identity)

    def on_stop(self, identity: str | None) -> list[Any]:
        if (folder := self.folder_of(identity)) is not None:
            stop_run(folder)
        return self.on_run(identity)

    def on_resume(self, identity: str | None) -> list[Any]:
        if (folder := self.folder_of(identity)) is not None:
            resume_run(folder, most=AT_ONCE)
        return [*self.on_run(identity), gr.update(choices=self.runs())]

    def on_end(self, identity: str | None) -> list[Any]:
        """End a run at the step it reached: at once if it has stopped, or else when it has."""
        state = None
        if (folder := self.folder_of(identity)) is not None:
            state = read_run(folder)
            if state.is_alive:
                stop_run(folder)
            else:
                resume_run(folder, most=AT_ONCE, finish=True)
        *updates, now = self.on_run(identity)
        ending = state is not None and state.is_alive
        return [*updates, {**now, "ending": ending} if now else now, gr.update(choices=self.runs())]

    def on_preview(self, identity: str | None) -> Any:
        """The Preview tab with an adapter of the run chosen."""
        self.site.adapter(identity or "")
        return gr.update(choices=self.site.adapter_choices(), value=[identity])

    def updates(self, state: RunState | None, seen: dict[str, Any]) -> list[Any]:
        """The updates that show a run; only what differs from what the browser has `seen` is sent."""
        waiting, refused = self.queue.waiting(), sorted(self.queue.refused)
        if state is None:
            hidden, sequel = gr.update(visible=False), self._queue_updates()
            return [gr.Timer(active=bool(waiting)), *(hidden,) * 7, *_buttons(None), *(hidden,) * 3, *sequel, {}]
        seen = seen if seen.get("name") == state.name else {}
        now = {
            "name": state.name, "status": state.status, "progress": train_view.progress_html(state),
            "loss": state.losses[-1:], "validation": state.validation[-1:],
            "samples": [str(path) for _, path in state.samples],
            "adapters": [f"{step} {path}" for step, path in state.adapters], "log": state.log,
            "ending": seen.get("ending", False) and state.is_alive, "waiting": waiting,
            "refused": refused,
        }  # fmt: skip
        changed = {key for key, value in now.items() if seen.get(key) != value}

        def part(key: str, value: Any) -> Any:
            return value() if key in changed else gr.skip()

        return [
            gr.Timer(active=state.is_alive or bool(waiting)) if changed & {"status", "waiting"} else gr.skip(),
            part("progress", lambda: hidden_if_empty(now["progress"])),
            part("loss", lambda: hidden_if_empty(train_view.losses_html(state))),
            part("validation", lambda: hidden_if_empty(train_view.validation_html(state))),
            part("samples", lambda: gr.update(value=train_view.sample_sheets(state, self.site.work))),
            part("adapters", lambda: gr.update(visible=bool(state.adapters))),
            part("adapters", lambda: self.adapters_of(state)),
            part("log", lambda: hidden_if_empty(state.log)),
            *_buttons(state),
            part("samples", lambda: hidden_if_empty(strips_html(state.samples))),
            part("samples", lambda: gr.update(visible=bool(state.samples))),
            gr.update(visible=bool(state.adapters) and not state.is_alive),
            *(self._queue_updates() if changed & {"waiting", "refused"} else (gr.skip(), gr.skip())), now,
        ]  # fmt: skip

    def _queue_updates(self) -> tuple[Any, Any]:
        """What waits, and whether the last can be taken out."""
        waiting = self.queue.waiting()
        lines = [f"waiting: {', '.join(waiting)}"] if waiting else []
        lines += [f"{name} could not be started: {why}" for name, why in self.queue.refused.items()]
        html = "".join(train_view.message_html(line, is_error="could not" in line) for line in lines)
        return hidden_if_empty(html), gr.update(visible=bool(waiting))

    def adapters_of(self, state: RunState) -> Any:
        """The run's checkpoints by step; chosen is the one that is used, or else the last."""
        choices = adapter_choices(self.site, self.site.runs / state.name)
        used = [identity for label, identity in choices if label.endswith("used")]
        return gr.update(choices=choices, value=(used or [choices[-1][1]])[0] if choices else None)


def hidden_if_empty(value: Any) -> Any:
    """An update to `value`, which hides the component if that is empty."""
    return gr.update(value=value, visible=bool(value))


def _buttons(state: RunState | None) -> list[Any]:
    """Whether a run can be stopped, resumed, and ended where it is."""
    can_stop = state is not None and state.is_alive and not state.stopping
    can_resume = state is not None and state.can_resume
    return [gr.update(interactive=can) for can in (can_stop, can_resume, can_stop or can_resume)]
