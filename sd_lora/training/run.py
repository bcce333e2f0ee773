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

from sd_lora.adapter import Adapter, base_name
from sd_lora.config import RunConfig
from sd_lora.data import (
    EncodedSet,
    Encoders,
    Example,
    encode_examples,
    ignored_files,
    read_folder,
    triggered,
    warnings_for,
)
from sd_lora.device import choose_device, choose_dtype
from sd_lora.errors import AdapterError, ConfigError, some
from sd_lora.families import ModelFamily, family_of_source, find_base, load_base
from sd_lora.preview import Previewer, PreviewGrid
from sd_lora.training.accelerator import accelerator_for
from sd_lora.training.companions import export_diffusers, write_sidecars
from sd_lora.training.loop import Material, StepReport, training_steps
from sd_lora.training.metadata import at_step, describe
from sd_lora.training.plan import notes_on, plan_adapter, resolve_text_rate, trains_text
from sd_lora.training.run_folder import RunFolder

Watcher = Callable[[StepReport], None]


@dataclass
class Run:
    """A run whose inputs have all been checked; `config` is resolved, `notes` are warnings for the user."""

    config: RunConfig
    path: Path
    examples: list[Example]
    family: ModelFamily
    pipe: Any
    adapter: Adapter
    device: torch.device
    dtype: torch.dtype
    notes: list[str]

    def summary(self) -> str:
        """What is about to be trained, in one line."""
        data, training = self.config.data, self.config.training
        precision = str(self.dtype).removeprefix("torch.")
        ranks = sorted({w.rank for w in self.adapter.weights.values()})
        rank = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
        return (
            f"{len(self.examples)} images of {data.folder} at {data.resolution} px, base model {base_name(self.pipe)}: "
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


def prepare(config: RunConfig) -> Run:
    """Check every input and resolve every default of `config`; writes nothing."""
    source = find_base(config.model.base, config.model.revision)
    family = family_of_source(source)
    name = config.output.name or config.data.trigger or Path(config.data.folder).expanduser().resolve().name
    path = Path(config.output.folder or f"runs/{Path(config.data.folder).expanduser().resolve().name}").expanduser()
    RunFolder.check_free(path)
    examples = read_folder(config.data)
    device = choose_device(config.model)
    dtype = choose_dtype(config.model, device)
    pipe, _ = load_base(
        config.model.base, dtype, revision=config.model.revision, config=config.model.config,
        prediction_type=config.model.prediction_type,
    )  # fmt: skip
    examples, cut = _shortened(examples, family, pipe)
    if config.preview.inference_steps > pipe.scheduler.config.num_train_timesteps:
        raise ConfigError(f"preview.inference_steps is {config.preview.inference_steps}, more than the base model has")
    size = config.data.resolution or family.native_size(pipe)
    steps = config.training.steps or default_steps(len(examples), config.training.batch_size)
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, resolution=size),
        training=dataclasses.replace(config.training, steps=steps),
        preview=dataclasses.replace(config.preview, prompts=config.preview.prompts or _prompts(examples)),
        output=dataclasses.replace(config.output, folder=str(path), name=_usable_name(name)),
    )
    adapter = plan_adapter(config, family, pipe)
    config = resolve_text_rate(config, adapter, family)
    notes = [*ignored_files(config.data), *warnings_for(examples, size), *notes_on(adapter, config, pipe)]
    adapter.metadata = describe(config, family, pipe, examples, adapter)
    adapter.label = config.output.name
    if cut:
        notes.append(
            f"{len(cut)} captions are longer than the text encoder reads and lost their last words: {some(cut)}"
        )
    return Run(config, path, examples, family, pipe, adapter, device, dtype, notes)


def run_training(run: Run, *, watch: Watcher | None = None) -> Adapter:
    """Make the run folder and train. Consumes `run`: its pipeline loses text encoders that are not trained."""
    config, pipe, family = run.config, run.pipe, run.family
    with accelerator_for(run.device, run.dtype) as accelerator:
        if config.training.batch_size % accelerator.num_processes:
            raise ConfigError(
                f"training.batch_size is {config.training.batch_size}, which {accelerator.num_processes} processes "
                "cannot share; use a multiple"
            )
        leads = accelerator.is_main_process
        folder = RunFolder.create(run.path, config) if leads else RunFolder(run.path)
        data, previewer = _encode(run)
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


def default_steps(images: int, batch_size: int) -> int:
    """clamp(120 · images, 1200, 4000) exposures, in steps of `batch_size`."""
    return max(1, round(min(max(120 * images, 1200), 4000) / batch_size))


@torch.no_grad()
def _encode(run: Run) -> tuple[EncodedSet, Previewer]:
    """Encode pictures, captions and preview prompts once; then the text encoders are let go and the VAE set aside.
    Text encoders that are trained stay, and captions and prompts are encoded whenever they are used."""
    pipe, family, config = run.pipe, run.family, run.config
    pipe.to(run.device)
    text = trains_text(run.adapter, family)
    encoders = Encoders(
        lambda images: family.encode_images(pipe, images).cpu(),
        None if text else lambda captions: {k: v.cpu() for k, v in family.encode_captions(pipe, captions).items()},
        family.encode_framing,
    )
    data = encode_examples(run.examples, config.data.resolution, config.data.flip, encoders)
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
    run.adapter.metadata = at_step(run.adapter.metadata, run.config, len(run.examples), step)
    try:
        run.adapter.save(path, dtype=run.config.output.dtype)
    except AdapterError as error:
        spare = run.adapter.save(path.with_name(f"{path.stem}-float32.safetensors"), dtype="float32")
        raise AdapterError(f"{error}; it was kept as {spare}") from error


def _shortened(examples: list[Example], family: ModelFamily, pipe: Any) -> tuple[list[Example], list[str]]:
    """Examples whose captions the text encoder can read to the end, the trigger word included, and the names of those
    that lost words."""
    long = family.overlong(pipe, [example.caption for example in examples])
    result = list(examples)
    for index in long:
        example = examples[index]
        words = example.caption.removesuffix(triggered("", example.trigger)).split()
        while words and family.overlong(pipe, [triggered(" ".join(words), example.trigger)]):
            words.pop()
        result[index] = dataclasses.replace(example, caption=triggered(" ".join(words), example.trigger))
    return result, [examples[index].name for index in long]


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _prompts(examples: list[Example]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(example.caption for example in examples))[:3]


def _usable_name(name: str) -> str:
    """Other programs write an adapter's name into prompts as ``<lora:NAME:1>``."""
    cleaned = "".join("-" if c in ":<>," else c for c in name).strip() or "style"
    return f"{cleaned}-style" if cleaned.lower() == "none" else cleaned
