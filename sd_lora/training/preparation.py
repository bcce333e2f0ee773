"""From a config to a run whose inputs have all been checked, in three steps; nothing is written yet."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.fit import base_name
from sd_lora.check.cost import cost_key, expect
from sd_lora.check.doctor import Examined, Looking, examine
from sd_lora.config.schema import RunConfig
from sd_lora.data.cache import check_cache
from sd_lora.data.dialects.prompts import sample_prompts, without_options
from sd_lora.data.examples import Example
from sd_lora.data.exposures import Schedule
from sd_lora.data.findings import CODES, grouped, sentences
from sd_lora.data.folders.entries import Listing
from sd_lora.data.folders.listing import list_folder
from sd_lora.data.pictures.decode import check_colour
from sd_lora.errors import ConfigError, DataError, printable, shown, some
from sd_lora.lora.variants import VARIANTS
from sd_lora.models.device import computing_with
from sd_lora.models.opening import OpenBase, open_base, where_to_compute
from sd_lora.models.recompute import STEPS_DOWN
from sd_lora.runs import threads
from sd_lora.runs.folder import RunFolder
from sd_lora.training.adapter_plan import notes_on, plan_adapter, text_rate
from sd_lora.training.checkpoints import Checkpoints, State
from sd_lora.training.memory import Means, choose_means, usable_memory
from sd_lora.training.metadata import describe
from sd_lora.training.prepared import Run
from sd_lora.training.resume_check import check_modules, check_unchanged, modules_of
from sd_lora.training.samples import check_outline, outline_of
from sd_lora.training.settings_check import check_negative, check_settings, notes_on_guidance

#: called with how many of how many are done
Counter = Callable[[int, int], None]
#: the base model that is trained, the outline of another that draws, the images, and their order
Looked = tuple[OpenBase, OpenBase | None, Examined, Schedule]


def prepare(config: RunConfig, *, on_look: Counter | None = None, resumed: bool = False, planned: bool = False) -> Run:
    """Check every input and resolve every default of `config`; writes nothing.

    `on_look` is called with how many of how many images have been looked at. The run folder must be free, unless a run
    is `resumed` in it or only `planned`.
    """
    places = check_places(config, resumed=resumed, planned=planned)
    return plan_run(places, *look_at_data(places, on_look))


@dataclass(frozen=True)
class Places:
    """The files of a run, all of them there, and its `config`, with defaults still open; `kept_init` is the run's own
    copy of ``lora.init``, `checkpoint` the state, without tensors, that it continues from."""

    config: RunConfig
    path: Path
    name: str
    listing: Listing
    kept_init: Path | None
    resumed: bool
    checkpoint: State | None
    #: whether the run is only planned
    planned: bool = False


def check_places(config: RunConfig, *, resumed: bool = False, planned: bool = False) -> Places:
    """Refuse what can be refused before a base model is fetched or read."""
    check_colour(config.data.background)
    check_cache(config.data.cache)
    config = replace(config, lora=_absolute(config.lora, "init"))
    images = _absolute_path(config.data.folder)
    label = images.stem if os.path.isfile(images) else images.name
    path = Path(os.path.expanduser(config.output.folder or f"runs/{label}"))
    folder, checkpoint, kept_init = RunFolder(path), None, None
    if resumed:
        checkpoint, kept_init = Checkpoints(folder.checkpoints, 1).newest(tensors=False), folder.kept_init
    elif not planned:
        folder.check_free(path)
    if checkpoint is not None:
        _, dtype = where_to_compute(config.model)
        check_unchanged(checkpoint.facts.get("run", {}), config, dtype, path)
    check_settings(config, kept_init)
    listing = list_folder(config.data)
    name = _usable_name(config.output.name or config.data.trigger or label)
    return Places(config, path, name, listing, kept_init, resumed, checkpoint, planned)


def look_at_data(places: Places, on_look: Counter | None = None) -> Looked:
    """Open the base models, examine the images for the one that is trained, and put them in order. DataError if they
    cannot be trained on."""
    config = places.config
    outline = outline_of(config.model)
    base = open_base(config.model, later=True)
    family, pipe = base.family, base.pipe
    family.objective(pipe, zero_terminal_snr=config.training.zero_terminal_snr).check_range(config.training)
    check_negative(config.preview, family)  # of a hub model, it is known only now
    if config.preview.inference_steps > (outline or base).pipe.scheduler.config.num_train_timesteps:
        raise ConfigError(f"preview.inference_steps is {config.preview.inference_steps}, more than the base model has")
    examined = examine(config, places.listing, family, pipe, Looking(watch=on_look))
    return base, outline, examined, _usable(examined, config)


def plan_run(places: Places, base: OpenBase, outline: OpenBase | None, examined: Examined, schedule: Schedule) -> Run:
    """Plan the adapter and how its steps are computed, and resolve the config. `outline`: of the base model that draws
    the samples, if it is another."""
    config, family, pipe, checkpoint = places.config, base.family, base.pipe, places.checkpoint
    if config.lora.init or VARIANTS[config.lora.variant].needs_base:
        base.fill(family.denoiser)
    adapter = plan_adapter(config, family, pipe, places.kept_init)
    rate = text_rate(config, adapter, family, examined.steps)
    if checkpoint is not None:
        check_modules(checkpoint.facts.get("run", {}), adapter, places.path)
    count, said = config.training.threads or min(torch.get_num_threads(), threads.free_threads()), _given(places)
    with computing_with(count):
        means, cost = _choose(places, base, schedule, _kind_of(config, adapter))
    means.reasons.append(threads.reason(count, said if config.training.threads else ""))
    places = replace(places, config=replace(config, training=replace(config.training, threads=count)))
    config = _resolved(places, examined, rate, means)
    warnings = [f"{code}: {text}" for code, text in grouped(examined.findings) if CODES[code].severity == "warning"]
    prompts = [] if places.resumed else sample_prompts(places.config)
    warnings += [f"preview: {note}" for note in dict.fromkeys(note for prompt in prompts for note in prompt.notes)]
    if pieces := [piece for prompt in prompts for piece in prompt.pieces]:
        warnings.append(f"preview: {some(pieces)} in the prompts is drawn as written; set data.syntax=read to read it")
    warnings += notes_on_guidance(config.preview, prompts, family, (outline or base).pipe)
    notes = [*warnings, *notes_on(adapter, config, family, pipe)]
    adapter.metadata = describe(config, family, pipe, examined.examples, adapter)
    if outline is not None:
        check_outline(outline, base, adapter)
        adapter.metadata["sdlora.judged_on"] = base_name(outline.pipe)
    adapter.label = config.output.name
    return Run(
        config,
        places.path,
        places.listing.summary,
        examined.examples,
        schedule,
        base,
        adapter,
        notes,
        examined.held,
        means,
        places.resumed,
        checkpoint.step if checkpoint is not None else None,
        cost,
    )


def _choose(places: Places, base: OpenBase, schedule: Schedule, kind: dict[str, Any]) -> tuple[Means, str]:
    """How the steps are computed, and the key under which their cost is kept."""
    costs = {what: cost_key(base, schedule, recomputed=what, **kind) for what in STEPS_DOWN}
    training, timed = places.config.training, places.planned
    means = choose_means(
        training,
        training.batch_size,
        usable_memory(base.device),
        lambda what: expect(base, schedule, costs[what], what, timed=timed),
        given=_given(places),
    )
    return means, costs[means.gradient_checkpointing]


def _given(places: Places) -> str:
    return "as the run began" if places.resumed else "as set"


def _kind_of(config: RunConfig, adapter: Adapter) -> dict[str, Any]:
    """What the cost of a step depends on besides the base model and the images."""
    training, asked = config.training, ("micro_batch", "gradient_checkpointing", "fast", "compile")
    return {
        "layers": modules_of(adapter),
        "quantize": config.model.quantize,
        "optimizer": config.optimizer.name,
        "processes": os.environ.get("WORLD_SIZE", "1"),
        **{name: getattr(training, name) for name in asked},
    }


def _resolved(places: Places, examined: Examined, rate: float | None, means: Means) -> RunConfig:
    """The config with every default filled in. ConfigError for names that config.toml cannot hold."""
    config = places.config
    computed = {"micro_batch": means.micro_batch, "gradient_checkpointing": means.gradient_checkpointing}
    resolved = replace(
        config,
        model=replace(
            _absolute(config.model, "config", "vae"),
            base=_absolute_base(config.model.base),
            preview_base=_absolute_base(config.model.preview_base) if config.model.preview_base else "",
        ),
        data=replace(
            _absolute(config.data, "folder", "regularisation", "mask_folder", "cache"), resolution=examined.side
        ),
        optimizer=replace(config.optimizer, text_learning_rate=rate),
        training=replace(config.training, **computed, steps=examined.steps, epochs=None),
        preview=replace(config.preview, prompts=_prompts(places, examined.examples), prompts_file=""),
        output=replace(config.output, folder=str(places.path), name=places.name),
    )
    try:
        resolved.to_toml().encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{printable(config.data.folder)} or another name of the run holds bytes that are not text, so that "
            "the run could not be repeated or resumed; rename it"
        ) from error
    return resolved


def _usable(examined: Examined, config: RunConfig) -> Schedule:
    """The schedule of a folder that can be trained on. DataError with all errors, each on its line if there are
    several."""
    errors = sentences(examined.findings, "error")
    if errors or examined.schedule is None:
        folder, again = shown(config.data.folder), printable(shlex.quote(config.data.folder))
        listed = f" {errors[0]}. " if len(errors) == 1 else "".join(f"\n  {error}" for error in errors) + "\n"
        raise DataError(f"{folder} cannot be trained on:{listed}sd-lora check {again} shows all findings")
    return examined.schedule


def _prompts(places: Places, examples: list[Example]) -> tuple[str, ...]:
    """What the sample grids show; what was resolved when the run began stays as it is."""
    if places.resumed and places.config.preview.prompts:
        return places.config.preview.prompts
    given = tuple(prompt.written for prompt in sample_prompts(places.config))
    captions = (without_options(example.caption) for example in examples if not example.prior)
    return given or tuple(dict.fromkeys(filter(None, captions)))[:3]


def _usable_name(name: str) -> str:
    """Other programs write an adapter's name into prompts as ``<lora:NAME:1>``."""
    cleaned = "".join("-" if c in ":<>," else c for c in name).strip() or "style"
    return f"{cleaned}-style" if cleaned.lower() == "none" else cleaned


def _absolute(section: Any, *keys: str) -> Any:
    """`section` of a config with absolute paths, so that the run can be resumed from anywhere."""
    paths = {key: str(_absolute_path(getattr(section, key))) for key in keys if getattr(section, key)}
    return replace(section, **paths)


def _absolute_path(text: str) -> Path:
    """Never fails, unlike pathlib's: whether the path exists is checked where it is read."""
    return Path(os.path.abspath(os.path.expanduser(text)))


def _absolute_base(base: str) -> str:
    path = _absolute_path(base)
    return str(path) if base != "tiny" and path.exists() else base
