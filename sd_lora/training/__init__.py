"""Training: from a config to a run folder with an adapter in it."""

from sd_lora.training.loop import StepReport, training_steps
from sd_lora.training.run import Run, prepare, train

__all__ = ["Run", "StepReport", "prepare", "train", "training_steps"]
