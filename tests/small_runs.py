"""Small runs for the tests of resuming: folders, configs, interruptions, and the bytes of what comes out."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable
from pathlib import Path

from sd_lora.config.presets import load_config
from sd_lora.config.schema import RunConfig
from sd_lora.runs.folder import RunFolder
from sd_lora.runs.reports import StepReport
from sd_lora.tinybase.styles import render
from sd_lora.tinybase.world import sample_scene
from sd_lora.training.checkpoints import Checkpoints
from sd_lora.training.preparation import prepare
from sd_lora.training.run import run_training
from sd_lora.training.stopping import RunInterrupted

#: seven steps of two images: an epoch of the three images ends after the third and the sixth
STEPS = 7
QUICK = (
    "training.batch_size=2", f"training.steps={STEPS}", "preview.inference_steps=1", "preview.strengths=1",
    "preview.guidance=1", "model.device=cpu", "data.trigger=zwq", "lora.rank=2", "lora.targets=attn",
)  # fmt: skip


class Crash(Exception):
    """What ends a run between two checkpoints."""


def write_images(folder: Path, count: int = 3) -> Path:
    folder.mkdir()
    for i in range(count):
        render(sample_scene(i), "woodcut", 32).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"{sample_scene(i).caption}\nanother caption of {i}\n", "utf-8")
    return folder


def config_of(base: Path, images: Path, out: Path, *overrides: str) -> RunConfig:
    paths = (f"model.base={base}", f"data.folder={images}", f"output.folder={out}")
    return load_config("tiny-style", *paths, *QUICK, *overrides)


def go(config: RunConfig, *, resumed: bool = False, crash_after: int = 0, stop_after: int = 0) -> list[StepReport]:
    """Run to the end, or crash after a step, or ask to stop after one; the reports of the steps that were trained."""
    reports = list[StepReport]()

    def watch(report: StepReport) -> None:
        reports.append(report)
        if crash_after and report.step == crash_after:
            raise Crash

    def stop() -> int:  # asked while a step is computed, whose report comes after
        return 15 if stop_after and len(reports) + (reports[0].step if reports else first) >= stop_after else 0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = prepare(config, resumed=resumed)
        first = 1
        run_training(run, watch=watch, stop=stop if stop_after else lambda: 0)
    return reports


def resumed(folder: Path, **how: int) -> list[StepReport]:
    return go(RunFolder(folder).read_config(), resumed=True, **how)


def interrupted(run: Callable[[], object]) -> bool:
    """Whether the run was stopped, by a crash or on request."""
    try:
        run()
    except (Crash, RunInterrupted):
        return True
    return False


def body_of(file: Path) -> bytes:
    """The bytes of a file's tensors: all that follows the header."""
    content = file.read_bytes()
    return content[8 + struct.unpack("<Q", content[:8])[0] :]


def valid_steps(store: Checkpoints) -> list[int]:
    """The steps of all valid checkpoints, ascending; a run needs only the newest."""
    return [step for step in store._present() if store._valid(step)]
