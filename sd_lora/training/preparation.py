"""From a config to a run whose inputs have all been checked; nothing is written yet."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sd_lora.adapters.adapter import Adapter, base_name
from sd_lora.check.cost import default_exposures, measure
from sd_lora.check.doctor import Examined, examine
from sd_lora.config.schema import RunConfig
from sd_lora.data.cache import check_cache
from sd_lora.data.examples import Example
from sd_lora.data.exposures import Schedule
from sd_lora.data.findings import CODES, grouped, sentences
from sd_lora.data.folders.listing import list_folder
from sd_lora.data.folders.tree import shown
from sd_lora.errors import ConfigError, DataError, printable
from sd_lora.models.opening import ModelFamily, open_base
from sd_lora.runs.folder import RunFolder
from sd_lora.training.adapter_plan import notes_on, plan_adapter, resolve_text_rate
from sd_lora.training.checkpoints import Checkpoints
from sd_lora.training.means import Means, choose_means
from sd_lora.training.memory import usable_memory
from sd_lora.training.metadata import describe
from sd_lora.training.resume_check import check_definition, definition
from sd_lora.training.settings_check import check_settings

#: called with how many of how many are done
Counter = Callable[[int, int], None]


@dataclass
class Run:
    """A run whose inputs have all been checked; `config` is resolved, `notes` are warnings for the user."""

    config: RunConfig
    path: Path
    layout: str
    examples: list[Example]
    schedule: Schedule
    family: ModelFamily
    pipe: Any
    adapter: Adapter
    device: torch.device
    dtype: torch.dtype
    notes: list[str]
    #: images that are not trained on, to measure the validation loss
    held: list[Example]
    #: how its steps are computed, and why
    means: Means
    #: whether it goes on in a run folder that is there already
    resumed: bool = False
    #: the step of the checkpoint that it goes on from; None without one
    resumed_from: int | None = None

    @property
    def images(self) -> int:
        """How many images the style is learnt from."""
        return sum(not example.prior for example in self.examples)

    def summary(self) -> str:
        """What was understood of the folder, and what is about to be trained: two lines."""
        held = f" of {self.images + len(self.held)} images, {len(self.held)} held out," if self.held else " images"
        data, training = self.config.data, self.config.training
        precision = str(self.dtype).removeprefix("torch.")
        ranks = sorted({w.rank for w in self.adapter.weights.values()})
        rank = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
        return (
            f"{data.folder}: {self.layout}\n"
            f"{self.images}{held} at {data.resolution} px, base model {base_name(self.pipe)}: "
            f"{len(self.adapter.weights)} modules of rank {rank}, {training.steps} steps of "
            f"{training.batch_size} images, {self.device.type}, {precision}"
        )

    def going_on(self) -> str:
        """Where a run that is resumed goes on; nothing for a new one."""
        steps = self.config.training.steps or 0
        if not self.resumed:
            return ""
        if self.resumed_from is None:
            return "there is no whole checkpoint: starting anew"
        if self.resumed_from >= steps:
            return f"all {steps} steps are done: saving what is left"
        return f"going on after step {self.resumed_from} of {steps}"

    def plan(self) -> dict[str, Any]:
        """What the run will be, for JSON; `reasons` are sentences."""
        training, precision = self.config.training, str(self.dtype).removeprefix("torch.")
        steps, prior = training.steps or 0, len(self.examples) - self.images
        exposures, rule = steps * training.batch_size, default_exposures(self.images, prior=prior > 0)
        given = "as the run began" if self.resumed else "as set or by the preset"
        by_rule = "by the rule" if abs(exposures - rule) < training.batch_size else f"{given}; the rule gives {rule:,}"
        why = given if self.config.model.dtype != "auto" else "the default on this device"
        return {
            "images": self.images, "regularisation_images": prior, "held_out": len(self.held), "exposures": exposures,
            "steps": steps, "batch_size": training.batch_size, "micro_batch": training.micro_batch,
            "gradient_checkpointing": training.gradient_checkpointing, "device": self.device.type,
            "precision": str(self.dtype).removeprefix("torch."), "seconds": self.means.seconds * steps,
            "memory_bytes": self.means.memory,
            "reasons": [
                f"{steps} steps of {training.batch_size} images are {exposures:,} exposures, {by_rule}",
                *self.means.reasons,
                f"computed in {precision}, {why}; layers and optimizer in float32",
                *self._at_the_end_only(),
            ],
        }  # fmt: skip

    def _at_the_end_only(self) -> list[str]:
        """What never comes up in so few steps; a preset may have set it, so that it is no error."""
        training, steps = self.config.training, self.config.training.steps or 0
        settings = {
            "training.save_every": training.save_every, "training.validate_every": training.validate_every,
            "preview.every": self.config.preview.every,
        }  # fmt: skip
        rare = [f"{key}={value}" for key, value in settings.items() if value > steps]
        return [f"{' and '.join(rare)} in {steps} steps: after the last one only"] if rare else []


def prepare(config: RunConfig, *, on_look: Counter | None = None, resumed: bool = False, planned: bool = False) -> Run:
    """Check every input and resolve every default of `config`; writes nothing. `on_look` is called with how many of how
    many images have been looked at. The run folder must be free, unless a run goes on in it (`resumed`) or is
    only planned."""
    check_cache(config.data.cache)
    folder = _absolute_path(config.data.folder)
    called = folder.stem if os.path.isfile(folder) else folder.name
    name = config.output.name or config.data.trigger or called
    path = Path(os.path.expanduser(config.output.folder or f"runs/{called}"))
    began = Checkpoints(RunFolder(path).checkpoints, 1).newest(whole=False) if resumed else None
    if not (resumed or planned):
        RunFolder.check_free(path)
    kept_init = RunFolder(path).kept_init if resumed else None
    check_settings(config, kept_init)
    listing = list_folder(config.data)
    base = open_base(config.model)
    pipe, family, device, dtype = base.pipe, base.family, base.device, base.dtype
    family.objective(pipe, zero_terminal_snr=config.training.zero_terminal_snr).check_range(config.training)
    found = examine(config, listing, family, pipe, watch=on_look)
    schedule = _usable(found, config)
    if config.preview.inference_steps > pipe.scheduler.config.num_train_timesteps:
        raise ConfigError(f"preview.inference_steps is {config.preview.inference_steps}, more than the base model has")
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(_absolute(config.model, "config"), base=_absolute_base(config.model.base)),
        data=dataclasses.replace(_absolute(config.data, "folder", "regularisation", "cache"), resolution=found.side),
        lora=_absolute(config.lora, "init"),
        training=dataclasses.replace(config.training, steps=found.steps),
        preview=dataclasses.replace(config.preview, prompts=config.preview.prompts or _prompts(found.examples)),
        output=dataclasses.replace(config.output, folder=str(path), name=_usable_name(name)),
    )
    adapter = plan_adapter(config, family, pipe, kept_init)
    config = resolve_text_rate(config, adapter, family)
    if began is not None:
        check_definition(began.facts.get("run", {}), definition(config, adapter, dtype), path)
    means = choose_means(
        config.training, config.training.batch_size, usable_memory(device),
        lambda checkpointing: measure(family, pipe, device, schedule, checkpointing=checkpointing),
        given="as the run began" if resumed else "as set",
    )  # fmt: skip
    config = dataclasses.replace(config, training=means.applied(config.training))
    told = [f"{code}: {text}" for code, text in grouped(found.findings) if CODES[code].severity == "warning"]
    notes = [*told, *notes_on(adapter, config, pipe)]
    _check_text(config)
    adapter.metadata = describe(config, family, pipe, found.examples, adapter)
    adapter.label = config.output.name
    return Run(
        config, path, listing.summary, found.examples, schedule, family, pipe, adapter, device, dtype, notes,
        found.held, means, resumed, began.step if began is not None else None,
    )  # fmt: skip


def _usable(found: Examined, config: RunConfig) -> Schedule:
    """The schedule of a folder that can be trained on. DataError with all errors that were found, each on its line if
    there are several."""
    errors = sentences(found.findings, "error")
    if errors or found.schedule is None:
        folder, again = shown(config.data.folder), printable(shlex.quote(config.data.folder))
        listed = f" {errors[0]}. " if len(errors) == 1 else "".join(f"\n  {error}" for error in errors) + "\n"
        raise DataError(f"{folder} cannot be trained on:{listed}sd-lora check {again} shows all that was found")
    return found.schedule


def _prompts(examples: list[Example]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(example.caption for example in examples if not example.prior))[:3]


def _usable_name(name: str) -> str:
    """Other programs write an adapter's name into prompts as ``<lora:NAME:1>``."""
    cleaned = "".join("-" if c in ":<>," else c for c in name).strip() or "style"
    return f"{cleaned}-style" if cleaned.lower() == "none" else cleaned


def _check_text(config: RunConfig) -> None:
    """ConfigError for names that config.toml cannot hold."""
    try:
        config.to_toml().encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{printable(config.data.folder)} or another name of the run holds bytes that are no text, so that the "
            "run could not be repeated or resumed; rename it"
        ) from error


def _absolute(section: Any, *keys: str) -> Any:
    """`section` of a config with absolute paths, so that the run can be resumed from anywhere."""
    paths = {key: str(_absolute_path(getattr(section, key))) for key in keys if getattr(section, key)}
    return dataclasses.replace(section, **paths)


def _absolute_path(text: str) -> Path:
    """Never fails, unlike pathlib's own: whether there is such a path is asked, and told, where it is read."""
    return Path(os.path.abspath(os.path.expanduser(text)))


def _absolute_base(base: str) -> str:
    path = _absolute_path(base)
    return str(path) if base != "tiny" and path.exists() else base
