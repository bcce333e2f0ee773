"""Whether all settings can act: checked before a byte of the base model is read or fetched."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from sd_lora.adapters.summary import AdapterSummary, read_summary
from sd_lora.config.conflicts import (
    Facts,
    ImageFacts,
    conflicts,
    conflicts_with,
    image_conflicts,
    optimizer_conflicts,
)
from sd_lora.config.schema import DataConfig, PreviewConfig, RunConfig
from sd_lora.data.dialects.prompts import Prompt, sample_prompts
from sd_lora.errors import AdapterError, ConfigError
from sd_lora.lora.variants import VARIANTS
from sd_lora.models.checkpoint.vae import check_vae
from sd_lora.models.families import FAMILIES
from sd_lora.models.families.base import ModelFamily
from sd_lora.models.opening import family_of_source, find_base, prediction_of, where_to_compute
from sd_lora.models.sources import base_place
from sd_lora.storage.safetensors_header import read_header
from sd_lora.training.optimizers import OPTIMIZERS, optimizer_problems
from sd_lora.training.trackers import missing_trackers


def check_settings(config: RunConfig, init: Path | None = None) -> None:
    """ConfigError with all settings that cannot act on this machine, this base model or the adapter to be trained;
    AdapterError if ``lora.init`` cannot be read.

    Reads the headers of local files, and nothing of a hub model. `init` is the run's own copy of ``lora.init``, if it
    has one. What only the opened base model shows is checked in `preparation`.
    """
    sample_prompts(config)  # refused by the one that cannot be drawn
    device, _ = where_to_compute(config.model)
    place = base_place(config.model.base)
    source = None if place == "hub" else find_base(config.model.base)
    if config.model.vae:
        check_vae(config.model.vae)
    families = tuple(FAMILIES.values()) if source is None else (family_of_source(source),)
    if source is not None:
        check_negative(config.preview, families[0])
    summary = _summary_of(init or os.path.expanduser(config.lora.init)) if config.lora.init else None
    parts = config.lora.targets if summary is None else summary.parts
    variant = VARIANTS[(summary and summary.variant) or config.lora.variant]
    facts = Facts(
        place=place,
        optimizer=OPTIMIZERS[config.optimizer.name],
        caps_norm=variant.can_cap_norm,
        has_up_and_ranks=variant.has_up_and_ranks,
        takes_factor=variant.takes_factor and not config.lora.init,
        needs_base=variant.needs_base,
        prediction_type=None if source is None else prediction_of(source, config.model.prediction_type),
        trains_text=_trains_text(parts, families),
    )
    problems = [
        *conflicts_with(config, facts),
        *optimizer_problems(config.optimizer, device.type),
        *missing_trackers(config.training.trackers),
    ]
    if problems:
        raise ConfigError("; ".join(problems))


def check_negative(preview: PreviewConfig, family: ModelFamily) -> None:
    """ConfigError for a negative prompt that base models of `family` would not use."""
    if idle := family.idle_words([preview.negative]):
        raise ConfigError(f'preview.negative is "{preview.negative}", but {idle}; leave it out')


def notes_on_guidance(preview: PreviewConfig, prompts: Sequence[Prompt], family: ModelFamily, pipe: Any) -> list[str]:
    """Where the samples of a base model with distilled guidance are guided otherwise than it is trained, or not as
    their prompts say."""
    idle = family.idle_words([prompt.negative or "" for prompt in prompts])
    notes = [f"preview: {idle}; leave --n out of the prompts"] if idle else []
    trained = family.guidance_in_training(pipe)
    asked = dict.fromkeys(preview.guidance if p.guidance is None else p.guidance for p in prompts or [Prompt("")])
    if trained is not None:
        notes += [
            f"preview: guidance {guidance:g} is not the {trained:g} that the base model is trained with; set "
            f"preview.guidance={trained:g} to see what was trained"
            for guidance in asked
            if guidance != trained
        ]
    return notes


def conflicts_on_any_base(config: RunConfig) -> list[str]:
    """Settings that cannot act whatever the base model, the device and the images are, a sentence each."""
    variant, file = VARIANTS[config.lora.variant], bool(config.lora.init)
    optimizer = OPTIMIZERS[config.optimizer.name]
    facts = Facts(
        place="hub",
        optimizer=optimizer,
        caps_norm=file or variant.can_cap_norm,
        has_up_and_ranks=file or variant.has_up_and_ranks,
        takes_factor=variant.takes_factor and not file,
        needs_base=variant.needs_base and not file,
        trains_text=None if file else _trains_text(config.lora.targets, tuple(FAMILIES.values())),
    )
    return [
        *conflicts(config),
        *conflicts_with(config, facts),
        *optimizer_conflicts(config.optimizer, optimizer, "cuda"),
        *image_conflicts(config.data, image_facts(config.data)),
    ]


def image_facts(data: DataConfig) -> ImageFacts:
    """Images on which every setting acts that can act on any."""
    # a dataset TOML says itself of its folders what is varied, and which are for regularisation
    file = data.folder.lower().endswith(".toml")
    varied = file or data.shuffle_tags or data.tag_dropout > 0
    prior = file or bool(data.regularisation)
    return ImageFacts(
        side=data.resolution, prior=prior, from_table=False, tags=True, shuffled=True, dropped=True, varied=varied,
        transparent=True, masked=True, validation=True, syntax=True,
    )  # fmt: skip


def _trains_text(parts: Collection[str], families: Collection[ModelFamily]) -> bool | None:
    """Whether a layer of a text encoder is trained, as far as the names of groups and patterns say; None: perhaps."""
    texts = {name for family in families for name in family.text_encoders}
    patterns = [p for part in parts for family in families for p in family.target_groups.get(part, (part,))]
    return None if any(_may_match(pattern, text) for pattern in patterns for text in texts) else False


def _summary_of(adapter: str | Path) -> AdapterSummary:
    """The summary of an adapter file; AdapterError if it cannot be read, as its summary would then list no modules."""
    read_header(adapter)
    summary = read_summary(adapter)
    if summary.problem:
        raise AdapterError(summary.problem)
    return summary


def _may_match(pattern: str, component: str) -> bool:
    """Whether glob `pattern` may match the name of a module of `component`."""
    fixed = re.split(r"[*?[]", f"{pattern}.", maxsplit=1)[0]
    return f"{component}.".startswith(fixed) or fixed.startswith(f"{component}.")
