"""What values of OneTrainer are here, where one setting depends on others."""

from __future__ import annotations

from pathlib import Path, PureWindowsPath
from typing import Any

from sd_lora.config.other_trainers.kohya_layers import (
    COMPLETE,
    COMPLETE_ALPHA,
    MOST,
    TEXT,
    UNET,
    lokr_factor,
    text_targets,
)
from sd_lora.config.other_trainers.kohya_values import scheduler
from sd_lora.config.other_trainers.optimizers import averages, one_rate, peak
from sd_lora.config.other_trainers.row import Given, Made, Read, choice, first, flag, is_at_rest, is_off, number

DTYPES = {"float_16": "float16", "bfloat_16": "bfloat16", "float_32": "float32", "tfloat_32": "float32"}
_QUANTIZED = {"float_8": "fp8", "float_w8a8": "fp8", "int_8": "int8", "int_w8a8": "int8", "nfloat_4": "nf4"}
_FILTERS = {"attn-mlp": UNET, "attn-only": ["attn"], "full": [*UNET, "conv"], "blocks": [*UNET, "conv"]}


def _trains_text(given: Given, part: str = "", *, default: bool | None = None) -> bool:
    """Whether a text encoder is trained; without `part`, whether any is."""
    if not part:
        return bool(_text_targets(given))
    default = "training_method" in given if default is None else default
    rates = (f"{part}.learning_rate", f"{part}_learning_rate")
    on = flag(first(given, f"{part}.train", f"train_{part}", default=default))
    return on and not is_at_rest(given, "learning_rate", *rates)


def _text_targets(given: Given) -> list[str]:
    """Targets in the text encoders, of which SDXL has two; the second is as the first where nothing is said of it."""
    one = _trains_text(given, "text_encoder")
    second = "STABLE_DIFFUSION_XL" in str(given.get("model_type"))
    return text_targets(one, _trains_text(given, "text_encoder_2", default=one) if second else one)


def _trains_unet(given: Given) -> bool:
    on = flag(first(given, "unet.train", "train_unet", default=True))
    return on and not is_at_rest(given, "learning_rate", "unet.learning_rate", "unet_learning_rate")


def targets(value: Any, given: Given) -> Read:
    """The modules of a preset, in those parts that are trained."""
    text = _text_targets(given)
    if not _trains_unet(given):
        return {"lora.targets": text}
    known = _FILTERS.get(str(value))
    if known is None:
        raise ValueError(f"write patterns for {value!r} into lora.targets; the run would train attn and ff")
    return {"lora.targets": [*known, *text]}


def text(value: Any, given: Given) -> Read:
    """Whether the text encoders are trained."""
    if "layer_filter_preset" in given:
        return {}, "lora.targets has its modules" if flag(value) else "lora.targets has none of its modules"
    return {"lora.targets": [*UNET, *TEXT]} if flag(value) else {"lora.targets": UNET}


def text_stop(value: Any, given: Given) -> Read:
    """When the text encoders stop, which is in steps here."""
    if "training_method" in given and not _trains_text(given):
        return {}, "the text encoders are not trained"
    unit = first(given, "text_encoder.stop_training_after_unit", default="EPOCH")
    if unit == "STEP":
        return {"training.text_steps": int(number(value))}
    if unit == "NEVER" or (unit == "EPOCH" and number(value) >= number(first(given, "epochs", default=100))):
        return {}, "the text encoders are trained to the end"
    return {}, f"set training.text_steps to the steps of {value} {str(unit).lower()}s, which sd-lora plan shows"


def variant(value: Any, given: Given) -> Read:
    """The kind of the layers."""
    read = choice("lora.variant", {"lora": "lora", "loha": "loha", "lokr": "lokr"})(value, given)
    return ({}, "lora_decompose makes it DoRA") if decompose(True, given) == read else read


def decompose(value: Any, given: Given) -> Read:
    """DoRA, which is for LoRA only, there too."""
    kind = str(first(given, "peft_type", default="LORA"))
    if kind != "LORA":
        return {}, f"it is for LoRA, and this is {kind}"
    return {"lora.variant": "dora"} if flag(value) else {}


def _is_lokr(given: Given) -> bool:
    return first(given, "peft_type", default="LORA") == "LOKR"


def _is_complete(given: Given) -> bool:
    dim = number(first(given, "lokr_dim", default=0))
    return _is_lokr(given) and (flag(first(given, "lokr_full_matrix", default=False)) or dim > MOST)


def rank(value: Any, given: Given) -> Read:
    """The rank, where LoKr has none of its own."""
    if _is_complete(given) or (_is_lokr(given) and first(given, "lokr_dim") is not None):
        return {}, "lokr_dim counts"
    return {"lora.rank": number(value)}


def lokr_rank(value: Any, given: Given) -> Read:
    """LoKr's own rank."""
    if _is_complete(given):
        return {"lora.rank": MOST, "lora.alpha": MOST}, COMPLETE
    return {"lora.rank": number(value)} if _is_lokr(given) else ({}, "it is for LoKr")


def alpha(value: Any, given: Given) -> Read:
    """Alpha, unless nothing is scaled by it."""
    return ({}, COMPLETE_ALPHA) if _is_complete(given) else {"lora.alpha": number(value)}


def factor(value: Any, given: Given) -> Read:
    """How LoKr splits a weight."""
    return lokr_factor(value) if _is_lokr(given) else ({}, "it is for LoKr")


def full_matrix(value: Any, given: Given) -> Read:
    """The switch for a LoKr without ranks."""
    if not _is_lokr(given):
        return {}, "it is for LoKr"
    return ({"lora.rank": MOST, "lora.alpha": MOST}, COMPLETE) if flag(value) else {}


def rate(value: Any, given: Given) -> Read:
    """The rate of all layers, unless a part has its own."""
    made: Made = {}
    note = ""
    if first(given, "unet.learning_rate", "unet_learning_rate") is None and (_trains_unet(given) or one_rate(given)):
        made, note = peak("optimizer.learning_rate", value, given)
    own = first(given, "text_encoder.learning_rate", "text_encoder_learning_rate")
    if "layer_filter_preset" in given and _trains_text(given) and own is None and not one_rate(given):
        of_text, note = peak("optimizer.text_learning_rate", value, given)
        made |= of_text
    return made, note or ("" if made else "the UNet's own rate counts")


def unet_rate(value: Any, given: Given) -> Read:
    """The rate of the UNet's layers."""
    trained = _trains_unet(given)
    return peak("optimizer.learning_rate", value, given) if trained else ({}, "the UNet is not trained")


def text_rate(value: Any, given: Given) -> Read:
    """The rate of the text encoders' layers."""
    if ("layer_filter_preset" in given and not _trains_text(given)) or one_rate(given):
        return {}, "no rate of the text encoders can act"
    return peak("optimizer.text_learning_rate", value, given)


def betas(_: Any, given: Given) -> Read:
    return {"optimizer.betas": [number(first(given, "optimizer.beta1", default=0.9)),
                                number(first(given, "optimizer.beta2", default=0.999))]}  # fmt: skip


def schedule(value: Any, given: Given) -> Read:
    if averages(given):
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


def captions(value: Any, _: Given) -> Read:
    """Where captions are."""
    if value == "filename":
        return {"data.captions_from": "name"}
    return {}, "captions are read beside the images" + ("" if value == "sample" else ", not from one file for all")


def tag_dropout(value: Any, given: Given) -> Read:
    off = not flag(first(given, "concepts.text.tag_dropout_enable", default=True))
    return ({}, "tag dropout is off") if off or not number(value) else {"data.tag_dropout": number(value)}
