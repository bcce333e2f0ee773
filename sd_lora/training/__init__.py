"""Training: from a config to a run folder with an adapter in it."""

from sd_lora.training.loop import StepReport, Trainer
from sd_lora.training.preparation import Run, prepare
from sd_lora.training.run import resume, train

__all__ = ["Run", "StepReport", "Trainer", "prepare", "resume", "train"]
