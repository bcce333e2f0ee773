"""A run's checkpoints × strengths, with the prompts and the seed of its samples: which of them to use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from sd_lora.config.reading import read_config
from sd_lora.errors import ConfigError
from sd_lora.preview.job import PreviewJob
from sd_lora.runs.state import read_run
from sd_lora.storage.atomic import write_atomically

from .browser_state import page_of
from .components import html_field, on
from .messages import status_html
from .preview_progress import Drawings, result_components
from .site import Site
from .tabs.compare import rows_of

_CHOSEN = "chosen.json"


class CheckpointGrid:
    """The button, and what it draws."""

    def __init__(self, site: Site) -> None:
        self.site, self.drawings = site, Drawings()
        self.button = gr.Button("Compare its checkpoints", elem_id="train-compare", visible=False)
        with gr.Column(visible=False, elem_id="train-grid") as self.area:
            self.results = [*result_components("train-grid", "Checkpoints × strengths; click one to enlarge it")]
            self.choice = html_field("train-grid-choice", status_html(""))
            with gr.Row():
                self.use = gr.Button("Use this one", interactive=False, elem_id="train-use")
                self.stop = gr.Button("Stop drawing", elem_id="train-grid-stop")
        self.cell = gr.State(-1)

    def wire(self, run: gr.Dropdown, adapter: gr.Dropdown) -> None:
        """Events; the checkpoint that is used is chosen in `adapter`."""
        shown = on(self.button.click, lambda: (gr.update(visible=True), -1), None, [self.area, self.cell])
        on(shown.then, self.on_draw, run, self.results, concurrency_limit=None)
        on(self.stop.click, self.drawings.stop, queue=False)
        gallery = self.results[1]
        on(gallery.select, self.on_select, run, [self.cell, self.choice, self.use])
        on(self.use.click, self.on_use, [run, self.cell], [adapter, self.choice])
        on(run.change, lambda: gr.update(visible=False), None, self.area)
        page_of().unload(self.drawings.stop)

    def on_draw(self, request: gr.Request, run: str) -> Iterator[Any]:
        yield from self.drawings.show(self.site, self.job(self.site.run(run)), request)

    def on_select(self, run: str, event: gr.SelectData) -> tuple[int, str, Any]:
        """A cell was clicked: what it shows."""
        job = self.job(self.site.run(run))
        row, column = divmod(int(event.index), len(job.columns))
        if row >= len(job.rows):
            raise ConfigError("that picture is no longer there; draw the grid again")
        strength = job.columns[column]
        what = "the base model" if strength == 0 else f"{job.rows[row].label} at strength {strength:g}"
        return int(event.index), status_html(what), gr.update(interactive=strength != 0)

    def on_use(self, run: str, cell: int) -> tuple[Any, str]:
        """The checkpoint of the cell becomes the one that is used of this run."""
        folder = self.site.run(run)
        job = self.job(folder)
        row, column = divmod(cell, len(job.columns))
        if cell < 0 or row >= len(job.rows) or not job.columns[column]:
            raise ConfigError("no picture of a checkpoint is chosen; click one first")
        path, strength = job.rows[row].mix[0].path, job.columns[column]
        notes = {"adapter": path.name, "strength": strength}
        write_atomically(folder / _CHOSEN, json.dumps(notes).encode())
        line = f"{job.rows[row].label} is the one of {folder.name} that is used; {strength:g} is its strength"
        return gr.update(choices=adapter_choices(self.site, folder), value=self.site.id_of(path)), status_html(line)

    def job(self, run: Path) -> PreviewJob:
        """The job that draws all checkpoints of a run at the strengths of its samples. ConfigError if it has none."""
        config = read_config(run / "config.toml")
        preview, limits = config.preview, self.site.service.limits
        prompts = preview.prompts or ("",)
        by_prompt = [rows_of(run, prompt) for prompt in prompts]
        columns = len({0.0, *preview.strengths})
        fitting = max(1, limits.cells // (len(by_prompt[0]) * columns))
        rows = tuple(row for rows in by_prompt[:fitting] for row in rows)
        steps = min(preview.inference_steps, limits.steps)
        shape: dict[str, Any] = {"steps": steps, "guidance": preview.guidance, "negative": preview.negative}
        size = config.data.resolution
        return PreviewJob(rows, preview.strengths, seed=preview.seed, width=size, height=size, **shape)


def chosen_adapter(run: Path) -> str:
    """The file name of the checkpoint that is used of a run; empty if none was chosen."""
    try:
        notes = json.loads((run / _CHOSEN).read_text("utf-8"))
    except (OSError, ValueError):
        return ""
    return str(notes.get("adapter", "")) if isinstance(notes, dict) else ""


def adapter_choices(site: Site, run: Path) -> list[tuple[str, str]]:
    """The checkpoints of a run by step, for a list; the one that is used is marked."""
    chosen, adapters = chosen_adapter(run), read_run(run).adapters
    return [(f"step {step:,}{' · used' if path.name == chosen else ''}", site.id_of(path)) for step, path in adapters]
