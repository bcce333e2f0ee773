"""What kohya's settings of layers and their rates are here, where one depends on others."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

from sd_lora.config.other_trainers.row import Given, Made, Read, first, flag, is_off, number
from sd_lora.config.schema import LoraConfig

#: 3×3 convolutions; others of the group "conv" have the rank of linear layers in kohya's scripts too
CONV = ("unet.*.conv[12]", "unet.*samplers.0.conv")
UNET = ["attn", "ff", "proj"]
TEXT = ["text", "text_ff"]
#: name in small letters → optimizer here, and its weight decay where none is given there
OPTIMIZERS = {
    "adamw": ("adamw", 0.01), "pagedadamw": ("adamw", 0.01), "pagedadamw32bit": ("adamw", 0.01),
    "adamw8bit": ("adamw8bit", 0.01), "pagedadamw8bit": ("adamw8bit", 0.01), "adamw_8bit": ("adamw8bit", 0.01),
    "adafactor": ("adafactor", 0.0), "prodigy": ("prodigy", 0.0), "lion": ("lion", 0.0), "lion8bit": ("lion", 0.0),
    "lion_8bit": ("lion", 0.0), "pagedlion8bit": ("lion", 0.0), "adamwschedulefree": ("schedule-free", 0.0),
    "schedule_free_adamw": ("schedule-free", 0.0), "prodigyplusschedulefree": ("prodigy", 0.0),
    "prodigy_plus_schedule_free": ("prodigy", 0.0),
}  # fmt: skip
#: module of kohya's scripts, algorithm of LyCORIS or type of the GUI → variant here
_VARIANTS = {
    "networks.lora": "lora", "locon": "lora", "lora": "lora", "standard": "lora", "kohya locon": "lora",
    "lycoris/locon": "lora", "networks.loha": "loha", "loha": "loha", "lycoris/loha": "loha",
    "networks.lokr": "lokr", "lokr": "lokr", "lycoris/lokr": "lokr",
}  # fmt: skip


def only_unet(given: Given) -> bool:
    """Whether the text encoders are left as they are."""
    rates = [given[name] for name in ("text_encoder_lr", "text_encoder_lr1") if name in given]
    return flag(first(given, "network_train_unet_only", default=False)) or bool(
        rates and first(given, "unet_lr", "learning_rate") and _least(rates) == 0
    )


def _least(rates: list[Any]) -> float:
    return max((number(rate) for each in rates for rate in (each if isinstance(each, list) else [each])
                if each not in (None, "")), default=1)  # fmt: skip


def _one_rate(given: Given) -> bool:
    name = str(first(given, "optimizer_type", "optimizer", default="")).lower().rpartition(".")[2]
    return OPTIMIZERS.get(name, ("",))[0] == "prodigy"


def learning_rate(value: Any, given: Given) -> Read:
    """The rate of all layers, unless a part has its own."""
    made: Made = {}
    if is_off(first(given, "unet_lr", default=0)):
        made["optimizer.learning_rate"] = number(value)
    trained = first(given, "network_module", "LoRA_type") and not only_unet(given) and not _one_rate(given)
    if trained and first(given, "text_encoder_lr", "text_encoder_lr1") is None:
        made["optimizer.text_learning_rate"] = number(value)  # half of it, if nothing were written
    return made, "" if made else "unet_lr and text_encoder_lr say it"


def unet_rate(value: Any, _: Given) -> Read:
    return {"optimizer.learning_rate": number(value)} if number(value) else ({}, "0, so that learning_rate counts")


def text_rate(value: Any, given: Given) -> Read:
    rates = [number(rate) for rate in value] if isinstance(value, list) else [number(value)]
    if only_unet(given) or not rates[0]:
        return {}, "the text encoders are not trained, so that lora.targets has neither text nor text_ff"
    if _one_rate(given):
        return {}, "prodigy has one rate for all layers"
    differ = "the text encoders have one rate here, so that only the first is used" if len({*rates}) > 1 else ""
    return {"optimizer.text_learning_rate": rates[0]}, differ


def module(value: Any, given: Given) -> Read:
    """The kind of the layers, and which modules have them."""
    name = str(value).lower()
    algorithm = first(given, "network_args.algo", "algo", default="locon") if name == "lycoris.kohya" else name
    variant = _VARIANTS.get(str(algorithm).lower())
    if variant not in get_args(get_type_hints(LoraConfig)["variant"]):
        raise ValueError(f'{algorithm} is no variant here; the run would train plain LoRA, with lora.variant="lora"')
    if flag(first(given, "network_args.dora_wd", "dora_wd", default=False)) and variant == "lora":
        variant = "dora"
    plain = name in ("networks.lora", "standard", "networks.loha", "networks.lokr")
    rank = first(given, "network_args.conv_dim", "conv_dim", default=0)
    conv = [] if (plain and is_off(rank)) or name == "standard" else ["conv"]
    if flag(first(given, "network_train_text_encoder_only", default=False)):
        targets = TEXT
    else:
        targets = [*UNET, *conv, *([] if only_unet(given) else TEXT)]
    return {"lora.targets": targets, **({} if variant == "lora" else {"lora.variant": variant})}


def without_text(value: Any, given: Given) -> Read:
    if not flag(value) or first(given, "network_module", "LoRA_type"):
        return {}, "lora.targets has neither text nor text_ff" if flag(value) else ""
    return {"lora.targets": UNET}


def text_alone(value: Any, given: Given) -> Read:
    if not flag(value) or first(given, "network_module", "LoRA_type"):
        return {}, "lora.targets is text and text_ff alone" if flag(value) else ""
    return {"lora.targets": TEXT}


def dora(value: Any, _: Given) -> Read:
    return {"lora.variant": "dora"} if flag(value) else {}


def conv_rank(value: Any, given: Given) -> Read:
    """The rank of 3×3 convolutions, and their alpha, which is 1 where it is not given."""
    rank = int(number(value))
    if not rank or str(given.get("LoRA_type", "")).lower() == "standard":
        return {}, "3×3 convolutions are not trained"
    alpha = number(first(given, "network_args.conv_alpha", "conv_alpha", default=1))
    made: Made = {}
    if rank != first(given, "network_dim", default=0):
        made["lora.ranks"] = dict.fromkeys(CONV, rank)
    if alpha != first(given, "network_alpha", default=0):
        made["lora.alphas"] = dict.fromkeys(CONV, float(alpha))
    return made, "" if made else "as lora.rank and lora.alpha"


def conv_alpha(value: Any, given: Given) -> Read:
    rank = first(given, "network_args.conv_dim", "conv_dim", default=0)
    if is_off(rank) or str(given.get("LoRA_type", "")).lower() == "standard":
        return {}, "3×3 convolutions are not trained"
    if number(value) == first(given, "network_alpha", default=0):
        return {}, "as lora.alpha"
    return {"lora.alphas": dict.fromkeys(CONV, float(number(value)))}
