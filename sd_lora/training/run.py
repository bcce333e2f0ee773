"""One run from config to adapter: check everything, make the folder, train, save; or go on where it was stopped."""

from __future__ import annotations

import contextlib
import shlex
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from accelerate import Accelerator

from sd_lora.adapters.adapter import Adapter
from sd_lora.config.schema import RunConfig
from sd_lora.errors import AdapterError, ConfigError, StorageError, TrainingStopped
from sd_lora.preview.sheet import PreviewGrid
from sd_lora.runs.folder import RunFolder
from sd_lora.runs.lock import RunLock
from sd_lora.runs.reports import StepReport
from sd_lora.training.accelerator import accelerator_for
from sd_lora.training.adapter_plan import trains_text
from sd_lora.training.checkpoints import Checkpoints
from sd_lora.training.encoding import encode
from sd_lora.training.loop import Trained, Trainer
from sd_lora.training.memory import OutOfMemory
from sd_lora.training.metadata import at_step
from sd_lora.training.optimizers import ParameterGroup
from sd_lora.training.preparation import Counter, Run, prepare
from sd_lora.training.resume_check import check_same, facts_of
from sd_lora.training.sidecars import export_diffusers, write_sidecars
from sd_lora.training.step import Material
from sd_lora.training.stopping import RunInterrupted
from sd_lora.training.trackers import start_trackers, track
from sd_lora.training.validation import Validation

Watcher = Callable[[StepReport], None]


def train(config: RunConfig, *, watch: Watcher | None = None) -> Adapter:
    """Train as `config` says; returns the adapter as it was saved (``<output.folder>/adapter.safetensors``).

    `watch` is called with every StepReport. Raises SdLoraError, with nothing written, if any input cannot be used.
    """
    return _warned(prepare(config), watch)


def resume(folder: str | Path, *, watch: Watcher | None = None) -> Adapter:
    """Go on with the run in `folder` from its newest checkpoint to the end, as if it had never been stopped.

    Raises SdLoraError if it is no run, is running, or its settings, images, captions or base model have changed.
    """
    run = RunFolder(Path(folder))
    config = run.read_config()
    if run.is_finished:
        return Adapter.load(run.adapter)
    return _warned(prepare(config, resumed=True), watch)


def _warned(run: Run, watch: Watcher | None) -> Adapter:
    for note in run.notes:
        _warn(note)
    return run_training(run, watch=watch)


def _warn(note: str) -> None:
    warnings.warn(note, stacklevel=4)


def run_training(
    run: Run, *, watch: Watcher | None = None, on_encode: Counter | None = None, stop: Callable[[], int] | None = None,
    on_note: Callable[[str], None] = _warn,
) -> Adapter:  # fmt: skip
    """Make the run folder and train. Consumes `run`: its pipeline loses text encoders that are not trained.

    `on_encode` is called with how many of how many images and captions have been encoded. When `stop` gives the number
    of a signal, the step is finished, the state saved, and RunInterrupted raised. `on_note` is called with what a user
    should know of a run that goes on, as sentences.
    """
    trackers = run.config.training.trackers
    with accelerator_for(run.device, run.dtype, trackers, run.path) as accelerator:
        if run.config.training.batch_size % accelerator.num_processes:
            raise ConfigError(
                f"training.batch_size is {run.config.training.batch_size}, which {accelerator.num_processes} processes "
                "cannot share; use a multiple"
            )
        folder = RunFolder(run.path)
        with _owned(run, folder, accelerator):
            session = _Session(run, folder, accelerator, (on_encode, on_note))
            session.train(watch, stop)
            accelerator.wait_for_everyone()
    return Adapter.load(folder.adapter)


@contextlib.contextmanager
def _owned(run: Run, folder: RunFolder, accelerator: Accelerator) -> Iterator[None]:
    """The run folder, made or taken over by the main process, for the length of a ``with`` block."""
    if not accelerator.is_main_process:
        accelerator.wait_for_everyone()
        yield
        return
    if not run.resumed:
        folder.create(run.config)
    with RunLock(folder.path):
        accelerator.wait_for_everyone()
        yield


class _Session:
    """A run at work: the adapter is injected, the data encoded, and the newest checkpoint, if any, taken up."""

    def __init__(
        self, run: Run, folder: RunFolder, accelerator: Accelerator,
        tell: tuple[Counter | None, Callable[[str], None]],
    ) -> None:  # fmt: skip
        self._run, self._folder, self._leads = run, folder, accelerator.is_main_process
        self._accelerator = accelerator
        on_encode, self._note = tell
        config, pipe, family = run.config, run.pipe, run.family
        encoded = encode(run, accelerator, on_encode)
        self._previewer = encoded.previewer
        denoiser = getattr(pipe, family.denoiser).to(accelerator.device)
        self._facts = facts_of(run, encoded, accelerator.num_processes)
        if config.training.compile:
            denoiser.compile()
        run.adapter.inject(pipe)
        captions = partial(family.encode_captions, pipe) if trains_text(run.adapter, family) else None
        objective = family.objective(pipe, zero_terminal_snr=config.training.zero_terminal_snr)
        prior = {example.name: config.data.prior_weight for example in run.examples if example.prior}
        material = Material(encoded.data, objective, captions, prior)
        self._trainer = Trainer(accelerator, family, denoiser, _trained(run), material, config)
        self._checkpoints = Checkpoints(folder.checkpoints, config.training.keep_checkpoints)
        self._validation = None
        if encoded.held is not None:
            self._validation = Validation(self._trainer.computation, encoded.data, encoded.held, config.training.seed)
        state = self._checkpoints.newest() if run.resumed else None
        notes = list(self._checkpoints.passed_over)
        if state is not None:
            notes += check_same(state.facts["run"], self._facts, run.path)
            self._trainer.restore(state)
        if config.training.trackers and self._leads:
            start_trackers(accelerator, config)
        for note in notes:
            self._note(note)
        if run.resumed and self._leads:
            folder.rewind(self._trainer.done)

    def train(self, watch: Watcher | None, stop: Callable[[], int] | None) -> None:
        """Train what is left, saving and drawing on the way."""
        trainer, training, every = self._trainer, self._run.config.training, self._run.config.preview.every
        trainer.stop = stop or trainer.stop
        try:
            for report in trainer.run():
                if self._leads:
                    self._folder.record(report)
                    self._watch_closely(report)
                    last = report.step == report.steps
                    if _due(report.step, training.checkpoint_every) or last or trainer.stopping:
                        self._save_state()
                    if not last and _due(report.step, every):
                        self._draw_samples(report.step)
                    if not last and _due(report.step, training.save_every):
                        self._save_adapter(self._folder.kept_adapter(report.step), report.step)
                if watch is not None:
                    watch(report)
                if trainer.stopping and report.step < report.steps:
                    raise self._interrupted(report)
        except (TrainingStopped, OutOfMemory) as error:
            raise type(error)(f"{error}; {self._kept()}") from error
        if self._leads:
            self._finish()

    def _watch_closely(self, report: StepReport) -> None:
        """Alarms, trackers and the validation loss."""
        for alarm in report.alarms:
            self._note(alarm)
        training = self._run.config.training
        if training.trackers:
            track(self._accelerator, report)
        due = _due(report.step, training.validate_every) or report.step == report.steps
        if self._validation is not None and due:
            with self._trainer.usable():
                self._folder.record_validation(self._validation.measure(report.step))

    def _interrupted(self, report: StepReport) -> RunInterrupted:
        if self._leads:
            try:
                self._folder.draw_loss()
            except Exception as error:  # what is trained is saved, and the run ends as it was asked to
                self._note(f"{self._folder.loss_curve.name} could not be drawn: {error}")
        return RunInterrupted(
            f"stopped after step {report.step} of {report.steps}, and saved; go on with: sd-lora resume "
            f"{shlex.quote(str(self._run.path))}", self._trainer.stopping,
        )  # fmt: skip

    def _kept(self) -> str:
        """Where the last good state is: that of the step before, if its weights are whole and it can be saved."""
        if self._leads and self._trainer.is_whole and self._trainer.done:
            with contextlib.suppress(TrainingStopped, StorageError):
                self._save_state()
        steps = self._checkpoints.steps()
        if not steps:
            return "nothing was kept"
        return f"the state after step {steps[-1]} is kept in {self._folder.checkpoints}"

    def _save_state(self) -> None:
        state = self._trainer.state()
        state.facts["run"] = self._facts
        self._folder.sync()
        self._checkpoints.save(state)

    def _save_adapter(self, path: Path, step: int) -> None:
        """Save the adapter with the facts of `step`; what the output dtype cannot hold is kept in float32 beside it."""
        run, average = self._run, self._trainer.average
        run.adapter.metadata = at_step(run.adapter.metadata, run.config, run.schedule.epoch_size, step)
        with self._trainer.usable():
            _save(run.adapter, path, run.config)
        if average is not None and average.tensors:
            with average.applied():
                _save(run.adapter, path.with_name(f"{path.stem}-{run.config.training.average}.safetensors"), run.config)

    def _draw_samples(self, step: int) -> PreviewGrid | None:
        """Draw the losses and the sample grid; a picture that cannot be drawn is told, and ends nothing."""
        run = self._run
        try:
            self._folder.draw_loss()
            run.pipe.vae.to(run.device)
            with self._trainer.usable():
                grid = self._previewer.grid(run.config.preview.prompts)
            grid.save(self._folder.sample_sheet(step))
            return grid
        except Exception as error:  # whatever it is, the training is worth more
            self._note(f"the samples of step {step} could not be drawn: {error}")
        finally:
            run.pipe.vae.to("cpu")
        return None

    def _finish(self) -> None:
        """Save and draw what is left at the end; the adapter first, so that no failure can cost the training."""
        run, folder, steps = self._run, self._folder, self._trainer.steps
        self._save_adapter(folder.adapter, steps)
        grid = self._draw_samples(steps)
        run.adapter.eject()
        picture = None
        if grid is not None:
            picture = grid.images[0][min(range(len(grid.strengths)), key=lambda i: abs(grid.strengths[i] - 1))]
        write_sidecars(folder.adapter, run.adapter.metadata, picture)
        export_diffusers(Adapter.load(folder.adapter), folder.export, run.config.output.dtype, picture)


def _trained(run: Run) -> Trained:
    """The adapter's layers, which are injected, in groups: denoiser or text encoders, and up matrices by themselves."""
    optimizer, family = run.config.optimizer, run.family
    layers, targets = run.adapter.layers, run.adapter.targets
    parameters, groups = {}, dict[tuple[bool, bool], ParameterGroup]()
    for name, layer in layers.items():
        text = name.split(".", 1)[0] in family.text_encoders
        peak = (optimizer.text_learning_rate if text else None) or optimizer.learning_rate
        for role, parameter in layer.named_parameters():
            parameters[f"{name}.{role}"] = parameter
            up = role.startswith("up.") and optimizer.plus_ratio != 1
            groups.setdefault((text, up), ParameterGroup([], peak, up)).params.append(parameter)
    return Trained(parameters, list(groups.values()), layers, targets)


def _save(adapter: Adapter, path: Path, config: RunConfig) -> None:
    try:
        adapter.save(path, dtype=config.output.dtype)
    except AdapterError as error:
        spare = adapter.save(path.with_name(f"{path.stem}-float32.safetensors"), dtype="float32")
        raise AdapterError(f"{error}; it was kept as {spare}") from error


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
