"""What other values of kohya's scripts and of their GUI are here, where one setting depends on others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sd_lora.config.other_trainers.optimizers import averages
from sd_lora.config.other_trainers.row import Given, Made, Read, choice, first, flag, is_off, number, numbers

SCHEDULES = {
    "constant": "constant", "constant_with_warmup": "constant", "cosine": "cosine", "linear": "linear",
    "polynomial": "polynomial", "cosine_with_restarts": "cosine", "cosine_with_min_lr": "cosine",
    "cosine_with_hard_restarts": "cosine", "cosine_annealing": "cosine",
}  # fmt: skip
PRECISIONS = {"fp16": "float16", "bf16": "bfloat16", "no": "float32", "float": "float32", "fp32": "float32"}
precision = choice("model.dtype", PRECISIONS)


def steps(value: Any, given: Given) -> Read:
    epochs = first(given, "max_train_epochs", default=0)
    if not is_off(epochs):
        return {}, "max_train_epochs says how long, as it does there"
    return {"training.steps": int(number(value))} if number(value) else ({}, "0, so that the epochs say how long")


def epochs(value: Any, _: Given) -> Read:
    if not number(value):
        return {}, "0, so that the steps say how long"
    return {"training.epochs": number(value)}


def gui_epochs(value: Any, given: Given) -> Read:
    if any(not is_off(given.get(name)) for name in ("max_train_steps", "max_train_epochs")):
        return {}, "max_train_steps or max_train_epochs says how long"
    return epochs(value, given)


def warmup(value: Any, given: Given) -> Read:
    """A number of steps, or below 1 a share of them; here it is a share always."""
    share = number(value)
    if not share and not is_off(first(given, "lr_warmup", default=0)):
        return {}, "lr_warmup says it"
    if str(first(given, "lr_scheduler", default="")).lower() == "constant" and share:
        return {"optimizer.warmup": 0}, "there a constant rate has no warm-up, whatever is set"
    if share >= 1:
        total = first(given, "max_train_steps", default=0)
        if is_off(total) or not is_off(first(given, "max_train_epochs", default=0)):
            return {}, f"a share of all steps here: set optimizer.warmup to {share:g} / steps, which sd-lora plan shows"
        share = min(1, share / number(total))
    return {"optimizer.warmup": round(share, 6)}


def percent(value: Any, given: Given) -> Read:
    if not is_off(first(given, "lr_warmup_steps", default=0)):
        return {}, "lr_warmup_steps says it"
    return warmup(number(value) / 100, given)


def betas(value: Any, _: Given) -> Read:
    each = numbers(value)
    if len(each) != 2:
        raise ValueError(f"{len(each)} betas, and 2 are used here")
    return {"optimizer.betas": each}


def scheduler(value: Any, given: Given) -> Read:
    """The schedule, which falls to nothing there and to a share of the peak here."""
    name = str(value).lower()
    schedule = SCHEDULES.get(name)
    if averages(given):
        return {"optimizer.schedule": "constant"}, "a schedule-free optimizer has none"
    if schedule is None:
        constant: Made = {"optimizer.schedule": "constant"}
        return constant, f"there is no {value} here; the rate is constant, which is what an own schedule leaves undone"
    made: Made = {"optimizer.schedule": schedule}
    if schedule != "constant":
        least = first(given, "lr_scheduler_min_lr_ratio", "learning_rate_min_factor", default=0)
        made["optimizer.final"] = number(least)
    if schedule == "polynomial":
        made["optimizer.power"] = number(first(given, "lr_scheduler_power", default=1))
    cycles = first(given, "lr_scheduler_num_cycles", "learning_rate_cycles", default=1)
    restarts = "restarts" in name and not is_off(cycles) and number(cycles) != 1
    return made, "the rate falls once; it does not start again" if restarts else ""


def power(value: Any, given: Given) -> Read:
    if str(first(given, "lr_scheduler", default="polynomial")).lower() != "polynomial":
        return {}, "for a polynomial schedule only"
    return {"optimizer.power": number(value)}


def terminal(value: Any, given: Given) -> Read:
    if flag(value) and first(given, "network_module", "LoRA_type") and is_off(given.get("v_parameterization")):
        return {}, "it is for bases that predict v, and v_parameterization is off"
    return {"training.zero_terminal_snr": True} if flag(value) else {}


def min_snr(value: Any, _: Given) -> Read:
    return {"training.weighting": "min-snr", "training.min_snr_gamma": number(value)} if number(value) > 0 else {}


def debiased(value: Any, given: Given) -> Read:
    if not flag(value) or not is_off(given.get("min_snr_gamma", 0)):
        return {}, "min_snr_gamma is the one weighting" if flag(value) else ""
    return {"training.weighting": "debiased"}


def huber(value: Any, given: Given) -> Read:
    if str(first(given, "loss_type", default="huber")).lower() not in ("huber", "smooth_l1"):
        return {}, "for loss_type=huber only"
    return {"training.huber_threshold": number(value)}


def loss(value: Any, _: Given) -> Read:
    name = str(value).lower()
    known = {"l2": "l2", "l1": "l1", "huber": "huber", "smooth_l1": "huber", "mse": "l2", "mae": "l1"}.get(name)
    if known is None:
        raise ValueError(f"there is no loss {value} here; the run would use l2")
    return {"training.loss": known}, "the nearest is the pseudo-Huber loss" if name == "smooth_l1" else ""


def timesteps(_: Any, given: Given) -> Read:
    """The range of timesteps of 1000, as a share."""
    low = number(first(given, "min_timestep", "train.min_denoising_steps", default=0)) / 1000
    high = number(first(given, "max_timestep", "train.max_denoising_steps", default=1000)) / 1000
    high = 1.0 if high == 0.999 else high  # the last one, where they are counted from 0
    return {} if (low, high) == (0, 1) else {"training.timestep_range": [low, high]}


def multires(value: Any, given: Given) -> Read:
    if not number(value):
        return {}
    return {"training.multires_noise": number(first(given, "multires_noise_discount", default=0.3))}


def discount(value: Any, given: Given) -> Read:
    if is_off(first(given, "multires_noise_iterations", default=6)) or not number(value):
        return {}, "multires_noise_iterations is off"
    return {"training.multires_noise": number(value)}


def keep(value: Any, given: Given) -> Read:
    moved = flag(first(given, "shuffle_caption", default=False)) or not is_off(
        first(given, "caption_tag_dropout_rate", default=0)
    )
    if not number(value):
        return {}
    if ("shuffle_caption" in given or "network_module" in given or "LoRA_type" in given) and not moved:
        return {}, "tags are neither shuffled nor left out"
    return {"data.keep_tags": int(number(value))}


def separator(value: Any, _: Given) -> Read:
    if str(value).strip() == ",":
        return {}, "the same as here"
    return {"data.tag_separator": str(value).strip()}


def crops(value: Any, _: Given) -> Read:
    return {"data.crops": 4 if flag(value) else 1}


def weight(value: Any, _: Given) -> Read:
    return {} if number(value) == 1 else {"data.prior_weight": number(value)}


def output_folder(value: Any, given: Given) -> Read:
    """A folder of the run's own in the folder of all."""
    name = str(first(given, "output_name", "name", default="last"))
    return {"output.folder": str(Path(str(value)) / name)}


def trackers(value: Any, _: Given) -> Read:
    known = {"tensorboard": ["tensorboard"], "wandb": ["wandb"], "all": ["tensorboard", "wandb"]}
    return {"training.trackers": known[str(value).lower()]} if str(value).lower() in known else {}


def fp8(value: Any, _: Given) -> Read:
    return {"model.quantize": "fp8"} if flag(value) else {}


def v_prediction(value: Any, _: Given) -> Read:
    return {"model.prediction_type": "v_prediction"} if flag(value) else ({}, "the base model itself says it")


def alpha(value: Any) -> str:
    """What transparency is."""
    return "mask" if flag(value) else "background"


def masks(value: Any, given: Given) -> Read:
    """The folder of masks, which counts only where the loss is masked."""
    if is_off(given.get("masked_loss", True)):
        return {}, "masks are not used there, as masked_loss is off"
    return {"data.mask_folder": str(value)}
