"""Settings that would have no effect beside the others: found by trying each with another value, so that the places
that judge settings are asked, and nothing is written down twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sd_lora.config.conflicts import conflicts
from sd_lora.config.schema import RunConfig
from sd_lora.errors import SdLoraError

from ...checks import check_settings

Place = tuple[str, str]
#: settings that depend on others, each with two values to try
TRIED: dict[Place, tuple[Any, Any]] = {
    ("optimizer", "text_learning_rate"): (1e-5, 2e-5), ("optimizer", "betas"): ((0.8, 0.9), (0.7, 0.9)),
    ("optimizer", "final"): (0.5, 0.4), ("optimizer", "power"): (3.0, 4.0), ("optimizer", "plus_ratio"): (2.0, 3.0),
    ("optimizer", "max_norm"): (1.0, 2.0), ("lora", "factor"): (4, 8), ("lora", "rank_dropout"): (0.1, 0.2),
    ("model", "quantize"): ("int8", "nf4"), ("training", "text_steps"): (1, 2),
    ("training", "min_snr_gamma"): (3.0, 4.0), ("training", "log_snr_mean"): (-1.0, -2.0),
    ("training", "log_snr_std"): (1.0, 3.0), ("training", "huber_threshold"): (0.2, 0.3),
    ("training", "zero_terminal_snr"): (True, True), ("training", "average"): ("ema", "tail"),
    ("training", "ema_decay"): (0.5, 0.6), ("training", "hold_out"): (0.2, 0.3),
}  # fmt: skip
#: settings that decide about those
DECIDING: tuple[Place, ...] = (
    ("optimizer", "name"), ("optimizer", "schedule"), ("lora", "variant"), ("lora", "init"), ("lora", "targets"),
    ("training", "weighting"), ("training", "timesteps"), ("training", "timestep_range"), ("training", "loss"),
    ("training", "average"), ("training", "validate_every"), ("model", "prediction_type"), ("model", "device"),
)  # fmt: skip


def idle_reasons(config: RunConfig) -> dict[Place, str]:
    """Why a change of a setting would have no effect, for those of `TRIED` of which that is so."""
    before, reasons = set(_problems(config)), dict[Place, str]()
    for (section, key), values in TRIED.items():
        now = getattr(getattr(config, section), key)
        value = values[1] if values[0] == now else values[0]
        changed = replace(config, **{section: replace(getattr(config, section), **{key: value})})
        new = [text for text in _problems(changed) if text not in before and f"{section}.{key}" in text]
        if new and value != now:
            reasons[section, key] = new[0]
    return reasons


def _problems(config: RunConfig) -> list[str]:
    try:
        check_settings(config)
    except SdLoraError as error:
        return [*conflicts(config), *str(error).split("; ")]
    return conflicts(config)
