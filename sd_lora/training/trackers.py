"""Other places to which losses go: TensorBoard, wandb or trackio, through accelerate."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sd_lora.config.schema import RunConfig
from sd_lora.runs.reports import StepReport

if TYPE_CHECKING:  # checking settings needs no accelerate
    from accelerate import Accelerator


def missing_trackers(names: Sequence[str]) -> list[str]:
    """Why trackers cannot be used; nothing if all are installed."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    needs = f"training.trackers needs packages that are not installed: {', '.join(missing)}"
    return [f"{needs}; run pip install {' '.join(missing)}"] if missing else []


def start_trackers(accelerator: Accelerator, config: RunConfig) -> None:
    facts: dict[str, Any] = {
        "images": config.data.folder, "base": config.model.base, "steps": config.training.steps,
        "batch_size": config.training.batch_size, "rank": config.lora.rank, "seed": config.training.seed,
        "learning_rate": config.optimizer.learning_rate,
    }  # fmt: skip
    accelerator.init_trackers("sd_lora", config=facts, init_kwargs={"wandb": {"name": config.output.name}})


def track(accelerator: Accelerator, report: StepReport) -> None:
    values: dict[str, float] = {"loss": report.loss, "learning_rate": report.learning_rate, "memory": report.memory}
    if report.grad_norm is not None:
        values["grad_norm"] = report.grad_norm
    values |= {f"loss_noise_{i + 1}": value for i, value in enumerate(report.by_noise) if value is not None}
    accelerator.log(values, step=report.step)
