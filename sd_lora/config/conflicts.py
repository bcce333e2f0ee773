"""Settings that cannot act beside the others: each is an error, so that none passes in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sd_lora.config.schema import RunConfig


def without_effect(config: RunConfig) -> list[str]:
    """All of them, a sentence each."""
    return [*_of_data(config), *_of_training(config), *_of_objective(config)]


def _of_data(config: RunConfig) -> list[str]:
    data, varied = config.data, config.data.shuffle_tags or config.data.tag_dropout > 0
    problems = [
        (not varied and data.keep_tags > 0,
            "data.keep_tags has no effect alone; set data.shuffle_tags or data.tag_dropout"),
        (varied and data.caption_variants == 1,
            "data.caption_variants=1 leaves nothing to data.shuffle_tags and data.tag_dropout; set it higher"),
        (len(set(data.more_resolutions)) < len(data.more_resolutions),
            "data.more_resolutions names a size twice; leave one out"),
    ]  # fmt: skip
    return [sentence for wrong, sentence in problems if wrong]


def _of_training(config: RunConfig) -> list[str]:
    training, plain = config.training, type(config.training)()
    problems = [
        (training.average != "ema" and training.ema_decay != plain.ema_decay,
            "training.ema_decay has no effect unless training.average=ema"),
        (training.average != "none" and config.optimizer.name == "schedule-free",
            f"training.average={training.average} cannot act with schedule-free, which averages already; leave it out"),
        (config.optimizer.max_norm > 0 and config.lora.variant == "dora",
            "optimizer.max_norm cannot act on DoRA, whose magnitude is free; leave it out or set lora.variant=lora"),
        (bool(training.hold_out) and not training.validate_every,
            "training.hold_out has no effect alone; set training.validate_every to how often the loss is measured"),
        (bool(training.validate_every) and not training.hold_out,
            "training.validate_every has no effect alone; set training.hold_out to the share of images held out"),
        (config.optimizer.name == "adamw8bit" and config.model.device in ("cpu", "mps"),
            f"optimizer.name=adamw8bit cannot act on {config.model.device}; it needs a CUDA device"),
        (bool(training.micro_batch and training.micro_batch > training.batch_size),
            f"training.micro_batch is {training.micro_batch}, more than training.batch_size, {training.batch_size}; "
            "lower it or leave it out"),
    ]  # fmt: skip
    return [sentence for wrong, sentence in problems if wrong]


def _of_objective(config: RunConfig) -> list[str]:
    training, plain = config.training, type(config.training)()
    low, high = training.timestep_range
    idle = [k for k in ("log_snr_mean", "log_snr_std") if getattr(training, k) != getattr(plain, k)]
    problems = [
        *((training.timesteps == "uniform",
            f"training.{key} has no effect with uniform timesteps; set training.timesteps=mixed") for key in idle),
        (training.loss != "huber" and training.huber_threshold != plain.huber_threshold,
            f"training.huber_threshold has no effect with training.loss={training.loss}; set training.loss=huber"),
        (training.debiased and training.min_snr_gamma is not None,
            "training.debiased and training.min_snr_gamma are two weightings; leave one out"),
        (low >= high, f"training.timestep_range is {low:g} to {high:g}, which holds nothing; the first is the smaller"),
        (training.zero_terminal_snr and config.model.prediction_type == "epsilon",
            "training.zero_terminal_snr cannot act on a base that predicts epsilon; leave it out"),
        (training.zero_terminal_snr and high < 1,
            f"training.zero_terminal_snr has no effect, as training.timestep_range ends at {high:g}; leave one out"),
        (training.zero_terminal_snr and (training.debiased or training.min_snr_gamma is not None),
            "training.zero_terminal_snr has no effect under a weighting that gives the end of the schedule no weight; "
            "leave training.min_snr_gamma and training.debiased out"),
    ]  # fmt: skip
    return [sentence for wrong, sentence in problems if wrong]
