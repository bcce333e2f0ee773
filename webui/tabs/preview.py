"""The Preview tab: prompts × strengths, drawn cell by cell, and one picture under a strength slider."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import gradio as gr

from sd_lora.errors import SdLoraError
from sd_lora.models.schedulers import SCHEDULERS
from sd_lora.preview.job import PreviewJob
from sd_lora.preview.recipe import read_recipe

from .. import components as ui
from ..bases import example_prompts
from ..browser_state import page_of, remember
from ..choices import adapters_field
from ..components import on
from ..messages import count_of, status_html, warn
from ..phrases import PhraseOffer
from ..preview_fields import PreviewFields
from ..preview_progress import ENLARGING, Drawings, Progress, file_of, result_components, updates_of
from ..site import Site
from .earlier import Drawn, Earlier

#: in the browser: opens this tab, to which another has sent LoRAs
OPEN_TAB = """() => { const tabs = [...document.querySelectorAll('#tabs button[role="tab"]')];
tabs.find((tab) => tab.textContent.trim() === 'Preview')?.click();
const arrive = (tries) => { const button = document.querySelector('#preview-arrived');  // there once the tab is built
  if (button) button.click(); else if (tries) setTimeout(() => arrive(tries - 1), 50); }; arrive(200); }"""
_AT_STRENGTH, _BASE_ONLY = "At this strength", "Without a LoRA: the base model at any strength"


@dataclass(frozen=True)
class PreviewInputs:
    """The fields that other tabs may fill: the adapters (ids) and the prompts."""

    adapter: gr.Dropdown
    prompts: gr.Textbox


def build(site: Site) -> PreviewInputs:
    """The tab, inside the ``with`` of its gr.Tab."""
    tab = _Tab(site)
    ui.side_by_side(tab.fields, tab.results)
    tab.wire()
    return PreviewInputs(tab.adapter, tab.prompts)


class _Tab:
    """The tab's components and their events."""

    def __init__(self, site: Site) -> None:
        self.site, self.drawings, self.sliding = site, Drawings(), Drawings()

    def fields(self) -> None:
        """What a visitor fills in."""
        self.adapter = adapters_field("preview", self.site, "none: the base model itself")
        self.prompts = gr.Textbox(
            "\n".join(example_prompts(self.site.base)),
            label="Prompts, one per line",
            lines=4,
            max_lines=12,
            elem_id="preview-prompts",
            max_length=20_000,
        )
        self.phrases = PhraseOffer(self.site, "preview-phrases")
        self.arrived = gr.Button(visible="hidden", elem_id="preview-arrived")  # clicked by OPEN_TAB
        self.strengths = gr.Textbox(
            "0, 0.5, 1",
            label="Strengths",
            elem_id="preview-strengths",
            max_length=400,
            info="numbers, or a range such as 0-1.2(+0.4); 0, the base model, always comes first",
        )
        with gr.Row(equal_height=True):
            self.seed = ui.seed_field("preview", scale=3, min_width=110)
            self.steppers = [ui.button_beside(sign, f"preview-seed-{n}", 44) for n, sign in ((-1, "−1"), (1, "+1"))]
            self.dice = ui.button_beside("Random", "preview-dice")
            number: dict[str, Any] = {"precision": 0, "minimum": 1, "maximum": 64, "min_width": 80}
            self.seeds = gr.Number(1, label="Seeds", elem_id="preview-seeds", scale=1, **number)
        self.keep = gr.Checkbox(True, label="Keep the seed for the next drawing", elem_id="preview-keep")
        self.steps = ui.steps_field("preview", self.site.service.limits.steps)
        with gr.Accordion("More", open=False):
            self.negative = gr.Textbox("", label="Negative prompt", elem_id="preview-negative", max_length=2000)
            self.guidance = gr.Slider(0, 20, 5, step=0.5, label="Guidance", elem_id="preview-guidance")
            with gr.Row():
                schedulers = [("the base model's own", ""), *((name, name) for name in SCHEDULERS)]
                self.scheduler = gr.Dropdown(schedulers, value="", label="Scheduler", elem_id="preview-scheduler")
                ways = [*((f"{way} enlarged", way) for way in ENLARGING), ("as they are", "")]
                self.enlarging = gr.Dropdown(ways, value="smooth", label="Small pictures", elem_id="preview-enlarge")
            own: dict[str, Any] = {"precision": 0, "minimum": 0, "placeholder": "the base model's own"}
            with gr.Row():
                self.width = gr.Number(None, label="Width", elem_id="preview-width", **own)
                self.height = gr.Number(None, label="Height", elem_id="preview-height", **own)
            self.load = gr.UploadButton(
                "Load settings from a picture", file_types=[".png"], type="binary", size="sm", elem_id="preview-load"
            )
        self.generate, self.stop = ui.start_and_stop("preview")

    def results(self) -> None:
        """What was drawn."""
        self.status, self.gallery, self.sheet = result_components("preview", "Prompts × strengths")
        self.slider = ui.strength_field(
            1.0,
            label="Strength of the first prompt",
            elem_id="preview-slider",
            info="drag, or use the arrow keys; a strength that was drawn before appears at once",
        )
        self.earlier = Earlier(self.site)
        self.picture = ui.picture(
            "preview-picture", 420, label=_AT_STRENGTH, elem_classes="large", buttons=["download", "fullscreen"]
        )

    def wire(self) -> None:
        """Events. A reload restores what is shown: the fields from the browser, the pictures from the service."""
        inputs = [self.adapter, self.prompts, self.strengths, self.seed, self.steps, self.guidance, self.width,
                  self.height, self.negative, self.seeds, self.scheduler, self.enlarging]  # fmt: skip
        outputs, slider = [self.status, self.gallery, self.sheet], [self.slider, *inputs]
        strip = [self.earlier.drawn, self.earlier.frame, self.earlier.strip]
        choices = self.site.adapter_choices
        self.phrases.wire(self.prompts, [self.adapter], lambda chosen: chosen or (), self.arrived)
        on(self.dice.click, lambda: random.randrange(2**32), None, self.seed)
        for button, step in zip(self.steppers, (-1, 1), strict=True):  # in the browser, at once
            on(button.click, None, self.seed, self.seed, js=f"(seed) => Math.max(0, (seed ?? 0) + ({step}))")
        # what the picture shows is no longer what the fields say
        on(self.generate.click, lambda: gr.update(value=None, label=_AT_STRENGTH), None, self.picture)
        asked, answers = [self.keep, *inputs], [*outputs, self.seed]
        drawn = on(self.generate.click, self.on_generate, asked, answers, concurrency_limit=None)
        on(drawn.success, self.on_slide, slider, self.picture, concurrency_limit=None)
        on(drawn.success, self.on_drawn, [self.earlier.drawn, *inputs], strip)
        self.earlier.wire(self.on_load, [*inputs, self.status])
        on(self.stop.click, self.on_stop, queue=False)
        latest = {"trigger_mode": "always_last", "concurrency_limit": None}
        on(self.slider.change, self.on_slide, slider, self.picture, **latest)
        on(self.load.upload, self.on_load, self.load, [*inputs, self.status])
        restored = remember("preview", [*inputs, self.keep], {self.adapter: choices})
        on(restored.then, self.on_restored, inputs, outputs)
        on(restored.then, self.on_restored_slider, slider, self.picture)
        page_of().unload(self.on_stop)

    def on_generate(self, request: gr.Request, keep: bool, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Draw everything, showing each picture as it comes; and the seed, another one unless it is kept."""
        fields, enlarging = _fields(values)
        if not keep:
            fields = replace(fields, seed=random.randrange(2**32))
        job, note = _with_effective_strengths(fields.job(self.site))
        for updates in self.drawings.show(self.site, job, request, note, enlarging):
            yield *updates, gr.skip() if keep else fields.seed

    def on_drawn(self, drawn: list[Drawn], *values: Any) -> tuple[Any, ...]:
        """The strip with what was just drawn: of each prompt the last strength."""
        progress = self._drawn_before(*_fields(values))
        if progress is None:
            return (gr.skip(),) * 3
        job, column = progress.job, len(progress.job.columns) - 1
        files = [(row, file_of(self.site, progress, row, column, f"strength-{job.columns[column]:g}"))
                 for row in range(len(job.rows)) if (row, column) in progress.images]  # fmt: skip
        labels = [row.label or row.prompt for row in job.rows]
        return self.earlier.with_new(drawn, [Drawn(file, f"{job.columns[column]:g} · {labels[row]}")
                                             for row, file in files])  # fmt: skip

    def on_stop(self, request: gr.Request) -> None:
        for drawings in (self.drawings, self.sliding):
            drawings.stop(request)

    def on_slide(self, request: gr.Request, strength: float, *values: Any) -> Any:
        """The first prompt at one strength."""
        fields, enlarging = _fields(values)
        job = replace(fields.job(self.site), strengths=(float(strength),))
        job = replace(job, rows=job.rows[:1])
        *_, last = self.sliding.follow(self.site, job, request)
        if not last.is_complete:  # stopped, by the visitor or by a newer one
            return gr.skip()
        last.enlarging = enlarging
        file = file_of(self.site, last, 0, len(job.columns) - 1, f"strength-{strength:g}")
        return gr.update(value=file, label=_AT_STRENGTH if job.rows[0].acting else _BASE_ONLY)

    def on_load(self, content: bytes, *_: Any) -> tuple[Any, ...]:
        """The fields as a picture's recipe has them; fields that it does not mention keep their values. Adapters with
        their own strength become tags of the prompts."""
        saved = read_recipe(content)
        lost: list[str] = []
        ids, tags = self._loaded(saved.get("adapters", []), lost)
        by_row = [self._tags(mix, lost) for mix in saved.get("adapters_by_row", [])]
        prompts = [f"{prompt}{tag}" for prompt, tag in zip_longest(saved.get("prompts", []), by_row, fillvalue=tags)]
        strengths = ", ".join(f"{s:g}" for s in saved["strengths"]) if saved.get("strengths") else None
        names = {kind: name for name, kind in SCHEDULERS.items()}
        scheduler = names.get(saved["scheduler"], "") if "scheduler" in saved else None
        if scheduler and saved["scheduler"] == self.site.service.scheduler:
            scheduler = ""
        values = (
            ids if "adapters" in saved or by_row else None, "\n".join(prompts) or None, strengths, saved.get("seed"),
            saved.get("steps"), saved.get("guidance"), saved.get("width"), saved.get("height"), saved.get("negative"),
            1, scheduler, None,
        )  # fmt: skip
        if lost:
            warn(f"some settings could not be loaded: {'; '.join(dict.fromkeys(lost))}")
        line = status_html(f"{'some ' if lost else ''}settings loaded from the picture")
        return (*(gr.skip() if value is None else value for value in values), line)

    def _loaded(self, mix: Sequence[Mapping[str, Any]], lost: list[str]) -> tuple[list[str], str]:
        """The ids of a recipe's adapters, and those with their own strength as tags; appends to `lost`."""
        plain = [adapter for adapter in mix if adapter["strength"] == 1]
        ids = [self.site.id_of(path) for adapter in plain if (path := self._file_of(adapter, lost))]
        return ids, self._tags([adapter for adapter in mix if adapter["strength"] != 1], lost)

    def _tags(self, mix: Sequence[Mapping[str, Any]], lost: list[str]) -> str:
        tags = ""
        for adapter in mix:
            if not isinstance(adapter["strength"], int | float):
                lost.append(f"{adapter['name']} had strengths by block, which only Mix can set")
            elif path := self._file_of(adapter, lost):
                tags += f" <lora:{self.site.name_of(path)}:{adapter['strength']:g}>"
        return tags

    def _file_of(self, adapter: Mapping[str, Any], lost: list[str]) -> Path | None:
        """The file that a recipe names: by its name, and by its content if several have that name."""
        name, paths = adapter["name"], self.site.named(adapter["name"])
        if len(paths) > 1:
            paths = [path for path in paths if self.site.service.sha256(path) == adapter["sha256"]]
        if not paths:
            lost.append(f"{name} was not found")
        return paths[0] if paths else None

    def on_restored(self, *values: Any) -> tuple[Any, ...]:
        """After a reload: the pictures that are still kept."""
        progress = self._drawn_before(*_fields(values))
        return updates_of(self.site, progress) if progress else (gr.skip(),) * 3

    def on_restored_slider(self, request: gr.Request, strength: float, *values: Any) -> Any:
        """After a reload: the picture under the slider, if it is still kept."""
        fields, enlarging = _fields(values)
        progress = self._drawn_before(replace(fields, strengths=f"{strength:g}"), enlarging)
        return self.on_slide(request, strength, *values) if progress else gr.skip()

    def _drawn_before(self, fields: PreviewFields, enlarging: str = "") -> Progress | None:
        """The pictures of a job that the service still keeps, or None."""
        try:
            job, note = _with_effective_strengths(fields.job(self.site))
            cells = self.site.service.drawn(job)
        except (SdLoraError, TypeError, ValueError):  # the browser may have kept the fields for a long time
            return None
        if not cells:
            return None
        images = {(cell.row, cell.column): cell.image for cell in cells}
        progress = Progress(job, images, is_done=True, hashes=cells[0].hashes, note=note, enlarging=enlarging)
        drawn = "" if progress.is_complete else f"{len(images)} of "
        progress.line = f"{drawn}{count_of(progress.total, 'picture')}, drawn before"
        return progress


def _fields(values: Sequence[Any]) -> tuple[PreviewFields, str]:
    """The values of the fields, and how small pictures are enlarged."""
    *fields, enlarging = values
    return PreviewFields(*fields), str(enlarging or "")


def _with_effective_strengths(job: PreviewJob) -> tuple[PreviewJob, str]:
    """`job`, without strengths if there is no adapter for them to act on; and a note if so."""
    if len(job.columns) == 1 or any(row.acting for row in job.rows):
        return job, ""
    return replace(job, strengths=()), "without a LoRA strengths have no effect"
