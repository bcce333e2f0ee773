"""What draws the samples of a run: its own base model, or another that its adapter is for (`model.preview_base`)."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.fit import base_name
from sd_lora.config.schema import ModelConfig
from sd_lora.data.dialects.prompts import read_prompt
from sd_lora.errors import BaseModelError
from sd_lora.models.device import give_back
from sd_lora.models.opening import OpenBase, is_empty, open_base
from sd_lora.models.sources import base_place
from sd_lora.preview.previewer import Previewer
from sd_lora.preview.sheet import PreviewGrid
from sd_lora.training.prepared import Run


@dataclass(frozen=True)
class Samples:
    """`previewer` draws on `base`, which is the run's own, or is in memory only while it draws."""

    base: OpenBase
    previewer: Previewer
    is_own: bool

    def draw(self, adapter: Adapter, prompts: Sequence[str]) -> PreviewGrid:
        """A grid with `adapter`, which is being trained. Raises what drawing does."""
        base, family = self.base, self.base.family
        named = ["vae"] if self.is_own else [family.denoiser, "vae", *family.text_encoders]
        parts = [name for name in named if getattr(base.pipe, name, None) is not None]
        try:
            for name in parts:
                base.fill(name)
                getattr(base.pipe, name).to(base.device)
            if not self.is_own:  # it is injected into the base that it is trained on
                self.previewer.adapter = Adapter(adapter.weights, adapter.metadata, adapter.label)
            return self.previewer.grid(prompts)
        finally:
            for name in parts:
                part = getattr(base.pipe, name)
                if not is_empty(part):
                    part.to("cpu")
            if not self.is_own:
                _empty(base, family.denoiser, "vae")


def preview_model(model: ModelConfig) -> ModelConfig:
    """How the base that draws is loaded: as the one that is trained, but for what only that one has."""
    if not model.preview_base:
        return model
    config = model.config if base_place(model.preview_base) == "file" else ""
    own = {"revision": "", "vae": "", "prediction_type": "auto", "config": config}
    return replace(model, base=model.preview_base, preview_base="", **own)


def outline_of(model: ModelConfig) -> OpenBase | None:
    """The form, without weights, of the base that draws, if it is another than the one that is trained."""
    if not model.preview_base:
        return None
    base = open_base(preview_model(model), later=True)
    present = (name for name in base.family.text_encoders if getattr(base.pipe, name) is not None)
    _empty(base, "vae", *present)
    return base


def check_outline(outline: OpenBase, base: OpenBase, adapter: Adapter) -> None:
    """BaseModelError unless an adapter that is trained on `base` is one for the base of `outline` too."""
    drawn, trained = (f"{base_name(b.pipe)} (kind {b.family.kind(b.pipe).name})" for b in (outline, base))
    problems = adapter.misfits(outline.pipe) if outline.family is base.family else ["it is of another family"]
    if problems:
        raise BaseModelError(
            f"model.preview_base {drawn} cannot draw with an adapter that is trained on {trained}: "
            f"{'; '.join(problems)}; name a base of the same kind"
        )


def open_samples(run: Run, *, with_text: bool) -> Samples:
    """What draws on the run's ``model.preview_base``. Its prompts are encoded and its text encoders let go, unless
    layers of theirs are trained (`with_text`)."""
    config = run.config
    base = open_base(preview_model(config.model), later=True)
    family, pipe = base.family, base.pipe
    previewer = Previewer(pipe, run.adapter, config.preview, size=config.data.resolution)
    if not with_text:
        for encoder, _ in family.text_parts(pipe):
            encoder.to(base.device)
        for prompt in config.preview.prompts:
            with torch.no_grad():
                texts = (read_prompt(prompt).text, previewer.negative_of(prompt))
                wanted, negative = (family.encode_captions(pipe, [text]) for text in texts)
            previewer.prepare(prompt, family.pipeline_arguments(wanted, negative))
        for component in family.text_encoders:
            setattr(pipe, component, None)
    _empty(base, "vae")
    return Samples(base, previewer, is_own=False)


def _empty(base: OpenBase, *components: str) -> None:
    for component in components:
        base.empty(component)
    gc.collect()  # text encoders refer to themselves
    give_back(base.device)
