"""One run from config to adapter: check everything, then make the folder, then train."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from sd_lora.adapter import Adapter, base_name
from sd_lora.check.doctor import Examined, examine
from sd_lora.config import RunConfig
from sd_lora.data import Cache, EncodedSet, Encoders, Example, Schedule, cache_folder, sentences
from sd_lora.data.listing import list_folder
from sd_lora.device import choose_device, choose_dtype
from sd_lora.errors import AdapterError, ConfigError, DataError
from sd_lora.families import ModelFamily, family_of_source, find_base, load_base
from sd_lora.preview import Previewer, PreviewGrid
from sd_lora.training.accelerator import accelerator_for
from sd_lora.training.companions import export_diffusers, write_sidecars
from sd_lora.training.loop import Material, StepReport, training_steps
from sd_lora.training.metadata import at_step, describe
from sd_lora.training.plan import notes_on, plan_adapter, resolve_text_rate, trains_text
from sd_lora.training.run_folder import RunFolder

Watcher = Callable[[StepReport], None]
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

    @property
    def images(self) -> int:
        """How many images the style is learnt from."""
        return sum(not example.prior for example in self.examples)

    def summary(self) -> str:
        """What was understood of the folder, and what is about to be trained: two lines."""
        data, training = self.config.data, self.config.training
        precision = str(self.dtype).removeprefix("torch.")
        ranks = sorted({w.rank for w in self.adapter.weights.values()})
        rank = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
        return (
            f"{data.folder}: {self.layout}\n"
            f"{self.images} images at {data.resolution} px, base model {base_name(self.pipe)}: "
            f"{len(self.adapter.weights)} modules of rank {rank}, {training.steps} steps of "
            f"{training.batch_size} images, {self.device.type}, {precision}"
        )


def train(config: RunConfig, *, watch: Watcher | None = None) -> Adapter:
    """Train as `config` says; returns the adapter as it was saved (``<output.folder>/adapter.safetensors``).

    `watch` is called with every StepReport. Raises SdLoraError, with nothing written, if any input cannot be used.
    """
    run = prepare(config)
    for note in run.notes:
        warnings.warn(note, stacklevel=2)
    return run_training(run, watch=watch)


def prepare(config: RunConfig, *, on_look: Counter | None = None) -> Run:
    """Check every input and resolve every default of `config`; writes nothing. `on_look` is called with how many of how
    many images have been looked at."""
    source = find_base(config.model.base, config.model.revision)
    family = family_of_source(source)
    folder = Path(config.data.folder).expanduser().resolve()
    name = config.output.name or config.data.trigger or folder.stem
    path = Path(config.output.folder or f"runs/{folder.stem}").expanduser()
    RunFolder.check_free(path)
    listing = list_folder(config.data)
    device = choose_device(config.model)
    dtype = choose_dtype(config.model, device)
    pipe, _ = load_base(
        config.model.base, dtype, revision=config.model.revision, config=config.model.config,
        prediction_type=config.model.prediction_type,
    )  # fmt: skip
    found = examine(config, listing, family, pipe, watch=on_look)
    schedule = _usable(found, config)
    if config.preview.inference_steps > pipe.scheduler.config.num_train_timesteps:
        raise ConfigError(f"preview.inference_steps is {config.preview.inference_steps}, more than the base model has")
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, resolution=found.side),
        training=dataclasses.replace(config.training, steps=found.steps),
        preview=dataclasses.replace(config.preview, prompts=config.preview.prompts or _prompts(found.examples)),
        output=dataclasses.replace(config.output, folder=str(path), name=_usable_name(name)),
    )
    adapter = plan_adapter(config, family, pipe)
    config = resolve_text_rate(config, adapter, family)
    notes = [*sentences(found.findings, "warning"), *notes_on(adapter, config, pipe)]
    adapter.metadata = describe(config, family, pipe, found.examples, adapter)
    adapter.label = config.output.name
    return Run(config, path, listing.summary, found.examples, schedule, family, pipe, adapter, device, dtype, notes)


def _usable(found: Examined, config: RunConfig) -> Schedule:
    """The schedule of a folder that can be trained on. DataError with all errors that were found; ConfigError for
    settings that cannot act on these images."""
    errors = sentences(found.findings, "error")
    if errors or found.schedule is None:
        raise DataError(f"{config.data.folder} cannot be trained on: {'; '.join(errors)}")
    data, examples = config.data, found.examples
    idle = []
    if data.prior_weight != 1 and not any(example.prior for example in examples):
        idle.append("data.prior_weight has no effect because there are no regularisation images")
    varied = data.shuffle_tags or data.tag_dropout
    if varied and not any("," in caption for example in examples for caption in example.written):
        idle.append("data.shuffle_tags and data.tag_dropout have no effect because no caption has commas")
    if idle:
        raise ConfigError("; ".join(idle))
    return found.schedule


def run_training(run: Run, *, watch: Watcher | None = None, on_encode: Counter | None = None) -> Adapter:
    """Make the run folder and train. Consumes `run`: its pipeline loses text encoders that are not trained.
    `on_encode` is called with how many of how many images and captions have been encoded."""
    config, pipe, family = run.config, run.pipe, run.family
    with accelerator_for(run.device, run.dtype) as accelerator:
        if config.training.batch_size % accelerator.num_processes:
            raise ConfigError(
                f"training.batch_size is {config.training.batch_size}, which {accelerator.num_processes} processes "
                "cannot share; use a multiple"
            )
        leads = accelerator.is_main_process
        folder = RunFolder.create(run.path, config) if leads else RunFolder(run.path)
        accelerator.wait_for_everyone()
        data, previewer = _encode(run, accelerator, on_encode)
        denoiser = getattr(pipe, family.denoiser).to(accelerator.device)
        run.adapter.inject(pipe)
        parameters = {
            "denoiser": run.adapter.parameters(family.denoiser),
            "text": run.adapter.parameters(*family.text_encoders),
        }
        encode = partial(family.encode_captions, pipe) if parameters["text"] else None
        material = Material(data, family.objective(pipe), encode)
        for report in training_steps(accelerator, family, denoiser, parameters, material, config):
            if leads:
                folder.record(report)
                if report.step < report.steps and _due(report.step, config.preview.every):
                    _draw_samples(run, previewer, folder, report.step)
                if report.step < report.steps and _due(report.step, config.training.save_every):
                    _save(run, folder.kept_adapter(report.step), report.step)
            if watch is not None:
                watch(report)
        run.adapter.eject()
        if leads:
            _finish(run, previewer, folder)
        accelerator.wait_for_everyone()
    return Adapter.load(folder.adapter)


@torch.no_grad()
def _encode(run: Run, accelerator: Accelerator, watch: Counter | None) -> tuple[EncodedSet, Previewer]:
    """Encode pictures and captions that the cache lacks, and preview prompts; then the text encoders are let go and the
    VAE set aside. Text encoders that are trained stay, and captions and prompts are encoded whenever they are used."""
    pipe, family, config = run.pipe, run.family, run.config
    pipe.to(run.device)
    text = trains_text(run.adapter, family)
    encoders = Encoders(
        lambda images: family.encode_images(pipe, images).cpu(),
        None if text else lambda captions: {k: v.cpu() for k, v in family.encode_captions(pipe, captions).items()},
        family.encode_framing, family.images_key(pipe), "" if text else family.captions_key(pipe),
    )  # fmt: skip
    cache = Cache(cache_folder(config.data.cache, run.path))
    data = EncodedSet(run.examples, run.schedule, encoders, cache, config.data.prior_weight)
    if accelerator.num_processes > 1:
        data.encode((accelerator.process_index, accelerator.num_processes))
        accelerator.wait_for_everyone()
    data.encode(watch=watch)
    previewer = Previewer(pipe, run.adapter, config.preview, size=config.data.resolution)
    if not text:
        negative = family.encode_captions(pipe, [""])
        for prompt in config.preview.prompts:
            arguments = family.pipeline_arguments(family.encode_captions(pipe, [prompt]), negative)
            previewer.prepare(prompt, arguments)
        for component in family.text_encoders:
            setattr(pipe, component, None)
    pipe.vae.to("cpu")
    return data, previewer


def _finish(run: Run, previewer: Previewer, folder: RunFolder) -> None:
    """Save and draw what is left at the end; the adapter first, so that nothing that fails can cost the training."""
    steps = run.config.training.steps or 0
    _save(run, folder.adapter, steps)
    folder.draw_loss()
    grid = _draw_samples(run, previewer, folder, steps)
    picture = grid.images[0][min(range(len(grid.strengths)), key=lambda i: abs(grid.strengths[i] - 1))]
    write_sidecars(folder.adapter, run.adapter.metadata, picture)
    export_diffusers(run.adapter, folder.export, run.config.output.dtype, picture)


def _draw_samples(run: Run, previewer: Previewer, folder: RunFolder, step: int) -> PreviewGrid:
    run.pipe.vae.to(run.device)
    grid = previewer.grid(run.config.preview.prompts)
    grid.save(folder.sample_sheet(step))
    run.pipe.vae.to("cpu")
    return grid


def _save(run: Run, path: Path, step: int) -> None:
    """Save the adapter with the facts of `step`; what the output dtype cannot hold is kept in float32 beside it."""
    run.adapter.metadata = at_step(run.adapter.metadata, run.config, run.schedule.epoch_size, step)
    try:
        run.adapter.save(path, dtype=run.config.output.dtype)
    except AdapterError as error:
        spare = run.adapter.save(path.with_name(f"{path.stem}-float32.safetensors"), dtype="float32")
        raise AdapterError(f"{error}; it was kept as {spare}") from error


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _prompts(examples: list[Example]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(example.caption for example in examples if not example.prior))[:3]


def _usable_name(name: str) -> str:
    """Other programs write an adapter's name into prompts as ``<lora:NAME:1>``."""
    cleaned = "".join("-" if c in ":<>," else c for c in name).strip() or "style"
    return f"{cleaned}-style" if cleaned.lower() == "none" else cleaned
