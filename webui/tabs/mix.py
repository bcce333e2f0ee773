"""The Mix tab: several adapters at once, each with strengths of its own, and the mix as text for other programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from sd_lora.adapters.summary import AdapterSummary, local, read_summary
from sd_lora.errors import ConfigError, SdLoraError
from sd_lora.preview.job import MixedAdapter, PreviewJob, PreviewRow
from sd_lora.preview.prompts import split_tags

from .. import snippets
from ..browser_state import kept, opened, page_of, remember
from ..messages import PRIVATE, status_html, telling
from ..preview_fields import whole
from ..preview_progress import Drawings, results
from ..site import Site
from ..snippets import STRONGEST, WEAKEST, Scene, Share, Snippet
from .preview import choices

_MOST = 6
_COLUMNS = (0.0, 0.5, 1.0)
_ABSURD = 1e9  # what is less, but too much, is told
_PROMPT = "a big red house by the sea"
#: the strengths by adapter, with those of one adapter's sliders
_MERGE = """(known, ...strengths) => {
  const parts = %s;
  return { ...known, [%s]: Object.fromEntries(parts.map((part, i) => [part, strengths[i]])) };
}"""
#: values of the sliders by adapter id and part
Values = Mapping[str, Mapping[str, float]]


def build(site: Site) -> None:
    """The tab, inside the ``with`` of its gr.Tab."""
    tab = _Tab(site)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            tab.fields()
        with gr.Column(scale=3, min_width=300):
            tab.results()
    tab.wire()


class _Tab:
    """The tab's components and what happens with them."""

    def __init__(self, site: Site) -> None:
        self.site, self.drawings = site, Drawings()

    # ---- what is shown

    def fields(self) -> None:
        """What is asked for; a group of sliders for each adapter that is chosen."""
        self.values = kept("mix-values", {})
        with gr.Row(equal_height=True):
            self.adapters = gr.Dropdown(
                choices(self.site),
                value=[],
                multiselect=True,
                max_choices=_MOST,
                label="Adapters",
                scale=5,
                elem_id="mix-adapters",
                info=f"up to {_MOST}",
            )
            self.refresh = gr.Button("Rescan", elem_id="mix-refresh", scale=0, min_width=90, elem_classes="beside")

        # what is chosen, as text: a list says that it has changed at each message of the server, and sliders that are
        # made anew lose what is done meanwhile; a text says so only if it is another
        self.chosen = gr.Textbox("[]", visible="hidden", elem_id="mix-chosen")
        self.adapters.change(None, self.adapters, self.chosen, js="(ids) => JSON.stringify(ids ?? [])", **PRIVATE)

        @gr.render([self.chosen, self.values], triggers=[self.chosen.change], show_progress="hidden")
        def sliders(ids: Any, values: Any) -> None:
            for number, identity in enumerate(_ids(ids)[:_MOST]):
                self._sliders_of(number, identity, _kept(values, identity))

        self.prompt = gr.Textbox(_PROMPT, label="Prompt", lines=2, elem_id="mix-prompt", max_length=2000)
        self.triggers = gr.Button("", size="sm", visible=False, elem_id="mix-triggers")
        with gr.Row():
            self.seed = gr.Number(0, label="Seed", precision=0, elem_id="mix-seed", scale=2)
            self.steps = gr.Slider(
                1, self.site.service.limits.steps, 25, step=1, label="Steps", elem_id="mix-steps", scale=3
            )
        with gr.Row():
            self.generate = gr.Button("Generate", variant="primary", elem_id="mix-generate")
            self.stop = gr.Button("Stop", elem_id="mix-stop")

    def _sliders_of(self, number: int, identity: str, values: Mapping[str, float]) -> None:
        """The strengths of one adapter, and what is wrong with it."""
        try:
            path = self.site.adapter(identity)
        except ConfigError:
            gr.HTML(status_html("an adapter that was chosen is not there any more"), padding=False)
            return
        summary, why = read_summary(path), self._misfit(path)
        made: dict[str, gr.Slider] = {}

        def slider(part: str, label: str, **more: Any) -> None:
            made[part] = gr.Slider(
                WEAKEST,
                STRONGEST,
                values.get(part, 1.0),
                step=0.05,
                label=label,
                key=(identity, part),
                interactive=True,
                **more,
            )

        with gr.Group(elem_id=f"mix-adapter-{number}"):
            if why:
                gr.HTML(status_html(why), padding=True)
            slider("strength", self.site.name_of(path), elem_id=f"mix-strength-{number}")
            with gr.Accordion("Parts", open=False, elem_id=f"mix-parts-{number}", key=(identity, "parts")):
                gr.HTML(status_html("each is multiplied with the strength above"), padding=True)
                _sliders_of_parts(summary, slider)

        # in the browser: on its way to the server and back it would undo what was moved meanwhile
        gr.on(
            [one.change for one in made.values()],
            None,
            [self.values, *made.values()],
            self.values,
            js=_MERGE % (json.dumps(list(made)), json.dumps(identity)),
            **PRIVATE,
        )

    def results(self) -> None:
        """What was drawn, and the mix for other programs."""
        self.status, self.gallery, self.sheet = results("mix", "Base model | mix at 0.5 | mix at 1")
        self.codes: list[Any] = []
        shown = iter(self.on_snippets([], {}, *(field.value for field in (self.prompt, self.seed, self.steps))))
        with gr.Tabs():
            self._code("diffusers", "diffusers", "python", shown)
            self._code("A1111, Forge", "a1111", None, shown)
            self._code("ComfyUI", "comfyui", "json", shown)

    def _code(self, title: str, name: str, language: Literal["python", "json"] | None, shown: Iterator[str]) -> None:
        with gr.Tab(title, elem_id=f"mix-tab-{name}"):
            code = gr.Code(
                next(shown),
                language=language,
                show_label=False,
                interactive=False,
                wrap_lines=True,
                max_lines=24,
                elem_id=f"mix-{name}",
                buttons=["copy"],
            )
            self.codes += [code, gr.HTML(next(shown), elem_id=f"mix-{name}-notes", padding=False)]

    def wire(self) -> None:
        asked = [self.chosen, self.values, self.prompt, self.seed, self.steps]
        listed = [self.refresh.click, *opened()]
        gr.on(listed, lambda: gr.update(choices=choices(self.site)), None, self.adapters, **PRIVATE)
        remember(
            "mix", [self.adapters, self.prompt, self.seed, self.steps], {self.adapters: lambda: choices(self.site)}
        )
        gr.on(
            [field.change for field in asked],
            telling(self.on_snippets),
            asked,
            self.codes,
            trigger_mode="always_last",
            **PRIVATE,
        )
        self.chosen.change(telling(self.on_choice), self.chosen, self.triggers, **PRIVATE)
        self.triggers.click(telling(self.on_triggers), [self.chosen, self.prompt], self.prompt, **PRIVATE)
        self.generate.click(
            telling(self.on_generate), asked, [self.status, self.gallery, self.sheet], concurrency_limit=None, **PRIVATE
        )
        self.stop.click(self.drawings.stop, None, None, queue=False, **PRIVATE)
        page_of().unload(self.drawings.stop)

    # ---- what happens

    def on_choice(self, ids: Any) -> Any:
        """The offer of the phrases that the chosen adapters were trained on."""
        phrases = self._phrases(ids)
        label = f"Add to the prompt: {', '.join(phrases)}"
        return gr.update(value=label[:120], visible=bool(phrases))

    def on_triggers(self, ids: Any, prompt: str) -> str:
        """The prompt with those of the phrases that it does not hold."""
        prompt = (prompt or "").strip()
        missing = [phrase for phrase in self._phrases(ids) if phrase.casefold() not in prompt.casefold()]
        return ", ".join(part for part in (prompt.rstrip(", "), *missing) if part)

    def on_snippets(self, ids: Any, values: Values | None, prompt: str, seed: Any, steps: Any) -> tuple[str, ...]:
        """The mix as text for other programs, and what those cannot do of it."""
        try:
            shares = self._shares(ids, values)
            scene = Scene(
                (prompt or "").strip(),
                whole("seed", seed),
                self.site.service.base,
                self.site.service.size,
                whole("steps", steps),
            )
        except SdLoraError as error:
            return ("", status_html(str(error))) * 3
        made = [kind(shares, scene) for kind in (snippets.diffusers, snippets.a1111, snippets.comfyui)]
        return tuple(part for snippet in made for part in (snippet.text, _notes(snippet)))

    def on_generate(
        self, request: gr.Request, ids: Any, values: Values | None, prompt: str, seed: Any, steps: Any
    ) -> Iterator[Any]:
        """Draw the base model and the mix at half and whole strength, showing each picture as it comes."""
        job = self.job(ids, values, prompt, seed, steps)
        yield from self.drawings.show(self.site, job, request)

    # ---- what is asked for

    def job(self, ids: Any, values: Values | None, prompt: str, seed: Any, steps: Any) -> PreviewJob:
        """The job. ConfigError if no adapter is chosen, or too many, or anything is no number."""
        shares = self._shares(ids, values)
        if not shares:
            raise ConfigError("no adapter is chosen; choose at least one to mix")
        plain, tags = split_tags(prompt or "")
        if tags:
            raise ConfigError(f"the prompt names {tags[0][0]} itself; choose adapters in the list instead")
        paths = [self.site.adapter(identity) for identity in _ids(ids)]
        wrong = [why for path in paths if (why := self._misfit(path))]
        if wrong:
            raise ConfigError("; ".join(wrong))
        mix = tuple(MixedAdapter(path, one.strength) for path, one in zip(paths, shares, strict=True))
        label = " + ".join(f"{one.name} × {one.unet:g}" for one in shares)
        row = PreviewRow(plain, mix, label)
        return PreviewJob((row,), _COLUMNS, seed=whole("seed", seed), steps=whole("steps", steps))

    def _shares(self, ids: Any, values: Values | None) -> list[Share]:
        chosen = _ids(ids)
        if len(chosen) > _MOST:
            raise ConfigError(f"{len(chosen)} adapters are chosen; at most {_MOST} are mixed")
        paths = [self.site.adapter(identity) for identity in chosen]
        names = snippets.file_names(self.site.name_of(path) for path in paths)
        shares = []
        for identity, path, name in zip(chosen, paths, names, strict=True):
            summary, numbers = read_summary(path), _kept(values, identity)
            known = {part for row in _parts(summary) for part, _ in row}  # another file may lie there by now
            factors = {part: one for part, one in numbers.items() if part in known}
            shares.append(snippets.share(name, numbers.get("strength", 1.0), factors, summary))
        return shares

    def _misfit(self, path: Path) -> str:
        """Why the adapter cannot be used, without where it lies on this machine."""
        why = local(self.site.service.misfit(path), path)
        return f"{self.site.name_of(path)} cannot be used on {self.site.service.base}: {why}" if why else ""

    def _phrases(self, ids: Any) -> list[str]:
        phrases = [read_summary(self.site.adapter(identity)).phrase for identity in _ids(ids)[:_MOST]]
        return list(dict.fromkeys(phrase for phrase in phrases if phrase))


def _parts(summary: AdapterSummary) -> list[list[tuple[str, str]]]:
    """Rows of the components and blocks that the adapter has, with their labels."""
    inner = [part.removeprefix("unet.") for part in summary.parts if part.startswith("unet.")]
    has_text = any(part.startswith("text_encoder") for part in summary.parts)
    rows = [[("unet", "UNet"), *([("text_encoder", "Text encoder")] if has_text else [])]]
    if "unet" not in summary.parts:  # with modules outside of its blocks, these have no strengths of their own
        rows.append([(side, side) for side in ("down", "mid", "up") if any(b.split(".")[0] == side for b in inner)])
        rows.append([(block, block.replace(".block", "")) for block in inner if "." in block])
    return rows


def _sliders_of_parts(summary: AdapterSummary, slider: Any) -> None:
    for row in _parts(summary):
        with gr.Row():
            for part, label in row:
                slider(part, label, min_width=120)
    if "unet" in summary.parts:
        gr.HTML(status_html("it has modules outside of the UNet's blocks, so blocks have no strengths of their own"))


def _ids(chosen: Any) -> list[str]:
    """The ids, once each, of a list or of the text that stands for it."""
    try:
        ids = json.loads(chosen) if isinstance(chosen, str) else chosen
    except (ValueError, RecursionError):
        ids = []
    return list(dict.fromkeys(map(str, ids))) if isinstance(ids, list) else []


def _mapping(values: Any) -> dict[str, Any]:
    return dict(values) if isinstance(values, Mapping) else {}


def _kept(values: Any, identity: str) -> dict[str, float]:
    """The strengths by part that a browser has kept of an adapter; what is no number is left out."""
    parts = _mapping(_mapping(values).get(identity))
    numbers = {str(part): one for part, one in parts.items() if isinstance(one, int | float)}
    return {part: float(one) for part, one in numbers.items() if -_ABSURD < one < _ABSURD}


def _notes(snippet: Snippet) -> str:
    return "".join(status_html(note) for note in snippet.notes)
