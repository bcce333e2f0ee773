"""What values of OneTrainer are here, where one setting depends on others."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath
from typing import Any

from sd_lora.config.other_trainers.kohya_layers import OPTIMIZERS, TEXT, UNET
from sd_lora.config.other_trainers.kohya_values import scheduler
from sd_lora.config.other_trainers.row import Given, Made, Read, choice, first, flag, is_off, number

DTYPES = {"float_16": "float16", "bfloat_16": "bfloat16", "float_32": "float32", "tfloat_32": "float32"}
_QUANTIZED = {"float_8": "fp8", "float_w8a8": "fp8", "int_8": "int8", "int_w8a8": "int8", "nfloat_4": "nf4"}
_FILTERS = {"attn-mlp": UNET, "attn-only": ["attn"], "full": [*UNET, "conv"], "blocks": [*UNET, "conv"]}


def _trains_text(given: Given) -> bool:
    return any(flag(first(given, f"{part}.train", old, default="training_method" in given))
               for part, old in (("text_encoder", "train_text_encoder"),))  # fmt: skip


def targets(value: Any, given: Given) -> Read:
    known = _FILTERS.get(str(value))
    if known is None:
        raise ValueError(f"write patterns for {value!r} into lora.targets; the run would train attn and ff")
    return {"lora.targets": [*known, *(TEXT if _trains_text(given) else [])]}


def text(value: Any, given: Given) -> Read:
    if "layer_filter_preset" in given:
        return {}, "lora.targets has text and text_ff" if flag(value) else "lora.targets has neither text nor text_ff"
    return {"lora.targets": [*UNET, *TEXT]} if flag(value) else {"lora.targets": UNET}


def rate(value: Any, given: Given) -> Read:
    made: Made = {}
    if first(given, "unet.learning_rate", "unet_learning_rate") is None:
        made["optimizer.learning_rate"] = number(value)
    own = first(given, "text_encoder.learning_rate", "text_encoder_learning_rate")
    if "layer_filter_preset" in given and _trains_text(given) and own is None and not _prodigy(given):
        made["optimizer.text_learning_rate"] = number(value)
    return made, "" if made else "the UNet's own rate counts"


def _prodigy(given: Given) -> bool:
    return "PRODIGY" in str(first(given, "optimizer.optimizer", "optimizer", default=""))


def text_rate(value: Any, given: Given) -> Read:
    if ("layer_filter_preset" in given and not _trains_text(given)) or _prodigy(given):
        return {}, "no rate of the text encoders can act"
    return {"optimizer.text_learning_rate": number(value)}


def optimizer(value: Any, given: Given) -> Read:
    name = str(value).lower()
    known, decay = OPTIMIZERS.get(name, ("prodigy" if "dadapt" in name or "d_adapt" in name else "", 0.01))
    if not known:
        raise ValueError(f"there is no {value} here; the run would use optimizer.name=adamw")
    made: Made = {"optimizer.name": known}
    if decay != 0.01 and first(given, "weight_decay", "optimizer.weight_decay") is None:
        made["optimizer.weight_decay"] = decay
    same = known.replace("-", "_") in (name.replace("adamw_8bit", "adamw8bit"), "schedule_free")
    return made, "" if same else f"there is no {value} here; the nearest is {known}"


def betas(_: Any, given: Given) -> Read:
    return {"optimizer.betas": [number(first(given, "optimizer.beta1", default=0.9)),
                                number(first(given, "optimizer.beta2", default=0.999))]}  # fmt: skip


def schedule(value: Any, given: Given) -> Read:
    if "SCHEDULE_FREE_ADAMW" in str(first(given, "optimizer.optimizer", "optimizer", default="")):
        return {"optimizer.schedule": "constant"}, "a schedule-free optimizer has none"
    return scheduler(value, given)


def warmup(value: Any, _: Given) -> Read:
    steps = number(value)
    if steps <= 1:
        return {"optimizer.warmup": steps}
    return {}, f"a share of all steps here: set optimizer.warmup to {steps:g} / steps, which sd-lora plan shows"


def weighting(value: Any, given: Given) -> Read:
    if value == "MIN_SNR_GAMMA":
        gamma = number(first(given, "loss_weight_strength", default=5))
        return {"training.weighting": "min-snr", "training.min_snr_gamma": gamma}
    return choice("training.weighting", {"constant": "none", "debiased_estimation": "debiased"})(value, given)


def loss(_: Any, given: Given) -> Read:
    kinds = {"mse_strength": "l2", "mae_strength": "l1", "huber_strength": "huber"}
    shares = {loss: number(first(given, name, default=int(loss == "l2" and "mse_strength" not in given)))
              for name, loss in kinds.items()}  # fmt: skip
    best = max(shares, key=lambda loss: shares[loss])
    mixed = sum(share > 0 for share in shares.values()) > 1
    return {"training.loss": best}, "one loss here, the one that weighs most" if mixed else ""


def range(_: Any, given: Given) -> Read:
    low, high = (float(number(first(given, name, default=other)))
                 for name, other in (("min_noising_strength", 0), ("max_noising_strength", 1)))  # fmt: skip
    return {} if (low, high) == (0, 1) else {"training.timestep_range": [low, high]}


def terminal(value: Any, given: Given) -> Read:
    if flag(value) and given.get("loss_weight_fn", "CONSTANT") != "CONSTANT":
        return {}, "the weighting gives the end of the schedule no weight, so that it would do nothing"
    return {"training.zero_terminal_snr": True} if flag(value) else {}


def ema(value: Any, _: Given) -> Read:
    return {} if is_off(value) else {"training.average": "ema"}


def decay(value: Any, given: Given) -> Read:
    return ({}, "ema is off") if is_off(first(given, "ema", default="ON")) else {"training.ema_decay": number(value)}


def every(setting: str, unit: str) -> Any:
    def convert(value: Any, given: Given) -> Read:
        if first(given, unit, default="STEP") != "STEP" or is_off(value):
            return {}, f"{setting} counts steps, which sd-lora plan shows"
        return {setting: int(number(value))}

    return convert


def destination(value: Any, _: Given) -> Read:
    """The file of the adapter there; here a run has a folder."""
    path = PureWindowsPath(str(value)) if "\\" in str(value) else Path(str(value))
    return {"output.folder": str(path.with_suffix("")), "output.name": path.stem}


def quantized(value: Any, _: Given) -> Read:
    known = _QUANTIZED.get(str(value).lower())
    return {"model.quantize": known} if known else ({}, "model.dtype is one for all parts")


def prediction(prediction: str) -> Any:
    return lambda value, _: {"model.prediction_type": prediction} if flag(value) else {}


def keep(value: Any, given: Given) -> Read:
    moved = flag(first(given, "concepts.text.enable_tag_shuffling", default="concepts.path" not in given))
    dropped = flag(first(given, "concepts.text.tag_dropout_enable", default=False))
    if not (moved or dropped):
        return {}, "tags are neither shuffled nor left out"
    return {"data.keep_tags": int(number(value))} if number(value) else {}


def separator(value: Any, given: Given) -> Read:
    if str(value).strip() == ",":
        return {}, "tags are separated by commas here"
    if "concepts.path" in given and isinstance(keep(1, given), tuple):
        return {}, "tags are neither shuffled nor left out"
    return {"data.tag_separator": str(value).strip()}


def tag_dropout(value: Any, given: Given) -> Read:
    off = not flag(first(given, "concepts.text.tag_dropout_enable", default=True))
    return ({}, "tag dropout is off") if off or not number(value) else {"data.tag_dropout": number(value)}
