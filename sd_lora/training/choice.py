"""Choose the checkpoint and strength of a finished run by measuring them, and make the choice its adapter."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from sd_lora.adapters.adapter import Adapter
from sd_lora.config.schema import RunConfig
from sd_lora.data.captions import trigger_phrase
from sd_lora.errors import ConfigError, shown
from sd_lora.evaluation.calibration import calibration_of
from sd_lora.evaluation.cells import Selection, select_cell, worth_measuring
from sd_lora.evaluation.drawing import Drawing, Illustrator
from sd_lora.evaluation.energy import LEAST_REFERENCES
from sd_lora.evaluation.evaluator import Materials, Progress, no_progress
from sd_lora.evaluation.materials import Trained, pictures_in, trained_by
from sd_lora.evaluation.prompts import crossed_prompts
from sd_lora.evaluation.report import write_report
from sd_lora.evaluation.selection import Cell
from sd_lora.lora.weights import Weights
from sd_lora.models.opening import open_base
from sd_lora.runs.folder import RunFolder, read_reports
from sd_lora.runs.lock import RunLock
from sd_lora.runs.reports import StepReport
from sd_lora.storage.atomic import storing, write_atomically
from sd_lora.training.samples import preview_model
from sd_lora.training.sidecars import export_diffusers, write_sidecars

#: of the time that the training took, what choosing may take
SHARE = 1 / 3
STRENGTHS = (1.0, 0.8, 1.2, 0.6)
_PROMPTS = 32


@dataclass(frozen=True)
class Wanted:
    """How to choose: the `share` of the training's time it may take, the `strengths`, the `seed` of the pictures, and a
    folder of `references` in place of the training pictures."""

    share: float = SHARE
    strengths: Sequence[float] = STRENGTHS
    seed: int = 0
    references: str = ""


def select(run: str | Path, wanted: Wanted | None = None, progress: Progress = no_progress) -> Selection:
    """Measure the adapters that the run in folder `run` kept at several strengths, and write the chosen one, at
    strength 1, as its ``adapter.safetensors``; the last step's stays as ``adapter-last.safetensors``.

    ConfigError unless the run is finished and its images can still be read; BaseModelError if its base model has not
    been calibrated.
    """
    folder, wanted = RunFolder(Path(run)), wanted or Wanted()
    config = _finished(folder)
    with RunLock(folder.path):
        materials = _materials(folder, config, wanted)
        model = preview_model(config.model)
        base = open_base(model)
        calibration = calibration_of(base.pipe, model.base)
        base.pipe.to(base.device)
        files, adapters = folder.kept(), dict[int, Adapter]()

        def load(cell: Cell) -> Adapter:
            if cell.step not in adapters:
                adapters[cell.step] = Adapter.load(files[cell.step])
            return adapters[cell.step]

        strengths = wanted.strengths if _scales(Adapter.load(folder.last)) else (1.0,)
        drawing = Drawing(config.preview.inference_steps, config.preview.guidance, wanted.seed)
        selection = select_cell(
            Illustrator(base.pipe, drawing),
            materials,
            calibration,
            worth_measuring(list(files), strengths),
            load,
            budget=wanted.share * _training_seconds(folder),
            progress=progress,
        )
        _write(folder, config, load(selection.choice.cell), selection, materials.trained)
    return selection


def undo(run: str | Path) -> Path:
    """Make the last step's adapter the run's again. ConfigError if nothing was chosen."""
    folder = RunFolder(Path(run))
    config = _finished(folder)
    if not folder.unselected.is_file():
        raise ConfigError(
            f"{shown(str(run))} has the adapter of its last step; nothing was chosen that could be undone"
        )
    with RunLock(folder.path):
        with storing(folder.adapter):
            folder.take_back()
        _write_beside(folder, config, Adapter.load(folder.adapter))
    return folder.adapter


def _finished(folder: RunFolder) -> RunConfig:
    config = folder.read_config()
    if not folder.is_finished:
        raise ConfigError(f"{shown(str(folder.path))} is not finished; resume it first: sd-lora resume {folder.path}")
    return config


def _materials(folder: RunFolder, config: RunConfig, wanted: Wanted) -> Materials:
    trained = trained_by(folder.adapter)
    if trained is None and not wanted.references:
        raise ConfigError(
            f"the images of {shown(str(folder.path))} cannot be read any more ({shown(config.data.folder)}); name a "
            "folder of pictures in the style with --references"
        )
    trained = trained or Trained((), (), ())
    references = pictures_in(wanted.references, "--references") if wanted.references else list(trained.pictures)
    if len(references) < LEAST_REFERENCES:
        raise ConfigError(
            f"{len(references)} pictures are too few to measure a style by, which takes {LEAST_REFERENCES}; name a "
            "folder of more in the same style with --references"
        )
    prompts = crossed_prompts(_PROMPTS, config.model.base)
    return Materials(references, prompts, trained.pictures, trained.captions)


def _training_seconds(folder: RunFolder) -> float:
    return sum(report.seconds for report in read_reports(folder.log, StepReport)) or math.inf


def _scales(adapter: Adapter) -> bool:
    """Whether a strength can be written into the file: the change of a DoRA is no multiple of its tensors."""
    return not any(weights.row.needs_base for weights in adapter.weights.values())


def _write(
    folder: RunFolder, config: RunConfig, adapter: Adapter, selection: Selection, trained: Sequence[Image.Image]
) -> None:
    """Write the chosen cell as the run's adapter, with what was measured; the last step's is kept."""
    cell = selection.choice.cell
    record = _record(selection)
    if not folder.unselected.is_file():
        with storing(folder.unselected):
            shutil.copyfile(folder.adapter, partial := folder.unselected.with_suffix(".partial"))
            partial.replace(folder.unselected)
    last = Adapter.load(folder.last)
    if cell.strength != 1:
        scaled = {
            name: Weights(w.variant, w.row.scaled(w.tensors, cell.strength), w.alpha)
            for name, w in adapter.weights.items()
        }
        adapter = Adapter(scaled, adapter.metadata, adapter.label)
    named = {key: last.metadata[key] for key in ("ss_output_name", "modelspec.title") if key in last.metadata}
    chosen = Adapter(adapter.weights, {**adapter.metadata, **named}, adapter.label)
    chosen.metadata["sdlora.selection"] = json.dumps(record, separators=(",", ":"))
    chosen.save(folder.adapter, dtype=config.output.dtype)
    write_atomically(folder.selection, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())
    written = Adapter.load(folder.adapter)
    _write_beside(folder, config, written)
    charts = [folder.loss_curve, folder.path / "validation.png"]
    write_report(folder.report, selection, trained, _facts(folder, config, written), charts)


def _facts(folder: RunFolder, config: RunConfig, adapter: Adapter) -> dict[str, Any]:
    """What the report says of the run."""
    data, training, lora = config.data, config.training, config.lora
    details = {
        "base model": config.model.base,
        "images": f"{adapter.metadata.get('ss_num_train_images', '')} in {data.folder}",
        "trigger word": data.trigger or "none",
        "modules": f"{len(adapter.weights)} ({', '.join(lora.targets)})",
        "layers": f"{lora.variant}, rank {lora.rank}, alpha {lora.alpha:g}",
        "optimizer": f"{config.optimizer.name}, rate {config.optimizer.learning_rate:g}, {config.optimizer.schedule}",
        "steps": f"{training.steps} of {training.batch_size} images, seed {training.seed}",
        "SHA-256 of the file": hashlib.sha256(folder.adapter.read_bytes()).hexdigest(),
        "sd_lora": adapter.metadata.get("sdlora.version", ""),
    }
    phrase = trigger_phrase(data.trigger)
    return {"name": config.output.name, "file": folder.adapter.name, "phrase": phrase, "details": details}


def _write_beside(folder: RunFolder, config: RunConfig, adapter: Adapter) -> None:
    """The sidecars and the export of the run's adapter. The picture beside it stays: it shows the style."""
    picture = None
    if (file := folder.adapter.with_suffix(".png")).is_file():
        with Image.open(file) as image:
            picture = image.copy()
    write_sidecars(folder.adapter, adapter.metadata, picture)
    export_diffusers(adapter, folder.export, config.output.dtype, picture)


def _record(selection: Selection) -> dict[str, object]:
    """The choice, why, and the figures of all cells."""
    choice = selection.choice
    return {
        "step": choice.cell.step,
        "strength": choice.cell.strength,
        "reasons": choice.reasons,
        "tied": [[cell.step, cell.strength] for cell in choice.tied],
        "seconds": round(selection.seconds, 1),
        "cells": [
            {
                "step": cell.step,
                "strength": cell.strength,
                "style": round(grid.style.of(i).value, 4),
                "interval": [round(each, 4) for each in grid.style.of(i).interval],
                "content": round(grid.content(i), 4),
                "copies": grid.copies(i).value,
                "n": grid.style.n,
            }
            for grid in (selection.grid, selection.finals)
            for i, cell in enumerate(grid.cells)
        ],
    }
