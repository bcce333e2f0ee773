"""What a run that is about to start will be, in words and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sd_lora.training.prepared import Run


def summary(run: Run) -> str:
    """How the folder was read, and what is about to be trained: two lines."""
    from sd_lora.adapters.fit import base_name

    held = f" of {run.images + len(run.held)} images, {len(run.held)} held out," if run.held else " images"
    data, training = run.config.data, run.config.training
    ranks = sorted({w.rank for w in run.adapter.weights.values()})
    rank = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
    judge = run.adapter.metadata.get("sdlora.judged_on", "")
    judged = f" (samples are drawn on {judge})" if judge else ""
    return (
        f"{data.folder}: {run.layout}\n"
        f"{run.images}{held} at {data.resolution} px, base model {base_name(run.pipe)}{judged}: "
        f"{len(run.adapter.weights)} modules of rank {rank}, {training.steps} steps of "
        f"{training.batch_size} images, {run.device.type}, {_precision(run)}"
    )


def resuming(run: Run, *, finish: bool = False) -> str:
    """Where a resumed run continues, or ends; nothing for a new one."""
    if not run.resumed:
        return ""
    if run.resumed_from is None:
        return "no complete checkpoint found; starting over"
    steps = run.config.training.steps or 0
    if finish:
        return f"ending the run at step {run.resumed_from} of {steps}"
    finished = run.resumed_from >= steps
    return (
        f"all {steps} steps are done; saving the rest"
        if finished
        else f"resuming after step {run.resumed_from} of {steps}"
    )


def plan_of(run: Run) -> dict[str, Any]:
    """What the run will be, for JSON; `reasons` are sentences."""
    from sd_lora.data.planning import default_exposures, epoch_exposures

    training, precision = run.config.training, _precision(run)
    steps, prior = training.steps or 0, len(run.examples) - run.images
    exposures, rule = steps * training.batch_size, default_exposures(run.images, prior=prior > 0)
    given = "as the run began" if run.resumed else "as set or by the preset"
    by_rule = "by the rule" if abs(exposures - rule) < training.batch_size else f"{given}; the rule gives {rule:,}"
    epochs = round(exposures / epoch_exposures(run.examples), 2)
    why = given if run.config.model.dtype != "auto" else "the default on this device"
    return {
        "images": run.images, "regularisation_images": prior, "held_out": len(run.held), "exposures": exposures,
        "epochs": epochs,
        "steps": steps, "batch_size": training.batch_size, "micro_batch": training.micro_batch,
        "gradient_checkpointing": training.gradient_checkpointing, "threads": training.threads,
        "device": run.device.type, "precision": precision,
        "seconds": None if run.means.seconds is None else run.means.seconds * steps, "memory_bytes": run.means.memory,
        "reasons": [
            f"{steps} steps of {training.batch_size} images are {exposures:,} exposures ({epochs:g} epochs), {by_rule}",
            *run.means.reasons,
            f"computed in {precision}, {why}; layers and optimizer in float32{_faster_precision(run)}",
            *_at_the_end_only(run),
        ],
    }  # fmt: skip


def _faster_precision(run: Run) -> str:
    from sd_lora.models.device import faster_dtype

    denoiser = getattr(run.pipe, run.family.denoiser)
    hint = faster_dtype(run.config.model, run.device, sum(parameter.numel() for parameter in denoiser.parameters()))
    return f"; {hint}" if hint else ""


def _at_the_end_only(run: Run) -> list[str]:
    """Settings that take effect only after the last step; a preset may have set them, so they are not errors."""
    training, steps = run.config.training, run.config.training.steps or 0
    settings = {
        "training.save_every": training.save_every,
        "training.validate_every": training.validate_every,
        "preview.every": run.config.preview.every,
    }
    rare = [f"{key}={value}" for key, value in settings.items() if value > steps]
    return [f"{' and '.join(rare)} in {steps} steps: only after the last one"] if rare else []


def _precision(run: Run) -> str:
    return str(run.dtype).removeprefix("torch.")
