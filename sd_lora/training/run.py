"""One run from config to adapter: check everything, make the folder, train, save; or resume where it was stopped."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from sd_lora.adapters.adapter import Adapter
from sd_lora.config.schema import RunConfig
from sd_lora.errors import ConfigError, SdLoraWarning
from sd_lora.models.device import computing_with
from sd_lora.runs.folder import RunFolder
from sd_lora.runs.lock import RunLock
from sd_lora.runs.threads import claimed
from sd_lora.training.bar import Bar
from sd_lora.training.encoding import encode
from sd_lora.training.preparation import Counter, prepare
from sd_lora.training.prepared import Run
from sd_lora.training.session import Session, Watcher


class RunNote(SdLoraWarning):
    """What a user should know about a run."""


def warn(note: str) -> None:
    """Show `note` as a warning of whoever trains."""
    warnings.warn(note, RunNote, stacklevel=3)


def train(config: RunConfig, *, watch: Watcher | None = None) -> Adapter:
    """Train as `config` says; returns the adapter as it was saved (``<output.folder>/adapter.safetensors``).

    `watch` is called with every StepReport; without it, a bar shows the training in a notebook or on a terminal. Raises
    SdLoraError, with nothing written, if any input cannot be used.
    """
    run = prepare(config)
    for note in run.notes:
        warn(note)
    return _shown(run, watch)


def resume(folder: str | Path, *, watch: Watcher | None = None, finish: bool = False) -> Adapter:
    """Resume the run in `folder` from its newest checkpoint to the end, as if it had never been stopped; or `finish` it
    at the step it reached.

    Raises SdLoraError if it is not a run, is running, or its settings, images, captions or base model have changed.
    """
    files = RunFolder(Path(folder))
    config = files.read_config()
    if files.is_finished:
        return Adapter.load(files.adapter)
    run = prepare(config, resumed=True)
    for note in run.notes:
        warn(note)
    return _shown(run, watch, finish=finish)


def _shown(run: Run, watch: Watcher | None, *, finish: bool = False) -> Adapter:
    """Train, with a bar if nobody else watches."""
    if watch is not None or finish:
        return run_training(run, watch=watch, finish=finish)
    with Bar() as bar:
        return run_training(run, watch=bar.show, on_encode=bar.encoding)


def run_training(
    run: Run,
    *,
    watch: Watcher | None = None,
    on_encode: Counter | None = None,
    stop: Callable[[], int] = lambda: 0,
    on_note: Callable[[str], None] = warn,
    finish: bool = False,
) -> Adapter:
    """Make the run folder and train. Consumes `run`: its pipeline loses text encoders that are not trained.

    `on_encode` is called with how many of how many images and captions have been encoded. When `stop` gives the number
    of a signal, the step is finished, the state saved, and RunInterrupted raised. `on_note` is called with what a user
    should know meanwhile, as sentences. With `finish` nothing is trained: the run ends at the step of its checkpoint.
    """
    if finish and not run.resumed_from:
        raise ConfigError(
            f"{run.path} has no complete checkpoint, so there is no step to end it at; resume it without --finish"
        )
    trackers, threads = run.config.training.trackers, run.config.training.threads or torch.get_num_threads()
    with (
        computing_with(threads),
        claimed(threads, f"the run {run.path.name}"),
        accelerator_for(run.device, run.dtype, trackers, run.path) as accelerator,
    ):
        if run.config.training.batch_size % accelerator.num_processes:
            raise ConfigError(
                f"training.batch_size is {run.config.training.batch_size}, which {accelerator.num_processes} processes "
                "cannot share; use a multiple"
            )
        with _owned(run, accelerator):
            encoded = encode(run, accelerator, on_encode)
            session = Session(run, encoded, accelerator, on_note)
            if finish:
                session.finish_here()
            else:
                session.train(watch, stop)
            accelerator.wait_for_everyone()
    return Adapter.load(RunFolder(run.path).adapter)


@contextlib.contextmanager
def accelerator_for(
    device: torch.device, dtype: torch.dtype, trackers: Sequence[str] = (), folder: Path | None = None
) -> Iterator[Accelerator]:
    """An accelerator for one run; its process-wide state is cleared afterwards so that the next may differ. `trackers`
    write to `folder`."""
    # The loop runs autocast itself; accelerate adds the gradient scaler that float16 needs.
    mixed = "fp16" if dtype is torch.float16 else "no"
    accelerator = Accelerator(
        cpu=device.type == "cpu", mixed_precision=mixed, log_with=list(trackers) or None, project_dir=folder
    )
    if mixed == "fp16" and accelerator.num_processes > 1:
        raise ConfigError("float16 trains in one process only; set model.dtype=bfloat16 for several")
    try:
        yield accelerator
    finally:
        if accelerator.num_processes == 1:
            AcceleratorState._reset_state(reset_partial_state=True)


@contextlib.contextmanager
def _owned(run: Run, accelerator: Accelerator) -> Iterator[None]:
    """The run folder, made or taken over by the main process, for the length of a ``with`` block."""
    if not accelerator.is_main_process:
        accelerator.wait_for_everyone()
        yield
        return
    if not run.resumed:
        RunFolder(run.path).create(run.config)
    with RunLock(run.path):
        accelerator.wait_for_everyone()
        yield
