"""Schedulers that pictures can be drawn with instead of the base model's own, by A1111's names for them. No torch."""

from __future__ import annotations

from typing import Any

#: name → class of diffusers
SCHEDULERS = {
    "DDIM": "DDIMScheduler",
    "Euler": "EulerDiscreteScheduler",
    "Euler a": "EulerAncestralDiscreteScheduler",
    "DPM++ 2M": "DPMSolverMultistepScheduler",
    "UniPC": "UniPCMultistepScheduler",
}


def scheduler_named(name: str, own: Any) -> Any:
    """The scheduler of that name, with the noise levels and the kind of prediction of a base model's `own`; without a
    name `own` itself."""
    if not name:
        return own
    import diffusers

    return getattr(diffusers, SCHEDULERS[name]).from_config(own.config)
