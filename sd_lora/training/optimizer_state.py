"""An optimizer's exact state, as tensors and facts of a checkpoint and back, and the weights that are to be used."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sd_lora.errors import AdapterError, some
from sd_lora.training.averages import replaced

#: what a group has from the config and its device, and never from a checkpoint
_FROM_CONFIG = frozenset({"peak", "betas", "weight_decay", "foreach", "fused", "capturable", "differentiable"})


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The entire state, as copies: tensors on the CPU by flat names, and facts that JSON keeps unchanged.

    The parameters are not in it. It fits the current ones, outside of `settle`, in float32.
    """
    inner = _unwrapped(optimizer)
    state = inner.state_dict()["state"]
    flat = dict(_flat({str(place): values for place, values in state.items()}))
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
    would have been. Peak rates, betas and weight decay stay those of the optimizer.

    Raises AdapterError if the state is incomplete or of another optimizer or other weights.
    """
    inner = _unwrapped(optimizer)
    try:
        _check_fit(inner, tensors, facts)
        state = _nested({**tensors, **{name: _from_json(value) for name, value in facts["state"].items()}})
        groups, first = [], 0
        for group, saved in zip(inner.param_groups, facts["groups"], strict=True):
            fixed = {key: value for key, value in group.items() if key in _FROM_CONFIG}
            last = first + len(group["params"])
            restored = {key: _from_json(value) for key, value in saved.items()}
            groups.append({**group, **restored, **fixed, "params": list(range(first, last))})
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
    saved, current = facts["shapes"], _shapes(inner)
    if saved != current:
        counts = [f"{sum(map(len, shapes))} weights in {len(shapes)} groups" for shapes in (saved, current)]
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
    """The reverse of `_flat`, with copies of the tensors: an optimizer steps in place."""
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


@contextmanager
def settle(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """For the length of a ``with`` block the parameters are those to save and draw with: schedule-free's average, any
    other optimizer's as they are. Afterwards they are what they were before, bit for bit."""
    inner: Any = _unwrapped(optimizer)
    if not hasattr(inner, "eval"):
        yield
        return
    with replaced({str(number): parameter for number, parameter in enumerate(_parameters(inner))}, {}):
        inner.eval()
        try:
            yield
        finally:
            inner.train()


def _unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer itself, where accelerate has wrapped it."""
    return getattr(optimizer, "optimizer", optimizer)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _shapes(optimizer: torch.optim.Optimizer) -> list[list[list[int]]]:
    return [[list(parameter.shape) for parameter in group["params"]] for group in optimizer.param_groups]
