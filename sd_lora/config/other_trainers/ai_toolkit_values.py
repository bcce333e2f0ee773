"""What values of ai-toolkit are here, where one setting depends on others."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

from sd_lora.config.other_trainers import kohya_values as v
from sd_lora.config.other_trainers.kohya_layers import COMPLETE, COMPLETE_ALPHA, CONV, MOST, TEXT, UNET, lokr_factor
from sd_lora.config.other_trainers.optimizers import one_rate, peak
from sd_lora.config.other_trainers.row import (
    Given,
    Made,
    Read,
    choice,
    first,
    flag,
    is_at_rest,
    is_off,
    is_unset,
    number,
    numbers,
)
from sd_lora.config.schema import LoraConfig


def targets(value: Any, given: Given) -> Read:
    """The kind of the layers, and which modules have them."""
    variant = str(value).lower().replace("locon", "lora")
    if variant not in get_args(get_type_hints(LoraConfig)["variant"]):
        raise ValueError(f'{value} is no variant here; the run would train plain LoRA, with lora.variant="lora"')
    conv = [] if is_off(first(given, "network.conv", default=0)) and not is_complete(given) else ["conv"]
    unet, text = trains({"network.type": value, **given})
    return {
        "lora.targets": [*(UNET + conv if unet else []), *(TEXT if text else [])],
        **({} if variant == "lora" else {"lora.variant": variant}),
    }


def is_lokr(given: Given) -> bool:
    return str(first(given, "network.type", default="lora")).lower() == "lokr"


def is_complete(given: Given) -> bool:
    """Whether a LoKr has no matrix of a rank."""
    rank = number(first(given, "network.rank", "network.linear", default=0))
    return is_lokr(given) and (flag(first(given, "network.lokr_full_rank", default=False)) or rank > MOST)


def full_rank(value: Any, given: Given) -> Read:
    if not is_lokr(given):
        return {}, "it is for LoKr"
    return ({"lora.rank": MOST, "lora.alpha": MOST}, COMPLETE) if flag(value) else {}


def factor(value: Any, given: Given) -> Read:
    return lokr_factor(value) if is_lokr(given) else ({}, "it is for LoKr")


def rank(value: Any, given: Given) -> Read:
    return ({"lora.rank": MOST, "lora.alpha": MOST}, COMPLETE) if is_complete(given) else {"lora.rank": number(value)}


def linear_alpha(value: Any, given: Given) -> Read:
    return ({}, COMPLETE_ALPHA) if is_complete(given) else {"lora.alpha": number(value)}


def alpha(value: Any, given: Given) -> Read:
    if is_complete(given):
        return {}, COMPLETE_ALPHA
    if first(given, "network.linear_alpha") is not None:
        return {}, "network.linear_alpha counts"
    return {"lora.alpha": number(value)}


def conv(value: Any, given: Given) -> Read:
    """The rank of 3×3 convolutions, and their alpha, which is that rank where it is not given."""
    rank = int(number(value))
    if not rank:
        return {}, "3×3 convolutions are not trained"
    if is_complete(given):
        return {}, COMPLETE
    alpha = float(number(first(given, "network.conv_alpha", default=rank)))
    made: Made = {} if rank == first(given, "network.linear", "network.rank") else {
        "lora.ranks": dict.fromkeys(CONV, rank)}  # fmt: skip
    if alpha != first(given, "network.linear_alpha", "network.alpha"):
        made["lora.alphas"] = dict.fromkeys(CONV, alpha)
    return made


def conv_alpha(value: Any, given: Given) -> Read:
    if is_off(first(given, "network.conv", default=0)):
        return {}, "3×3 convolutions are not trained"
    if is_complete(given):
        return {}, COMPLETE_ALPHA
    same = number(value) == first(given, "network.linear_alpha", "network.alpha")
    return ({}, "as lora.alpha") if same else {"lora.alphas": dict.fromkeys(CONV, float(number(value)))}


def trains(given: Given) -> tuple[bool, bool]:
    """Whether the UNet and whether the text encoders are trained."""
    unet = flag(first(given, "train.train_unet", default=True))
    text = flag(first(given, "train.train_text_encoder", default="network.type" not in given))
    return (
        unet and not is_at_rest(given, "train.lr", "train.unet_lr"),
        text and not is_at_rest(given, "train.lr", "train.text_encoder_lr"),
    )


def rate(value: Any, given: Given) -> Read:
    made, note = {}, "train.unet_lr counts"
    unet, text = trains(given)
    if first(given, "train.unet_lr") is None and (unet or one_rate(given)):
        made, note = peak("optimizer.learning_rate", value, given)
    whole = text and "network.type" in given
    if whole and first(given, "train.text_encoder_lr") is None and not one_rate(given):
        of_text, note = peak("optimizer.text_learning_rate", value, given)
        made |= of_text
    return made, note


def unet_rate(value: Any, given: Given) -> Read:
    return peak("optimizer.learning_rate", value, given) if trains(given)[0] else ({}, "the UNet is not trained")


def text_rate(value: Any, given: Given) -> Read:
    if not trains(given)[1] or one_rate(given):
        return {}, "no rate of the text encoders can act"
    return peak("optimizer.text_learning_rate", value, given)


def schedule(value: Any, given: Given) -> Read:
    read = v.scheduler(value, given)
    made, note = read if isinstance(read, tuple) else (read, "")
    return {**made, "optimizer.warmup": 0}, note  # there is none


def device(value: Any, _: Given) -> Read:
    return {"model.device": str(value).partition(":")[0]}


def folder(value: Any, given: Given) -> Read:
    return {"output.folder": str(Path(str(value)) / str(first(given, "name", default="style")))}


def dtype(setting: str) -> Any:
    return choice(setting, v.PRECISIONS | {"float16": "float16", "bfloat16": "bfloat16", "float32": "float32"})


def ema(value: Any, _: Given) -> Read:
    return {"training.average": "ema"} if flag(value) else {}


def decay(value: Any, given: Given) -> Read:
    on = flag(first(given, "train.ema_config.use_ema", default="network.type" not in given))
    return {"training.ema_decay": number(value)} if on else ({}, "the average is off")


def crops(value: Any, _: Given) -> Read:
    return {"data.crops": 4 if flag(value) else 1}


def negative(value: Any, _: Given) -> Read:
    return {"preview.negative": str(value)} if not is_off(value) else {}


def strength(value: Any, _: Given) -> Read:
    return {} if is_unset(value) else {"preview.strengths": [0.0, *numbers(value)]}


def tag_dropout(value: Any, _: Given) -> Read:
    return {"data.tag_dropout": number(value)} if number(value) else {}


def quantize(value: Any, _: Given) -> Read:
    return {"model.quantize": "int8"} if flag(value) else {}
