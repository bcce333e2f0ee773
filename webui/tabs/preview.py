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
from sd_lora.preview.job import PreviewJob
from sd_lora.preview.recipe import read_recipe

from ..browser_state import opened, page_of, remember
from ..messages import PRIVATE, status_html, telling, warn
from ..preview_fields import Asked
from ..preview_progress import Drawings, Progress, counted, file_of, results, shown_of
from ..site import Site

_PROMPT = "a big red house by the sea\na small white cat on a table"
#: in the browser: to this tab
GO = """() => { const tabs = [...document.querySelectorAll('#tabs button[role="tab"]')];
tabs.find((tab) => tab.textContent.trim() === 'Preview')?.click(); }"""
_SLID, _SAME = "At this strength", "Without an adapter: the base model at any strength"


@dataclass(frozen=True)
class PreviewInputs:
    """The fields that other tabs may fill: the adapters (ids) and the prompts."""

    adapter: gr.Dropdown
    prompts: gr.Textbox


def choices(site: Site) -> list[tuple[str, str]]:
    """Adapters by name, with their ids."""
    return [(site.name_of(path), identity) for identity, path in site.adapters().items()]


def build(site: Site) -> PreviewInputs:
    """The tab, inside the ``with`` of its gr.Tab."""
    tab = _Tab(site)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            tab.fields()
        with gr.Column(scale=3, min_width=300):
            tab.results()
    tab.wire()
    return PreviewInputs(tab.adapter, tab.prompts)


class _Tab:
    """The tab's components and what happens with them."""

    def __init__(self, site: Site) -> None:
        self.site, self.drawings, self.sliding = site, Drawings(), Drawings()

    def fields(self) -> None:
        """What is asked for."""
        with gr.Row(equal_height=True):
            self.adapter = gr.Dropdown(
                choices(self.site),
                value=[],
                multiselect=True,
                label="Adapters",
                elem_id="preview-adapters",
                scale=5,
                info="none: the base model itself",
            )
            self.refresh = gr.Button("Rescan", elem_id="preview-refresh", scale=0, min_width=90, elem_classes="beside")
        self.prompts = gr.Textbox(
            _PROMPT, label="Prompts, one a line", lines=4, max_lines=12, elem_id="preview-prompts", max_length=20_000
        )
        self.strengths = gr.Textbox(
            "0, 0.5, 1",
            label="Strengths",
            elem_id="preview-strengths",
            max_length=400,
            info="numbers, or a range such as 0-1.2(+0.4); 0, the base model, always comes first",
        )
        with gr.Row(equal_height=True):
            self.seed = gr.Number(0, label="Seed", precision=0, elem_id="preview-seed", scale=3)
            self.dice = gr.Button("Random", elem_id="preview-dice", scale=0, min_width=90, elem_classes="beside")
            self.steps = gr.Slider(
                1, self.site.service.limits.steps, 25, step=1, label="Steps", elem_id="preview-steps", scale=6
            )
        with gr.Accordion("More", open=False):
            self.negative = gr.Textbox("", label="Negative prompt", elem_id="preview-negative", max_length=2000)
            self.guidance = gr.Slider(0, 20, 5, step=0.5, label="Guidance", elem_id="preview-guidance")
            size, grain = self.site.service.size, self.site.service.grain
            with gr.Row():
                self.width = gr.Number(size, label="Width", precision=0, step=grain, elem_id="preview-width")
                self.height = gr.Number(size, label="Height", precision=0, step=grain, elem_id="preview-height")
            self.load = gr.UploadButton(
                "Load settings from a picture", file_types=[".png"], type="binary", size="sm", elem_id="preview-load"
            )
        with gr.Row():
            self.generate = gr.Button("Generate", variant="primary", elem_id="preview-generate")
            self.stop = gr.Button("Stop", elem_id="preview-stop")

    def results(self) -> None:
        """What was drawn."""
        self.status, self.gallery, self.sheet = results("preview", "Prompts × strengths")
        self.slider = gr.Slider(
            -1,
            2,
            1,
            step=0.05,
            label="Strength of the first prompt",
            elem_id="preview-slider",
            info="drag, or use the arrow keys; a strength that was drawn before comes at once",
        )
        self.picture = gr.Image(
            label=_SLID,
            format="png",
            interactive=False,
            height=420,
            elem_id="preview-picture",
            elem_classes="large",
            buttons=["download", "fullscreen"],
        )

    def wire(self) -> None:
        """Events. What is shown survives a reload: fields lie in the browser, pictures in the service."""
        asked = [self.adapter, self.prompts, self.strengths, self.seed, self.steps, self.guidance, self.width,
                 self.height, self.negative]  # fmt: skip
        shown, slid = [self.status, self.gallery, self.sheet], [self.slider, *asked]
        listed = [page_of().load, self.refresh.click, *opened()]
        gr.on(listed, lambda: gr.update(choices=choices(self.site)), None, self.adapter, **PRIVATE)
        self.dice.click(lambda: random.randrange(2**32), None, self.seed, **PRIVATE)
        emptied = {"value": None, "label": _SLID}  # what it shows is no longer asked for
        self.generate.click(lambda: gr.update(**emptied), None, self.picture, **PRIVATE)
        drawn = self.generate.click(telling(self.on_generate), asked, shown, concurrency_limit=None, **PRIVATE)
        drawn.success(telling(self.on_slide), slid, self.picture, concurrency_limit=None, **PRIVATE)
        self.stop.click(self.on_stop, None, None, queue=False, **PRIVATE)
        self.slider.change(
            telling(self.on_slide), slid, self.picture, trigger_mode="always_last", concurrency_limit=None, **PRIVATE
        )
        self.load.upload(telling(self.on_load), self.load, [*asked, self.status], **PRIVATE)
        returned = remember("preview", asked, {self.adapter: lambda: choices(self.site)})
        returned.then(self.on_return, asked, shown, **PRIVATE)
        returned.then(self.on_return_slide, slid, self.picture, **PRIVATE)
        page_of().unload(self.on_stop)

    def on_generate(self, request: gr.Request, *fields: Any) -> Iterator[Any]:
        """Draw everything, showing each picture as it comes."""
        job, note = _of_use(Asked(*fields).job(self.site))
        for progress in self.drawings.follow(self.site, job, request):
            progress.note = note
            yield shown_of(self.site, progress)

    def on_stop(self, request: gr.Request) -> None:
        for drawings in (self.drawings, self.sliding):
            drawings.stop(request)

    def on_slide(self, request: gr.Request, strength: float, *fields: Any) -> Any:
        """The first prompt at one strength."""
        job = replace(Asked(*fields).job(self.site), strengths=(float(strength),))
        job = replace(job, rows=job.rows[:1])
        *_, last = self.sliding.follow(self.site, job, request)
        if not last.is_whole:  # stopped, or asked for anew
            return gr.skip()
        picture = file_of(self.site, last, 0, len(job.columns) - 1, f"strength-{strength:g}")
        return gr.update(value=picture, label=_SLID if job.rows[0].acting else _SAME)

    def on_load(self, content: bytes, *_: Any) -> tuple[Any, ...]:
        """The fields as a picture's recipe has them; what it does not say stays. Adapters with a strength of their own
        become tags of the prompts."""
        saved = read_recipe(content)
        lost: list[str] = []
        ids, tags = self._loaded(saved.get("adapters", []), lost)
        by_row = [self._tags(mix, lost) for mix in saved.get("adapters_by_row", [])]
        prompts = [f"{prompt}{tag}" for prompt, tag in zip_longest(saved.get("prompts", []), by_row, fillvalue=tags)]
        strengths = ", ".join(f"{s:g}" for s in saved["strengths"]) if saved.get("strengths") else None
        values = (
            ids if "adapters" in saved or by_row else None, "\n".join(prompts) or None, strengths, saved.get("seed"),
            saved.get("steps"), saved.get("guidance"), saved.get("width"), saved.get("height"), saved.get("negative"),
        )  # fmt: skip
        if lost:
            warn(f"settings are loaded in part: {'; '.join(dict.fromkeys(lost))}")
        line = status_html(f"settings loaded from the picture{', in part' if lost else ''}")
        return (*(gr.skip() if value is None else value for value in values), line)

    def _loaded(self, mix: Sequence[Mapping[str, Any]], lost: list[str]) -> tuple[list[str], str]:
        """The ids of a recipe's adapters, and as tags those with a strength of their own; adds to what is `lost`."""
        plain = [adapter for adapter in mix if adapter["strength"] == 1]
        ids = [self.site.id_of(path) for adapter in plain if (path := self._meant(adapter, lost))]
        return ids, self._tags([adapter for adapter in mix if adapter["strength"] != 1], lost)

    def _tags(self, mix: Sequence[Mapping[str, Any]], lost: list[str]) -> str:
        tags = ""
        for adapter in mix:
            if not isinstance(adapter["strength"], int | float):
                lost.append(f"{adapter['name']} had strengths by block, which Mix has")
            elif path := self._meant(adapter, lost):
                tags += f" <lora:{self.site.name_of(path)}:{adapter['strength']:g}>"
        return tags

    def _meant(self, adapter: Mapping[str, Any], lost: list[str]) -> Path | None:
        """The file that a recipe means: of its name, and of its content if there are several."""
        name, paths = adapter["name"], self.site.named(adapter["name"])
        if len(paths) > 1:
            paths = [path for path in paths if self.site.service.sha256(path) == adapter["sha256"]]
        if not paths:
            lost.append(f"{name} is not here")
        return paths[0] if paths else None

    def on_return(self, *fields: Any) -> tuple[Any, ...]:
        """After a reload: those of the pictures that are still at hand."""
        progress = self._drawn(Asked(*fields))
        return shown_of(self.site, progress) if progress else (gr.skip(),) * 3

    def on_return_slide(self, request: gr.Request, strength: float, *fields: Any) -> Any:
        """After a reload: the picture under the slider, if it is still at hand."""
        progress = self._drawn(replace(Asked(*fields), strengths=f"{strength:g}"))
        return self.on_slide(request, strength, *fields) if progress else gr.skip()

    def _drawn(self, asked: Asked) -> Progress | None:
        """What of a job was drawn before, if anything was."""
        try:
            job, note = _of_use(asked.job(self.site))
            cells = self.site.service.drawn(job)
        except (SdLoraError, TypeError, ValueError):  # a browser may have kept fields for long
            return None
        if not cells:
            return None
        images = {(cell.row, cell.column): cell.image for cell in cells}
        progress = Progress(job, images, is_done=True, hashes=cells[0].hashes, note=note)
        of_all = counted(len(images)) if progress.is_whole else f"{len(images)} of {progress.total} pictures"
        progress.line = f"{of_all}, drawn before"
        return progress


def _of_use(job: PreviewJob) -> tuple[PreviewJob, str]:
    """`job`, without strengths if there is no adapter that they could act on; and what is to be said of that."""
    if len(job.columns) == 1 or any(row.acting for row in job.rows):
        return job, ""
    return replace(job, strengths=()), "without an adapter strengths have no effect"
