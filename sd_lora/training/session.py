"""A run in progress: its adapter is trained, saved and drawn with on the way."""

from __future__ import annotations

import contextlib
import shlex
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from accelerate import Accelerator

from sd_lora.adapters.adapter import Adapter
from sd_lora.check.cost import keep_seconds
from sd_lora.config.schema import RunConfig
from sd_lora.errors import AdapterError, SdLoraError, StorageError, TrainingStopped
from sd_lora.preview.sheet import PreviewGrid
from sd_lora.runs.folder import RunFolder
from sd_lora.runs.reports import StepReport
from sd_lora.training.adapter_plan import trains_text
from sd_lora.training.checkpoints import Checkpoints
from sd_lora.training.fast_path import FastPath
from sd_lora.training.loop import Trained, Trainer
from sd_lora.training.memory import OutOfMemory
from sd_lora.training.metadata import at_step
from sd_lora.training.optimizers import ParameterGroup
from sd_lora.training.prepared import Encoded, Run
from sd_lora.training.resume_check import check_same, facts_of
from sd_lora.training.sidecars import export_diffusers, write_sidecars
from sd_lora.training.step import Material
from sd_lora.training.stopping import RunInterrupted
from sd_lora.training.trackers import start_trackers, track
from sd_lora.training.validation import Validation

Watcher = Callable[[StepReport], None]


class Session:
    """A run in progress: the adapter is injected, and the newest checkpoint, if any, restored. `note` is called with
    what a user should know, as sentences."""

    def __init__(self, run: Run, encoded: Encoded, accelerator: Accelerator, note: Callable[[str], None]) -> None:
        self._run, self._folder, self._leads = run, RunFolder(run.path), accelerator.is_main_process
        self._accelerator, self._samples, self._note = accelerator, encoded.samples, note
        self._facts = facts_of(run, encoded, accelerator.num_processes)
        self._trainer = _trainer_of(run, encoded, accelerator)
        self._fast = FastPath(self._trainer, run.config.training)
        self._checkpoints = Checkpoints(self._folder.checkpoints, run.config.training.keep_checkpoints)
        self._validation = None
        if encoded.held is not None:
            seed = run.config.training.seed
            self._validation = Validation(self._trainer.computation, encoded.data, encoded.held, seed)
        if run.resumed:
            self._restore()
        if run.config.training.trackers and self._leads:
            start_trackers(accelerator, run.config)

    def _restore(self) -> None:
        """Restore the newest checkpoint, and forget the steps after it."""
        state = self._checkpoints.newest()
        notes = list(self._checkpoints.passed_over)
        if state is not None:
            notes += check_same(state.facts["run"], self._facts, self._run.path)
            self._trainer.restore(state)
            self._fast.restore(state.facts.get("fast", {}))
        for note in notes:
            self._note(note)
        if self._leads:
            self._folder.rewind(self._trainer.done)

    def train(self, watch: Watcher | None, stop: Callable[[], int]) -> None:
        """Train the steps that remain, saving and drawing on the way."""
        trainer, training, every = self._trainer, self._run.config.training, self._run.config.preview.every
        if not trainer.done:
            for note in self._fast.begin(self._accelerator, self._facts):
                self._note(note)
        seconds = deque[float](maxlen=100)
        try:
            for report in trainer.run(stop):
                self._fast.keep()
                seconds.append(report.seconds)
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
        finally:
            self._keep_seconds(list(seconds)[1:])  # the first step of a process is slow
        if self._leads:
            self._finish()

    def _keep_seconds(self, seconds: Sequence[float]) -> None:
        """Keep how long steps took, for the plans of later runs."""
        if self._leads and seconds:
            keep_seconds(self._run.cost_key, median(seconds))

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

    def finish_here(self) -> None:
        """End the run at the step it reached, without training further."""
        if self._leads:
            self._finish()

    def _interrupted(self, report: StepReport) -> RunInterrupted:
        """The error of a run that was asked to stop; its adapter is handed over, as far as it is trained."""
        adapter = ""
        if self._leads:
            try:
                self._save_adapter(self._folder.adapter, report.step)
                adapter = f"; the adapter so far is {self._folder.adapter}"
            except SdLoraError as error:  # the state is saved, and the run ends as requested
                self._note(f"the adapter of step {report.step} was not written: {error}")
            try:
                self._folder.draw_loss()
            except Exception as error:
                self._note(f"{self._folder.loss_curve.name} could not be drawn: {error}")
        run = shlex.quote(str(self._run.path))
        return RunInterrupted(
            f"stopped after step {report.step} of {report.steps}, and saved{adapter}; resume with: sd-lora resume "
            f"{run}, or end the run here with: sd-lora resume --finish {run}",
            self._trainer.stopping,
        )

    def _kept(self) -> str:
        """Where the last good state is: that of the step before, if its weights are intact and it can be saved."""
        if self._leads and self._trainer.intact and self._trainer.done:
            with contextlib.suppress(TrainingStopped, StorageError):
                self._save_state()
        state = self._checkpoints.newest(tensors=False)
        if state is None:
            return "nothing was kept"
        run = shlex.quote(str(self._run.path))
        return (
            f"the state after step {state.step} is kept in {self._checkpoints.folder}; for its adapter: sd-lora resume "
            f"--finish {run}"
        )

    def _save_state(self) -> None:
        state = self._trainer.state()
        state.facts |= {"run": self._facts, "fast": self._fast.facts}
        self._folder.sync()
        self._checkpoints.save(state)

    def _save_adapter(self, path: Path, step: int, *, final: bool = False) -> None:
        """Save the adapter with the facts of `step`; what the output dtype cannot hold is kept in float32 beside it."""
        run, average = self._run, self._trainer.average
        run.adapter.metadata = at_step(run.adapter.metadata, run.config, run.schedule.epoch_size, step, final=final)
        with self._trainer.usable():
            _save(run.adapter, path, run.config)
        if average is not None and average.tensors:
            with average.applied():
                _save(run.adapter, path.with_name(f"{path.stem}-{run.config.training.average}.safetensors"), run.config)

    def _draw_samples(self, step: int) -> PreviewGrid | None:
        """Draw the losses and the sample grid; if that fails, the run continues with a note."""
        run = self._run
        try:
            self._folder.draw_loss()
            with self._trainer.usable():
                grid = self._samples.draw(run.adapter, run.config.preview.prompts)
            grid.save(self._folder.sample_sheet(step))
            return grid
        except Exception as error:  # no failure to draw may end the training
            self._note(f"the samples of step {step} could not be drawn: {error}")
        return None

    def _finish(self) -> None:
        """Save and draw what remains at the end; the adapter first, so that no failure can lose it."""
        run, folder, step = self._run, self._folder, self._trainer.done
        self._save_adapter(folder.adapter, step, final=True)
        grid = self._draw_samples(step)
        run.adapter.eject()
        picture = None
        if grid is not None:
            picture = grid.images[0][min(range(len(grid.strengths)), key=lambda i: abs(grid.strengths[i] - 1))]
        write_sidecars(folder.adapter, run.adapter.metadata, picture)
        export_diffusers(Adapter.load(folder.adapter), folder.export, run.config.output.dtype, picture)


def _trainer_of(run: Run, encoded: Encoded, accelerator: Accelerator) -> Trainer:
    """Inject the adapter, and return its trainer."""
    config, pipe, family = run.config, run.pipe, run.family
    denoiser = getattr(pipe, family.denoiser).to(accelerator.device)
    run.adapter.inject(pipe)
    captions = partial(family.encode_captions, pipe) if trains_text(run.adapter, family) else None
    objective = family.objective(pipe, zero_terminal_snr=config.training.zero_terminal_snr)
    prior = {example.name: config.data.prior_weight for example in run.examples if example.prior}
    material = Material(encoded.data, objective, captions, prior)
    return Trainer(accelerator, family, denoiser, _trained(run), material, config)


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
