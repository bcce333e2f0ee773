"""Attach layers to a model and remove them again, or fuse them into its weights.

Attaching replaces nothing: the layer becomes a submodule ``target.loras[name]`` and one module-level forward hook adds
its output (docs/decisions/0001-attach-by-hook.md). Eject, in any order, leaves the model as it was, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sd_lora.errors import AdapterError
from sd_lora.lora.layers import Layer, Strength, checked_strength


class Loras(nn.ModuleDict):
    """The layers attached to one target, by adapter name, and the handle of the hook that applies them."""

    handle: Any = None


def inject(layers: Mapping[str, Layer], modules: Mapping[str, nn.Module], name: str = "default") -> None:
    """Attach every layer to the module of the same key in `modules`, under the adapter's `name`.

    All checks come first: nothing is attached if the name is taken or malformed, or a module is missing.
    """
    if not name or "." in name or hasattr(Loras(), name):
        raise AdapterError(f'"{name}" cannot name an adapter; use a word without dots')
    missing = [key for key in layers if key not in modules]
    if missing:
        raise AdapterError(f"{len(missing)} layers have no module, the first is {missing[0]}")
    taken = [key for key in layers if name in getattr(modules[key], "loras", ())]
    if taken:
        raise AdapterError(f'an adapter named "{name}" is already injected; eject it first or use another name')
    for key, layer in layers.items():
        module = modules[key]
        loras = getattr(module, "loras", None)
        if not isinstance(loras, Loras):
            loras = module.loras = Loras()
            loras.handle = module.register_forward_hook(_add_loras, with_kwargs=True)
        loras[name] = layer


def eject(modules: Iterable[nn.Module], name: str = "default") -> int:
    """Remove adapter `name` from every one of `modules` that has it; returns how many had it."""
    count = 0
    for module in modules:
        loras = getattr(module, "loras", None)
        if isinstance(loras, Loras) and name in loras:
            del loras[name]
            count += 1
            if not loras:
                loras.handle.remove()
                del module.loras
    return count


@torch.no_grad()
def fuse(
    layers: Mapping[str, Layer], modules: Mapping[str, nn.Module], strength: float | Mapping[str, Strength] = 1.0
) -> None:
    """Add strength · ΔW to the weights of `modules`, computed in float32. Ejecting does not undo this.

    `strength` is one number, or one for each key of `layers`.
    """
    given = strength if isinstance(strength, Mapping) else dict.fromkeys(layers, strength)
    values = {key: checked_strength(given[key]) for key in layers}
    if any(isinstance(value, Tensor) for value in values.values()):
        raise AdapterError("fusing takes one strength, not one per sample")
    for key, layer in layers.items():
        weight = modules[key].weight
        assert isinstance(weight, Tensor)
        delta = layer.delta_weight(weight).to(weight.device)
        weight.copy_((weight.float() + values[key] * delta).to(weight.dtype))
        if (change := layer.delta_bias()) is not None:
            bias = modules[key].bias
            if not isinstance(bias, Tensor):
                raise AdapterError(f"{key} has no bias that could be changed")
            bias.copy_((bias.float() + values[key] * change.to(bias.device)).to(bias.dtype))


def _add_loras(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor) -> Tensor:
    """The hook: the target's output plus that of its layers. At strength 0 the very same tensor is returned."""
    loras, x, unchanged = module.loras, args[0] if args else kwargs["input"], output
    assert isinstance(loras, Loras)
    for layer in loras.values():
        assert isinstance(layer, Layer)
        if not layer.is_off:
            output = output + layer(x, module, unchanged).to(output.dtype)
    return output
