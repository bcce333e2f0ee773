"""Settings and presets by their former names: still read, with a warning that says what to write now."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from sd_lora.errors import ConfigError, SdLoraWarning

#: section → former setting → its type
OLD_SETTINGS: Mapping[str, Mapping[str, str]] = {"training": {"debiased": "bool"}}
#: former preset → the one that replaced it
OLD_PRESETS = {"sd15-style": "style", "sd21-style": "style", "sdxl-style": "style"}


class OldSpelling(SdLoraWarning):
    """Something was written by its former name."""


def preset_now(name: str) -> str:
    """The name that preset `name` has now."""
    if name in OLD_PRESETS:
        _warn(f"the preset {name} is now called {OLD_PRESETS[name]}; write that")
    return OLD_PRESETS.get(name, name)


def training_now(training: Mapping[str, Any], *, quiet: bool = False) -> dict[str, Any]:
    """`training` (key → value) with ``weighting`` instead of ``debiased`` and of a ``min_snr_gamma`` alone, which may
    be None. ConfigError for two weightings."""
    old = [key for key in ("debiased", "min_snr_gamma") if key in training]
    if not old or ("weighting" in training and "debiased" not in training):
        return dict(training)
    debiased, gamma = training.get("debiased", False), training.get("min_snr_gamma")
    if not isinstance(debiased, bool):
        raise ConfigError(f"training.debiased takes true or false, but {debiased!r} was given")
    weighting = training.get("weighting", "none" if gamma is None else "min-snr")
    if debiased and weighting not in ("none", "debiased"):
        raise ConfigError(f"training.debiased and training.weighting={weighting} are two weightings; leave one out")
    weighting = "debiased" if debiased else weighting
    if not quiet:
        what = "debiased" if "debiased" in training else "min_snr_gamma without training.weighting"
        _warn(f'training.{what} is an old spelling; write training.weighting="{weighting}" for it')
    now = {**training, "weighting": weighting}
    for key in ("debiased", *(["min_snr_gamma"] if gamma is None else [])):
        now.pop(key, None)
    return now


def _warn(sentence: str) -> None:
    warnings.warn(sentence, OldSpelling, stacklevel=2)
