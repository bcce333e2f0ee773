"""What moves the layers: how the rate rises and falls, the optimizers and their exact state.

Optimizers are made for groups of parameters and driven by `set_rate`, from outside, so that a step's rate is a pure
function of its number.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sd_lora.config.schema import OptimizerConfig
from sd_lora.errors import AdapterError, ConfigError, some

# ---- the rate

#: name → the share of the peak rate at `progress` (0 to 1) through the steps after the warm-up
SCHEDULES: dict[str, Callable[[float, OptimizerConfig], float]] = {
    "cosine": lambda progress, c: c.final + (1 - c.final) * 0.5 * (1 + math.cos(math.pi * progress)),
    "linear": lambda progress, c: c.final + (1 - c.final) * (1 - progress),
    "polynomial": lambda progress, c: c.final + (1 - c.final) * (1 - progress) ** c.power,
    "constant": lambda progress, c: 1.0,  # noqa: ARG005
}


def rate_share(step: int, steps: int, config: OptimizerConfig) -> float:
    """Share of the peak rate at `step` (from 0): linear warm-up, then the schedule, down to ``final`` at the last step
    unless it is constant."""
    warm = round(config.warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    return SCHEDULES[config.schedule]((step - warm) / max(1, steps - 1 - warm), config)


# ---- the optimizers


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters with one peak rate, before LoRA+; `up` says that they are the layers' up matrices."""

    params: Sequence[Tensor]
    peak: float
    up: bool = False


Groups = list[dict[str, Any]]

_PACKAGES = {
    "adamw8bit": "bitsandbytes", "prodigy": "prodigyopt", "schedule-free": "schedulefree", "lion": "lion_pytorch",
}  # fmt: skip


def _adamw(groups: Groups) -> torch.optim.Optimizer:
    cuda = all(parameter.is_cuda for group in groups for parameter in group["params"])
    return torch.optim.AdamW(groups, fused=True if cuda else None)


def _adafactor(groups: Groups) -> torch.optim.Optimizer:
    # Torch multiplies the rate by max(eps[1], RMS of the weights), and up matrices start at zero. At 1, which no
    # layer's RMS comes near, a rate means what it means for AdamW.
    return torch.optim.Adafactor(groups, eps=(None, 1.0))


def _adamw8bit(groups: Groups) -> torch.optim.Optimizer:
    return _package("adamw8bit").optim.AdamW8bit(groups)


def _prodigy(groups: Groups) -> torch.optim.Optimizer:
    # Both are its README's advice for diffusion models; without the first, a warm-up makes it overestimate the rate.
    return _package("prodigy").Prodigy(groups, safeguard_warmup=True, use_bias_correction=True)


def _schedule_free(groups: Groups) -> torch.optim.Optimizer:
    optimizer = _package("schedule-free").AdamWScheduleFree(groups)
    optimizer.train()
    return optimizer


def _lion(groups: Groups) -> torch.optim.Optimizer:
    return _package("lion").Lion(groups)


#: name → an optimizer of groups that bring their own rate, weight decay and, where they are given, betas
OPTIMIZERS: dict[str, Callable[[Groups], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adamw8bit": _adamw8bit,
    "adafactor": _adafactor,
    "prodigy": _prodigy,
    "schedule-free": _schedule_free,
    "lion": _lion,
}


def make_optimizer(
    groups: Sequence[ParameterGroup], config: OptimizerConfig, device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer that `config` names, for those of `groups` that have parameters, ready to step. Each of its groups
    keeps its peak rate as ``peak``: up matrices' is `plus_ratio` times the others' (LoRA+, arXiv 2402.12354).

    Betas at the config's default are the optimizer's own. Raises ConfigError as `check_optimizer` does.
    """
    check_optimizer(config, device)
    settings: dict[str, Any] = {"weight_decay": config.weight_decay}
    if config.betas != OptimizerConfig().betas:
        settings["betas"] = config.betas
    own = []
    for group in groups:
        peak = group.peak * config.plus_ratio if group.up else group.peak
        if group.params:
            own.append({"params": list(group.params), "lr": peak, "peak": peak, **settings})
    return OPTIMIZERS[config.name](own)


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Every group's rate becomes `share` of its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


def check_optimizer(config: OptimizerConfig, device: torch.device) -> None:
    """Raises ConfigError with all that keeps `config` from acting on `device`; needs no model."""
    problems = _without_effect(config)
    if config.name == "adamw8bit" and device.type != "cuda":
        problems.append(f"optimizer.name=adamw8bit needs a CUDA device, not {device.type}; set optimizer.name=adamw")
    elif config.name in _PACKAGES:
        try:
            _package(config.name)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("; ".join(problems))


def _without_effect(config: OptimizerConfig) -> list[str]:
    """Settings that cannot act beside the others."""
    plain, name, rate = OptimizerConfig(), config.name, config.learning_rate
    prodigy, free = name == "prodigy", name == "schedule-free"
    betas = config.betas != plain.betas
    problems = [
        (name == "adafactor" and betas, "optimizer.betas has no effect with adafactor; leave it out"),
        (prodigy and rate < 0.1, "optimizer.learning_rate multiplies the rate that prodigy finds itself; "
            f"set it to 1, but {rate:g} was given"),
        (prodigy and config.text_learning_rate not in (None, rate), f"optimizer.text_learning_rate must be {rate:g}, "
            f"as prodigy has one rate for all layers, but {config.text_learning_rate} was given"),
        (prodigy and config.plus_ratio != 1, "optimizer.plus_ratio cannot act with prodigy, which has one rate for all "
            "layers; leave it out or set another optimizer.name"),
        (free and config.schedule != "constant", f"optimizer.schedule={config.schedule} cannot act with "
            "schedule-free, which averages instead; set optimizer.schedule=constant"),
        (free and betas and config.betas[0] == 0, "optimizer.betas: schedule-free needs a first one above 0"),
        (free and config.max_norm > 0, "optimizer.max_norm cannot act with schedule-free, whose weights are an "
            "average; leave it out or set another optimizer.name"),
        (config.warmup == 1 and config.schedule != "constant", "optimizer.warmup=1 leaves no step to the "
            f"{config.schedule} schedule; lower it or set optimizer.schedule=constant"),
        (config.schedule == "constant" and config.final != plain.final, "optimizer.final has no effect with a "
            "constant schedule; leave it out or set another optimizer.schedule"),
        (config.schedule != "polynomial" and config.power != plain.power, "optimizer.power has no effect with a "
            f"{config.schedule} schedule; leave it out or set optimizer.schedule=polynomial"),
    ]  # fmt: skip
    return [sentence for wrong, sentence in problems if wrong]


def _package(name: str) -> Any:
    try:
        return importlib.import_module(_PACKAGES[name])
    except ImportError as error:
        extra = "cuda" if name == "adamw8bit" else "optimizers"
        raise ConfigError(
            f"optimizer.name={name} needs {_PACKAGES[name]}, which cannot be imported ({error}); "
            f'run pip install "sd-lora[{extra}]"'
        ) from error


@contextmanager
def settle(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Inside, the parameters are those to save as an adapter and to draw with, which are schedule-free's average and
    anyone else's as they are; after it they are what they were before, bit for bit."""
    inner: Any = _unwrapped(optimizer)
    if not hasattr(inner, "eval"):
        yield
        return
    kept = [(parameter, parameter.detach().clone()) for parameter in _parameters(inner)]
    inner.eval()
    try:
        yield
    finally:
        inner.train()
        with torch.no_grad():
            for parameter, weight in kept:
                parameter.copy_(weight)


# ---- their state

#: what a group has from the config and its device, and never from a checkpoint
_FROM_CONFIG = frozenset({"peak", "betas", "weight_decay", "foreach", "fused", "capturable", "differentiable"})


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The whole state, as copies: tensors on the CPU by flat names, and facts that go through JSON unchanged.

    The parameters are not in it. It fits those of the moment, outside of `settle`, in float32.
    """
    inner = _unwrapped(optimizer)
    state = inner.state_dict()["state"]
    flat = dict(_flat({str(place): own for place, own in state.items()}))
    tensors = {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in flat.items()
        if isinstance(value, Tensor)
    }
    facts = {
        "optimizer": type(inner).__name__,
        "shapes": _shapes(inner),
        "groups": [
            {key: _to_json(value) for key, value in group.items() if key != "params"} for group in inner.param_groups
        ],
        "state": {name: _to_json(value) for name, value in flat.items() if name not in tensors},
        "tensors": sorted(tensors),
    }
    return tensors, facts


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]
) -> None:
    """Put a state from `optimizer_state` into a fresh optimizer of the same groups: the next step is then the one that
    would have been. Peak rates, betas and weight decay stay the optimizer's own.

    Raises AdapterError if the state is incomplete or of another optimizer or other weights.
    """
    inner = _unwrapped(optimizer)
    try:
        _check_fit(inner, tensors, facts)
        state = _nested({**tensors, **{name: _from_json(value) for name, value in facts["state"].items()}})
        groups, first = [], 0
        for group, saved in zip(inner.param_groups, facts["groups"], strict=True):
            own = {key: value for key, value in group.items() if key in _FROM_CONFIG}
            last = first + len(group["params"])
            restored = {key: _from_json(value) for key, value in saved.items()}
            groups.append({**group, **restored, **own, "params": list(range(first, last))})
            first = last
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise AdapterError(
            f"the optimizer's state in the checkpoint cannot be read ({error!r}); resume from another checkpoint"
        ) from error
    inner.load_state_dict({"state": state, "param_groups": groups})
    for place, parameter in enumerate(_parameters(inner)):
        held = inner.state[parameter] if place in state else {}
        for key, value in state.get(place, {}).items():
            # Torch casts to the parameter's type whatever is not called step.
            if isinstance(value, Tensor) and held[key].dtype != value.dtype:
                held[key] = value.to(held[key].device)


def _check_fit(inner: torch.optim.Optimizer, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    if facts["optimizer"] != type(inner).__name__:
        raise AdapterError(
            f"the optimizer's state in the checkpoint is of {facts['optimizer']}, but this run's optimizer is "
            f"{type(inner).__name__}; resume with the optimizer.name it was made with"
        )
    saved, own = facts["shapes"], _shapes(inner)
    if saved != own:
        counts = [f"{sum(map(len, shapes))} weights in {len(shapes)} groups" for shapes in (saved, own)]
        clash = "of other shapes" if counts[0] == counts[1] else f"of {counts[0]}, but this run trains {counts[1]}"
        raise AdapterError(
            f"the optimizer's state in the checkpoint is {clash}; resume with the targets and ranks it was made with"
        )
    if missing := sorted(set(facts["tensors"]) ^ set(tensors)):
        raise AdapterError(
            f"the optimizer's state in the checkpoint lacks tensors or has foreign ones ({some(missing)}); "
            "resume from another checkpoint"
        )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested names joined by dots: bitsandbytes keeps dicts in its state."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _nested(flat: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """The reverse of `_flat`, with tensors of its own: an optimizer steps in place."""
    tree: dict[int, dict[str, Any]] = {}
    for name, value in flat.items():
        place, *path, last = name.split(".")
        node = tree.setdefault(int(place), {})
        for key in path:
            node = node.setdefault(key, {})
        node[last] = value.clone() if isinstance(value, Tensor) else value
    return tree


def _to_json(value: object) -> object:
    """`value` in what JSON has: it knows neither tuples nor infinity, prodigy's growth rate."""
    if isinstance(value, tuple | list):
        return {type(value).__name__: [_to_json(item) for item in value]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"an optimizer's state has a {type(value).__name__}, which is not JSON")


def _from_json(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    kind, content = next(iter(value.items()))
    if kind == "float":
        return float(content)
    return {"tuple": tuple, "list": list}[kind](_from_json(item) for item in content)


def _unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer itself, where accelerate has wrapped it."""
    return getattr(optimizer, "optimizer", optimizer)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _shapes(optimizer: torch.optim.Optimizer) -> list[list[list[int]]]:
    return [[list(parameter.shape) for parameter in group["params"]] for group in optimizer.param_groups]
