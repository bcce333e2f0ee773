"""The Compare tab: two pictures under one slider, and every adapter that a run kept, at every strength."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from sd_lora.errors import ConfigError, SdLoraError
from sd_lora.preview.job import MixedAdapter, PreviewJob, PreviewRow
from sd_lora.preview.prompts import parse_strengths

from ..bases import example_prompts
from ..browser_state import page_of, remember, tab_selected
from ..choices import always_fresh, newest_first
from ..components import html_field, on, prompt_field, seed_field, side_by_side, start_and_stop, strength_field
from ..phrases import PhraseOffer
from ..preview_fields import untagged, whole_number
from ..preview_progress import NOTHING, Drawings, Progress, file_of, result_components
from ..site import Site

_BASE = ("the base model", "")
_STEPS = 25


def build(site: Site) -> None:
    """The tab, inside the ``with`` of its gr.Tab."""
    gr.Markdown("### Two pictures, one slider")
    _Pair(site)
    gr.Markdown("### A run: every checkpoint it kept, at every strength")
    _Run(site)


class _Pair:
    """Two pictures from the same noise, each with any adapter at any strength."""

    def __init__(self, site: Site) -> None:
        self.site, self.drawings = site, Drawings()
        side_by_side(self._fields, self._results)
        inputs = [self.prompt, self.seed, *self.left, *self.right]
        outputs = [self.status, self.slider, self.right[0]]
        options = {"inputs": inputs, "outputs": outputs, "concurrency_limit": None}
        on(self.compare.click, self.on_compare, **options)
        on([self.left[1].release, self.right[1].release], self.on_compare, **options, trigger_mode="always_last")
        adapters = [self.left[0], self.right[0]]
        always_fresh(self.left[0], self._adapters)
        on([self.right[0].focus, *tab_selected()], self.on_right, self.right[0], self.right[0])
        self.phrases.wire(self.prompt, adapters, lambda *ids: filter(None, ids))
        remember("compare", inputs, dict.fromkeys(adapters, self._adapters))
        page_of().unload(self.drawings.stop)

    def _fields(self) -> None:
        self.prompt = prompt_field("compare-prompt", example_prompts(self.site.base)[0])
        self.phrases = PhraseOffer(self.site, "compare-phrases")
        self.seed = seed_field("compare")
        self.left = self._side("Left", "", 0.0)
        self.right = self._side("Right", self._newest(), 1.0)
        self.compare = gr.Button("Compare", variant="primary", elem_id="compare-draw")

    def _side(self, name: str, adapter: str | None, strength: float) -> tuple[gr.Dropdown, gr.Slider]:
        elem_id = f"compare-{name.lower()}"
        with gr.Row():
            field = gr.Dropdown(self._adapters(), value=adapter, label=name, elem_id=elem_id)
            return field, strength_field(strength, label="Strength", elem_id=f"{elem_id}-strength")

    def _results(self) -> None:
        self.status = html_field("compare-status", NOTHING)
        self.slider = gr.ImageSlider(
            label="Left ↔ right",
            format="png",
            interactive=False,
            elem_id="compare-slider",
            elem_classes="large",
            type="filepath",
        )

    def _adapters(self) -> list[tuple[str, str]]:
        return [_BASE, *self.site.adapter_choices()]

    def _newest(self) -> str | None:
        """The id of the adapter that was written last; None if there is none."""
        return next((identity for identity, _ in newest_first(self.site.adapters())), None)

    def on_right(self, chosen: str | None) -> Any:
        """The choices of the right side; while nothing is chosen there, the newest adapter."""
        return gr.update(choices=self._adapters(), value=self._newest() if chosen is None else chosen)

    def on_compare(self, request: gr.Request, prompt: str, seed: float, *sides: Any) -> Iterator[tuple[Any, ...]]:
        """The progress, and at the end the two pictures as files. Two base models are no comparison: the newest adapter
        is then on the right."""
        left, strength, right, other = sides
        right, shown = right or None, gr.skip()
        if not left and not right:
            if (right := self._newest()) is None:
                raise ConfigError("there is no LoRA yet to compare with the base model; train one first")
            shown = gr.update(choices=self._adapters(), value=right)
        job = self._job(prompt, seed, ((left, strength), (right, other)))
        try:
            for progress in self.drawings.follow(self.site, job, request):
                if not progress.is_done:
                    yield progress.status(), gr.skip(), shown
                elif progress.is_complete:
                    yield progress.status(), tuple(self._file(progress, row) for row in (0, 1)), shown
                else:  # stopped by a newer one; Gradio repeats the last update when an event ends, so that is empty
                    yield gr.skip(), gr.skip(), gr.skip()
        except SdLoraError:
            yield NOTHING, gr.skip(), gr.skip()
            raise

    def _job(self, prompt: str, seed: Any, sides: Sequence[Sequence[Any]]) -> PreviewJob:
        """A row for each side: an adapter with its strength, or the base model."""
        plain = untagged(prompt)
        mixes = [
            (MixedAdapter(self.site.adapter(identity), float(strength)),) if identity and strength else ()
            for identity, strength in sides
        ]
        rows = tuple(PreviewRow.of(plain, mix) for mix in mixes)
        return PreviewJob(rows, (1.0,), seed=whole_number("seed", seed), steps=_STEPS)

    def _file(self, progress: Progress, row: int) -> str:
        mix = progress.job.rows[row].mix
        return file_of(self.site, progress, row, 1, f"strength-{mix[0].strength if mix else 0:g}")


class _Run:
    """Rows: the adapters a run kept, by step; columns: strengths."""

    def __init__(self, site: Site) -> None:
        self.site, self.drawings = site, Drawings()
        side_by_side(self._fields, self._results)
        always_fresh(self.run, self._runs)
        self.phrases.wire(self.prompt, [self.run], self._adapter_of)
        inputs = [self.run, self.prompt, self.strengths]
        on(self.generate.click, self.on_draw, inputs, self.results, concurrency_limit=None)
        on(self.stop.click, self.drawings.stop, queue=False)
        remember("compare-run", inputs, {self.run: self._runs})
        page_of().unload(self.drawings.stop)

    def _fields(self) -> None:
        self.run = gr.Dropdown(self._runs(), label="Run", elem_id="compare-run")
        self.prompt = prompt_field("compare-run-prompt", example_prompts(self.site.base)[0])
        self.phrases = PhraseOffer(self.site, "compare-run-phrases")
        self.strengths = gr.Textbox("0, 0.5, 1", label="Strengths", elem_id="compare-run-strengths")
        self.generate, self.stop = start_and_stop("compare-run", "Draw the grid")

    def _results(self) -> None:
        self.results = [*result_components("compare-run", "Checkpoints × strengths")]

    def _runs(self) -> list[tuple[str, str]]:
        return [(path.name, identity) for identity, path in self.site.run_folders().items()]

    def _adapter_of(self, run: str | None) -> list[str]:
        """The ids of the final adapter of a run, whose phrase is that of all it kept."""
        folder = self.site.run_folders().get(run or "")
        return [self.site.id_of(folder / "adapter.safetensors")] if folder else []

    def on_draw(self, request: gr.Request, run: str, prompt: str, strengths: str) -> Iterator[Any]:
        if not run:
            raise ConfigError("no run is chosen; train one, or choose one from the list")
        job = PreviewJob(rows_of(self.site.run(run), untagged(prompt)), parse_strengths(strengths or ""), steps=_STEPS)
        yield from self.drawings.show(self.site, job, request)


def rows_of(run: Path, prompt: str) -> tuple[PreviewRow, ...]:
    """A row for each adapter that the run in `run` kept, in the order of steps, and one for its final adapter.

    Raises ConfigError if it kept none.
    """
    kept = sorted((run / "adapters").glob("*.safetensors"))
    files = [*kept, *(path for path in sorted(run.glob("adapter*.safetensors")) if path.is_file())]
    if not files:
        raise ConfigError(
            f"{run.name} has no LoRA yet; wait until it ends, or set training.save_every to keep some before that"
        )
    return tuple(PreviewRow.of(prompt, (MixedAdapter(path),), _label(path)) for path in files)


def _label(path: Path) -> str:
    """``step-000100`` → ``step 100``; averages by their name."""
    name, _, step = path.stem.partition("-")
    if name == "step" and step[:6].isdigit():
        return f"step {int(step[:6])}{step[6:].replace('-', ' ')}"
    return step or "at the end"
