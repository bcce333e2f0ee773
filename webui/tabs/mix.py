"""The Mix tab: several adapters at once, each with its own strengths, and the mix as text for other programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from sd_lora.adapters.summary import AdapterSummary, local, read_summary
from sd_lora.errors import ConfigError, SdLoraError
from sd_lora.preview.job import MixedAdapter, PreviewJob, PreviewRow

from .. import components as ui
from .. import snippets
from ..bases import example_prompts
from ..browser_state import kept, page_of, remember
from ..choices import adapters_field
from ..components import on
from ..messages import status_html
from ..phrases import PhraseOffer, missing, with_phrases
from ..preview_fields import untagged, whole_number
from ..preview_progress import Drawings, result_components
from ..site import Site
from ..snippets import Scene, Share

_MOST = 6
_COLUMNS = (0.0, 0.5, 1.0)
_ABSURD = 1e9  # a kept number beyond it is dropped; a smaller one that is out of range is reported
#: in the browser: the strengths by adapter, updated with those of one adapter's sliders
_MERGE = """(known, ...strengths) => {
  const parts = %s;
  return { ...known, [%s]: Object.fromEntries(parts.map((part, i) => [part, strengths[i]])) };
}"""
#: values of the sliders by adapter id and part
Values = Mapping[str, Mapping[str, float]]


def build(site: Site) -> None:
    """The tab, inside the ``with`` of its gr.Tab."""
    tab = _Tab(site)
    ui.side_by_side(tab.fields, tab.results)
    tab.wire()


class _Tab:
    """The tab's components and their events."""

    def __init__(self, site: Site) -> None:
        self.site, self.drawings = site, Drawings()

    # ---- components

    def fields(self) -> None:
        """What a visitor fills in; with a group of sliders for each chosen adapter."""
        self.values = kept("mix-values", {})
        self.adapters = adapters_field("mix", self.site, f"up to {_MOST}", max_choices=_MOST)
        # The chosen ids as text: a list reports a change at each message of the server, and sliders that are built
        # again lose what was moved meanwhile; a text reports a change only if it is different.
        self.chosen = gr.Textbox("[]", visible="hidden", elem_id="mix-chosen")
        on(self.adapters.change, None, self.adapters, self.chosen, js="(ids) => JSON.stringify(ids ?? [])")

        @gr.render([self.chosen, self.values], triggers=[self.chosen.change], show_progress="hidden")
        def sliders(ids: Any, values: Any) -> None:
            for number, identity in enumerate(_ids(ids)[:_MOST]):
                self._sliders_of(number, identity, _kept_strengths(values, identity))

        self.prompt = ui.prompt_field("mix-prompt", example_prompts(self.site.base)[0], lines=2)
        self.phrases = PhraseOffer(self.site, "mix-triggers")
        with gr.Row():
            self.seed = ui.seed_field("mix", scale=2)
            self.steps = ui.steps_field("mix", self.site.service.limits.steps, scale=3)
        self.generate, self.stop = ui.start_and_stop("mix")

    def _sliders_of(self, number: int, identity: str, values: Mapping[str, float]) -> None:
        """The strengths of one adapter, and what is wrong with it."""
        try:
            path = self.site.adapter(identity)
        except ConfigError:
            gr.HTML(status_html("a chosen LoRA no longer exists"), padding=False)
            return
        summary, problem = read_summary(path), self._misfit(path)
        sliders: dict[str, gr.Slider] = {}

        def slider(part: str, label: str, **options: Any) -> None:
            options |= {"label": label, "key": (identity, part), "interactive": True}
            sliders[part] = ui.strength_field(values.get(part, 1.0), **options)

        with gr.Group(elem_id=f"mix-adapter-{number}"):
            if problem:
                gr.HTML(status_html(problem), padding=True)
            slider("strength", self.site.name_of(path), elem_id=f"mix-strength-{number}")
            with gr.Accordion("Parts", open=False, elem_id=f"mix-parts-{number}", key=(identity, "parts")):
                gr.HTML(status_html("each is multiplied by the strength above"), padding=True)
                for row in _parts(summary):
                    with gr.Row():
                        for part, label in row:
                            slider(part, label, min_width=120)
                if "unet" in summary.parts:
                    gr.HTML(status_html("this LoRA also changes modules outside of blocks: no strengths by block"))
        # in the browser: a round trip to the server would undo what was moved meanwhile
        script = _MERGE % (json.dumps([*sliders]), json.dumps(identity))
        on([one.change for one in sliders.values()], None, [self.values, *sliders.values()], self.values, js=script)

    def results(self) -> None:
        """What was drawn, and the mix for other programs."""
        self.outputs = [*result_components("mix", "Base model | mix at 0.5 | mix at 1")]
        self.codes: list[Any] = []
        with gr.Tabs():
            self._code("diffusers", "diffusers", "python")
            self._code("A1111, Forge", "a1111", None)
            self._code("ComfyUI", "comfyui", "json")

    def _code(self, title: str, name: str, language: Literal["python", "json"] | None) -> None:
        with gr.Tab(title, elem_id=f"mix-tab-{name}"):
            code = gr.Code(
                "",
                language=language,
                show_label=False,
                interactive=False,
                wrap_lines=True,
                max_lines=24,
                elem_id=f"mix-{name}",
                buttons=["copy"],
            )
            self.codes += [code, ui.html_field(f"mix-{name}-notes", status_html("choose what to mix"))]

    def wire(self) -> None:
        inputs = [self.chosen, self.values, self.prompt, self.seed, self.steps]
        remember("mix", [self.adapters, *inputs[2:]], {self.adapters: self.site.adapter_choices})
        on([field.change for field in inputs], self.on_snippets, inputs, self.codes, trigger_mode="always_last")
        self.phrases.wire(self.prompt, [self.chosen], lambda chosen: _ids(chosen)[:_MOST])
        on(self.generate.click, self.on_generate, inputs, self.outputs, concurrency_limit=None)
        on(self.stop.click, self.drawings.stop, queue=False)
        page_of().unload(self.drawings.stop)

    # ---- events

    def on_snippets(self, ids: Any, values: Values | None, prompt: str, seed: Any, steps: Any) -> tuple[str, ...]:
        """The mix as text for other programs, and what each of them cannot do."""
        service = self.site.service
        try:
            shares, numbers = self._shares(ids, values), _numbers(seed, steps)
        except SdLoraError as error:
            return ("", status_html(str(error))) * 3
        text = with_phrases(prompt, missing(prompt, self.phrases.summaries(_ids(ids))))
        scene = Scene(text, base=service.base, size=service.size, **numbers)
        made = [program(shares, scene) for program in (snippets.diffusers, snippets.a1111, snippets.comfyui)]
        return tuple(part for one in made for part in (one.text, "".join(map(status_html, one.notes))))

    def on_generate(
        self, request: gr.Request, ids: Any, values: Values | None, prompt: str, seed: Any, steps: Any
    ) -> Iterator[Any]:
        """Draw the base model and the mix at half and full strength, showing each picture as it comes."""
        yield from self.drawings.show(self.site, self.job(ids, values, prompt, seed, steps), request)

    # ---- from fields to a job

    def job(self, ids: Any, values: Values | None, prompt: str, seed: Any, steps: Any) -> PreviewJob:
        """The job. ConfigError if no adapter is chosen, or too many, or anything is not a number."""
        shares = self._shares(ids, values)
        if not shares:
            raise ConfigError("no LoRA is chosen; choose at least one to mix")
        plain = untagged(prompt)
        paths = [self.site.adapter(identity) for identity in _ids(ids)]
        problems = [problem for path in paths if (problem := self._misfit(path))]
        if problems:
            raise ConfigError("; ".join(problems))
        mix = tuple(MixedAdapter(path, one.strength) for path, one in zip(paths, shares, strict=True))
        label = " + ".join(f"{one.name} × {one.unet:g}" for one in shares)
        return PreviewJob((PreviewRow.of(plain, mix, label),), _COLUMNS, **_numbers(seed, steps))

    def _shares(self, ids: Any, values: Values | None) -> list[Share]:
        chosen = _ids(ids)
        if len(chosen) > _MOST:
            raise ConfigError(f"{len(chosen)} LoRAs are chosen; at most {_MOST} are mixed")
        paths = [self.site.adapter(identity) for identity in chosen]
        names = snippets.file_names(self.site.name_of(path) for path in paths)
        shares = []
        for identity, path, name in zip(chosen, paths, names, strict=True):
            summary, strengths = read_summary(path), _kept_strengths(values, identity)
            parts = {part for row in _parts(summary) for part, _ in row}  # the file may have been replaced
            factors = {part: one for part, one in strengths.items() if part in parts}
            shares.append(snippets.share(name, strengths.get("strength", 1.0), factors, summary))
        return shares

    def _misfit(self, path: Path) -> str:
        """Why the adapter cannot be used, without its place on this machine; empty if it can."""
        why = local(self.site.service.misfit(path), path)
        return f"{self.site.name_of(path)} cannot be used on {self.site.service.base}: {why}" if why else ""


def _parts(summary: AdapterSummary) -> list[list[tuple[str, str]]]:
    """Rows of the components and blocks that the adapter has, with their labels."""
    inner = [part.removeprefix("unet.") for part in summary.parts if part.startswith("unet.")]
    has_text = any(part.startswith("text_encoder") for part in summary.parts)
    rows = [[("unet", "UNet"), *([("text_encoder", "Text encoder")] if has_text else [])]]
    if "unet" not in summary.parts:  # modules outside of the blocks cannot have strengths by block
        rows.append([(side, side) for side in dict.fromkeys(block.partition(".")[0] for block in inner)])
        rows.append([(block, block.replace(".block", "")) for block in inner if "." in block])
    return rows


def _numbers(seed: Any, steps: Any) -> dict[str, Any]:
    return {"seed": whole_number("seed", seed), "steps": whole_number("steps", steps)}


def _ids(chosen: Any) -> list[str]:
    """The ids, without duplicates, from a list or from its text as JSON."""
    try:
        ids = json.loads(chosen) if isinstance(chosen, str) else chosen
    except (ValueError, RecursionError):
        ids = []
    return list(dict.fromkeys(map(str, ids))) if isinstance(ids, list) else []


def _kept_strengths(values: Any, identity: str) -> dict[str, float]:
    """The strengths by part that a browser has kept for an adapter; what is not a number is left out."""
    parts = values.get(identity) if isinstance(values, Mapping) else None
    items = parts.items() if isinstance(parts, Mapping) else ()
    numbers = {str(part): one for part, one in items if isinstance(one, int | float)}
    return {part: float(one) for part, one in numbers.items() if -_ABSURD < one < _ABSURD}
