"""What the optimizers of other trainers are here, and what a learning rate means beside them."""

from __future__ import annotations

import re
from typing import Any

from sd_lora.config.other_trainers.row import Given, Made, Read, first, flag, number

#: a name's letters and digits → optimizer here, and its weight decay where none is given there; the first that matches
_OPTIMIZERS = (
    (r"(paged)?adamw8(bit)?", "adamw8bit", 0.01), (r"(paged)?adamw(\d+bit|fused)?", "adamw", 0.01),
    (r"(paged)?adam8(bit)?", "adamw8bit", 0.0), (r"(paged)?adam(\d+bit|fused)?", "adamw", 0.0),
    (r"adamwadv", "adamw", 0.01), (r"adamadv", "adamw", 0.0), (r"adafactor", "adafactor", 0.0),
    (r"prodigy.*|dadapt.*", "prodigy", 0.0), (r"(paged)?lion(\d+bit|adv)?", "lion", 0.0),
    (r"r?adamw?schedulefree|schedulefree(r?adamw?)?", "schedule-free", 0.0),
)  # fmt: skip
#: those that are the same here; of others it is the nearest
_SAME = ("adamw", "adamw8bit", "adamw8", "adafactor", "prodigy", "prodigyopt", "lion", "schedulefree",
         "adamwschedulefree", "schedulefreeadamw")  # fmt: skip
#: what becomes of all that an optimizer has besides its rate, betas and weight decay
OWN_SETTINGS = (
    "Prodigy has d_coef=1, d0=1e-6, use_bias_correction and safeguard_warmup here, and others have their own defaults"
)
_NAMES = ("optimizer_type", "optimizer.optimizer", "train.optimizer", "optimizer")


def nearest(value: Any) -> tuple[str, float, bool]:
    """The optimizer here that is `value` there or does the most like it, the weight decay that it has there where none
    is given, and whether it is the same; ("", 0, False) if there is none."""
    name = re.sub(r"[^a-z0-9]", "", str(value).lower().rpartition(".")[2])
    for pattern, ours, decay in _OPTIMIZERS:
        if re.fullmatch(pattern, name):
            return ours, decay, name in _SAME
    return "", 0.0, False


def optimizer(value: Any, given: Given) -> Read:
    """The optimizer of that name, or the nearest, with the weight decay that it has there."""
    known, decay, same = nearest(value)
    if not known:
        raise ValueError(f"there is no {value} here; the run would use optimizer.name=adamw, at a rate of its own")
    made: Made = {"optimizer.name": known}
    decays = ("optimizer_args.weight_decay", "weight_decay", "optimizer.weight_decay",
              "train.optimizer_params.weight_decay")  # fmt: skip
    if decay != 0.01 and first(given, *decays) is None:
        made["optimizer.weight_decay"] = decay
    return made, "" if same else f"there is no {value} here; the nearest is {known}"


def _named(given: Given) -> Any:
    """The name of the optimizer in a file; None if it has none."""
    if flag(first(given, "use_8bit_adam", default=False)):
        return "adamw8bit"
    return "lion" if flag(first(given, "use_lion_optimizer", default=False)) else first(given, *_NAMES)


def one_rate(given: Given) -> bool:
    """Whether the optimizer has one rate for all layers, which it finds by itself."""
    return nearest(_named(given))[0] == "prodigy"


def averages(given: Given) -> bool:
    """Whether the optimizer is one without a schedule."""
    return nearest(_named(given))[0] == "schedule-free"


def peak(setting: str, value: Any, given: Given) -> tuple[Made, str]:
    """A learning rate as `setting`; none where the optimizer it is for does not exist here."""
    name, rate = _named(given), number(value)
    if name is not None and not nearest(name)[0]:
        return {}, f"it is a rate for {name}, which does not exist here; choose one for optimizer.name=adamw"
    if rate == 0:
        return {}, "0, so that nothing is trained at it"
    if one_rate(given) and rate < 0.1:
        return {
            setting: 1
        }, f"prodigy finds the rate by itself and multiplies it by this, so that {rate:g} would be none"
    return {setting: rate}, ""
