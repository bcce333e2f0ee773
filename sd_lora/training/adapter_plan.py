"""From a config and a base model to the adapter that will be trained: a fresh one, or one that is trained further."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.fit import base_name, modules_of
from sd_lora.config.conflicts import text_conflicts
from sd_lora.config.schema import RunConfig
from sd_lora.errors import ConfigError, some
from sd_lora.lora.targets import plan_targets
from sd_lora.models.opening import ModelFamily
from sd_lora.training.optimizers import OPTIMIZERS


def plan_adapter(config: RunConfig, family: ModelFamily, pipe: Any, kept: Path | None = None) -> Adapter:
    """The adapter that `config` asks for, checked against the base model, not yet injected. `kept` is the run's own
    copy of ``lora.init``, if it has one."""
    modules_of(pipe)  # refuses fused projections
    if config.lora.init:
        adapter = Adapter.load(kept or config.lora.init)
        if odd := next(filter(None, (w.row.only_read(w.shapes) for w in adapter.weights.values())), ""):
            raise ConfigError(
                f"lora.init is {config.lora.init}, which holds {odd}; that is read but not trained: make plain LoRA of "
                "it first with sd-lora resize"
            )
        with adapter.injected(pipe):  # whether it fits is known before anything is made
            pass
    else:
        components = {each.name: getattr(pipe, each.name) for each in family.components}
        targets = plan_targets(
            components,
            family.target_groups,
            config.lora.targets,
            (config.lora.rank, config.lora.alpha),
            (config.lora.ranks, config.lora.alphas),
        )
        adapter = Adapter.create(
            targets, seed=config.training.seed, variant=config.lora.variant, factor=config.lora.factor
        )
    family.check_modules(adapter.weights)
    return adapter


def text_rate(config: RunConfig, adapter: Adapter, family: ModelFamily, steps: int) -> float | None:
    """The learning rate of the text encoders in a run of `steps` steps; None if none of their layers is trained.

    Raises ConfigError for settings of the text encoders that would have no effect, or leave nothing to train.
    """
    text = [_is_text(name, family) for name in adapter.weights]
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, steps=steps))
    if problems := text_conflicts(config, text=any(text), more=not all(text)):
        raise ConfigError("; ".join(problems))
    optimizer = config.optimizer
    half = optimizer.learning_rate * (1 if OPTIMIZERS[optimizer.name].one_rate else 0.5)
    return (optimizer.text_learning_rate or half) if any(text) else None


def trains_text(adapter: Adapter, family: ModelFamily) -> bool:
    """Whether `adapter` has layers in a text encoder."""
    return any(_is_text(name, family) for name in adapter.weights)


def _is_text(name: str, family: ModelFamily) -> bool:
    return name.split(".", 1)[0] in family.text_encoders


def notes_on(adapter: Adapter, config: RunConfig, family: ModelFamily, pipe: Any) -> list[str]:
    """What a user should know about the modules that are trained: where other programs differ, as sentences."""
    names, notes = list(adapter.weights), []
    if config.lora.init:
        notes.append(
            f"training continues from {config.lora.init} (base {adapter.base or 'not recorded'}, now {base_name(pipe)})"
            "; modules, ranks, alphas and variant are that file's, and lora.targets, rank and alpha are not used"
        )
    notes += family.notes(pipe)
    if config.training.weighting == "min-snr" and family.objective(pipe).prediction_type == "flow":
        preset = f"use the preset {family.presets[0]}, or " if family.presets else ""
        notes.append(
            f"training.weighting=min-snr is meant for models that predict noise, and {family.title} is a flow; "
            f"{preset}set training.weighting=none"
        )
    notes += dict.fromkeys(w.row.note for w in adapter.weights.values() if w.row.note)
    if family.read_by:  # what follows is about programs for models with a UNet
        return notes
    odd = [name for name in names if family.part_of(name)[0] == (family.denoiser,)]  # outside of all blocks
    if odd:
        notes.append(f"kohya's scripts never load {some(odd, 3)}; other programs do")
    marker = "".join(family.width_modules[:1])
    if marker and not any(name.endswith(marker) for name in names):
        notes.append(f"no {marker[1:]} is trained, whose width shows InvokeAI which base model an adapter is for")
    return notes
