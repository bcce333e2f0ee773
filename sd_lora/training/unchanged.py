"""Whether a run can go on exactly: what it was trained on must be what is there now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sd_lora.data import EncodedSet
from sd_lora.errors import DataError, some
from sd_lora.training.preparation import Run

#: what may differ, at the price of other last bits
_SURROUNDINGS = ("device", "dtype", "torch", "processes")


def facts_of(run: Run, data: EncodedSet, processes: int) -> dict[str, Any]:
    """What the rest of a run depends on besides config and state, for a checkpoint."""
    return {
        "examples": data.fingerprints(),
        "base": run.family.denoiser_key(run.pipe),
        "device": run.device.type,
        "dtype": str(run.dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "processes": processes,
    }


def check_same(then: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> list[str]:
    """DataError if the base model or the examples have changed since; otherwise what else has, as sentences."""
    problems = []
    if then["base"] != now["base"]:
        problems.append("the base model is another")
    old, new = then["examples"], now["examples"]
    for what, names in (
        ("changed", [name for name in old if name in new and old[name] != new[name]]),
        ("gone", [name for name in old if name not in new]),
        ("new", [name for name in new if name not in old]),
    ):
        if names:
            problems.append(f"{len(names)} images or captions are {what} ({some(sorted(names), 3)})")
    if problems:
        raise DataError(
            f"{folder} cannot go on as it began: {', '.join(problems)}; put them back, or train anew with --out"
        )
    return [
        f"the run goes on with {key} {now[key]} instead of {then[key]}: its result may differ in the last bits"
        for key in _SURROUNDINGS if then[key] != now[key]
    ]  # fmt: skip
