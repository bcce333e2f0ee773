"""Which parts of the model kohya's scripts and their GUI train, and at which rates."""

from __future__ import annotations

from typing import Any

from sd_lora.config.other_trainers.optimizers import one_rate, peak
from sd_lora.config.other_trainers.row import Given, Read, first, flag, is_off, is_unset, number

_BOTH_ZERO = "0, as the other one is, so that learning_rate counts"
_NO_UNET = "the UNet is not trained, so that lora.targets is text and text_ff alone"
_NO_TEXT = "the text encoders are not trained, so that lora.targets has neither text nor text_ff"


def trained(given: Given) -> tuple[bool, bool]:
    """Whether the UNet and whether the text encoders are trained: a rate of 0 leaves a part as it is. The GUI takes 0
    for unset, unless the other part has a rate."""
    rates = [_rate(given, "unet_lr"), _rate(given, "text_encoder_lr", "text_encoder_lr1")]
    if "LoRA_type" in given:
        rates = [rate or 0 for rate in rates] if any(rates) else [None, None]
    of_all = _rate(given, "learning_rate")
    unet, text = (rate != 0 and not (rate is None and of_all == 0) for rate in rates)
    return (
        unet and not flag(first(given, "network_train_text_encoder_only", default=False)),
        text and not flag(first(given, "network_train_unet_only", default=False)),
    )


def _rate(given: Given, *names: str) -> float | None:
    """The largest rate of a part; None if it has none of its own."""
    values = [given[name] for name in names if not is_unset(given.get(name))]
    each = [number(rate) for value in values for rate in (value if isinstance(value, list) else [value])]
    return max(each, default=None)


def _is_for(given: Given, *names: str) -> bool:
    """Whether learning_rate is the rate of a part, whose own has one of `names`."""
    own = first(given, *names)
    return own is None or ("LoRA_type" in given and is_off(own))


def learning_rate(value: Any, given: Given) -> Read:
    """The rate of all layers, unless a part has its own."""
    unet, text = trained(given)
    made, note = {}, ""
    of_text = text and _is_for(given, "text_encoder_lr", "text_encoder_lr1")
    if (unet and _is_for(given, "unet_lr")) or (of_text and not unet and one_rate(given)):
        made, note = peak("optimizer.learning_rate", value, given)
    if of_text and first(given, "network_module", "LoRA_type") and not one_rate(given):
        of_text, note = peak("optimizer.text_learning_rate", value, given)
        made |= of_text  # half of it, if nothing were written
    return made, note or ("" if made else "unet_lr and text_encoder_lr say it")


def unet_rate(value: Any, given: Given) -> Read:
    """The rate of the UNet's layers."""
    if not trained(given)[0]:
        return {}, _NO_UNET
    return peak("optimizer.learning_rate", value, given) if number(value) else ({}, _BOTH_ZERO)


def text_rate(value: Any, given: Given) -> Read:
    """The rate of the text encoders' layers, which may be two there."""
    unet, text = trained(given)
    rates = [number(rate) for rate in (value if isinstance(value, list) else [value])]
    if not text:
        return {}, _NO_TEXT
    if not any(rates):
        return {}, _BOTH_ZERO
    if one_rate(given) and unet:
        return {}, "prodigy has one rate for all layers"
    setting = "optimizer.learning_rate" if one_rate(given) else "optimizer.text_learning_rate"
    made, note = peak(setting, next(filter(None, rates)), given)
    several = len({*filter(None, rates)}) > 1
    differ = "the text encoders have one rate here, so that only the first is used" if several else ""
    return made, note or differ
