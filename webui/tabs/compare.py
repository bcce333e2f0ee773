"""The Compare tab: two pictures under one slider, and every adapter that a run kept at every strength."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from sd_lora.errors import ConfigError, SdLoraError
from sd_lora.preview.job import MixedAdapter, PreviewJob, PreviewRow
from sd_lora.preview.prompts import parse_strengths, split_tags

from ..browser_state import opened, page_of, remember
from ..messages import PRIVATE, telling
from ..preview_fields import whole
from ..preview_progress import NOTHING, Drawings, Progress, file_of, results
from ..site import Site
from .preview import choices

_BASE = ("the base model", "")
_STEPS = 25


def build(site: Site) -> None:
    """The tab, inside the ``with`` of its gr.Tab."""
    gr.Markdown("### Two pictures, one slider")
    _Pair(site)
    gr.Markdown("### A run: every adapter it kept, at every strength")
    _Run(site)


class _Pair:
    """Two cells of any adapters and strengths, from the same noise."""

    def __init__(self, site: Site) -> None:
        self.site, self.drawings = site, Drawings()
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                prompt = gr.Textbox(
                    "a big red house by the sea", label="Prompt", elem_id="compare-prompt", max_length=2000
                )
                seed = gr.Number(0, label="Seed", precision=0, elem_id="compare-seed")
                sides = [self._side("Left", "", 0.0), self._side("Right", next(iter(site.adapters()), ""), 1.0)]
                compare = gr.Button("Compare", variant="primary", elem_id="compare-draw")
            with gr.Column(scale=3, min_width=300):
                status = gr.HTML(NOTHING, elem_id="compare-status", padding=False)
                slider = gr.ImageSlider(
                    label="Left ↔ right",
                    format="png",
                    interactive=False,
                    elem_id="compare-slider",
                    elem_classes="large",
                    type="filepath",
                )
        inputs, shown = [prompt, seed, *sides[0], *sides[1]], [status, slider]
        compare.click(telling(self.on_compare), inputs, shown, concurrency_limit=None, **PRIVATE)
        gr.on(
            [sides[0][1].release, sides[1][1].release],
            telling(self.on_compare),
            inputs,
            shown,
            trigger_mode="always_last",
            concurrency_limit=None,
            **PRIVATE,
        )
        listed = {adapter: self._adapters for adapter, _ in sides}
        for adapter in listed:
            fresh = [adapter.focus, *opened()]
            gr.on(fresh, lambda: gr.update(choices=self._adapters()), None, adapter, **PRIVATE)
        remember("compare", inputs, listed)
        page_of().unload(self.drawings.stop)

    def _side(self, name: str, adapter: str, strength: float) -> tuple[gr.Dropdown, gr.Slider]:
        with gr.Row():
            which = gr.Dropdown(self._adapters(), value=adapter, label=name, elem_id=f"compare-{name.lower()}")
            how = gr.Slider(-1, 2, strength, step=0.05, label="Strength", elem_id=f"compare-{name.lower()}-strength")
        return which, how

    def _adapters(self) -> list[tuple[str, str]]:
        return [_BASE, *choices(self.site)]

    def on_compare(self, request: gr.Request, prompt: str, seed: float, *sides: Any) -> Iterator[tuple[Any, Any]]:
        """How it goes, and in the end the two pictures as files."""
        if not sides[0] and not sides[2]:
            raise ConfigError("both sides are the base model; choose an adapter for one of them")
        job = self._job(prompt, seed, (sides[:2], sides[2:]))
        try:
            for progress in self.drawings.follow(self.site, job, request):
                if not progress.is_done:
                    yield progress.status(), gr.skip()
                elif progress.is_whole:
                    yield progress.status(), tuple(self._file(progress, row) for row in (0, 1))
                else:  # asked for anew: what an event said last, or nothing at all, is shown when it ends
                    yield gr.skip(), gr.skip()
        except SdLoraError:
            yield NOTHING, gr.skip()
            raise

    def _job(self, prompt: str, seed: Any, sides: Sequence[Sequence[Any]]) -> PreviewJob:
        """A row for each side, an adapter with its strength or the base model."""
        plain = _untagged(prompt)
        mixes = [
            (MixedAdapter(self.site.adapter(identity), float(strength)),) if identity and strength else ()
            for identity, strength in sides
        ]
        rows = tuple(PreviewRow(plain, mix) for mix in mixes)
        return PreviewJob(rows, (1.0,), seed=whole("seed", seed), steps=_STEPS)

    def _file(self, progress: Progress, row: int) -> str:
        mix = progress.job.rows[row].mix
        return file_of(self.site, progress, row, 1, f"strength-{mix[0].strength if mix else 0:g}")


class _Run:
    """Rows: the adapters a run kept, by step; columns: strengths."""

    def __init__(self, site: Site) -> None:
        self.site, self.drawings = site, Drawings()
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                run = gr.Dropdown(self._runs(), label="Run", elem_id="compare-run")
                prompt = gr.Textbox(
                    "a big red house by the sea", label="Prompt", elem_id="compare-run-prompt", max_length=2000
                )
                strengths = gr.Textbox("0, 0.5, 1", label="Strengths", elem_id="compare-run-strengths")
                with gr.Row():
                    generate = gr.Button("Draw the grid", variant="primary", elem_id="compare-run-draw")
                    stop = gr.Button("Stop", elem_id="compare-run-stop")
            with gr.Column(scale=3, min_width=300):
                shown = results("compare-run", "Adapters × strengths")
        gr.on([run.focus, *opened()], lambda: gr.update(choices=self._runs()), None, run, **PRIVATE)
        asked = [run, prompt, strengths]
        generate.click(telling(self.on_draw), asked, [*shown], concurrency_limit=None, **PRIVATE)
        stop.click(self.drawings.stop, None, None, queue=False, **PRIVATE)
        remember("compare-run", asked, {run: self._runs})
        page_of().unload(self.drawings.stop)

    def _runs(self) -> list[tuple[str, str]]:
        return [(path.name, identity) for identity, path in self.site.run_folders().items()]

    def on_draw(self, request: gr.Request, run: str, prompt: str, strengths: str) -> Iterator[Any]:
        if not run:
            raise ConfigError("no run is chosen; train one, or choose one from the list")
        job = PreviewJob(rows_of(self.site.run(run), _untagged(prompt)), parse_strengths(strengths or ""), steps=_STEPS)
        yield from self.drawings.show(self.site, job, request)


def _untagged(prompt: str | None) -> str:
    plain, tags = split_tags(prompt or "")
    if tags:
        raise ConfigError(f"the prompt names {tags[0][0]} itself; choose adapters in the lists instead")
    return plain


def rows_of(run: Path, prompt: str) -> tuple[PreviewRow, ...]:
    """A row for each adapter that the run in `run` kept, in the order of steps, and one for its last.

    Raises ConfigError if it kept none.
    """
    kept = sorted((run / "adapters").glob("*.safetensors"))
    files = [*kept, *(path for path in sorted(run.glob("adapter*.safetensors")) if path.is_file())]
    if not files:
        raise ConfigError(
            f"{run.name} has no adapter yet; wait until it ends, or set training.save_every to keep some on the way"
        )
    return tuple(PreviewRow(prompt, (MixedAdapter(path),), _label(path)) for path in files)


def _label(path: Path) -> str:
    """``step-000100`` → ``step 100``; averages by their name."""
    name, _, step = path.stem.partition("-")
    if name == "step" and step[:6].isdigit():
        return f"step {int(step[:6])}{step[6:].replace('-', ' ')}"
    return step or "at the end"
