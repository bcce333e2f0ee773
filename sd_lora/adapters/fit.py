"""What an adapter meets in a base model: the modules that can carry its layers, and whether it is for such a base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sd_lora.adapters.keys import name_of_module
from sd_lora.errors import AdapterError
from sd_lora.lora.layers import Layer
from sd_lora.lora.variants import VARIANTS, new_layer
from sd_lora.lora.weights import Weights
from sd_lora.models import families
from sd_lora.models.kinds import kind_marked
from sd_lora.models.names import fingerprint_of_base, name_of_base


def modules_of(pipe: Any) -> dict[str, nn.Module]:
    """Modules of a pipeline that can carry a layer, by name; refuses fused attention projections."""
    modules: dict[str, nn.Module] = {}
    carriers = {kind for row in VARIANTS.values() for kind in row.layers()}
    family = families.family_of_class(type(pipe).__name__)
    for component in families.components() if family is None else [each.name for each in family.components]:
        root = getattr(pipe, component, None)
        if not isinstance(root, nn.Module):
            continue
        for path, module in root.named_modules():
            if type(getattr(module, "processor", None)).__name__.startswith("Fused"):
                raise AdapterError(
                    f"the attention projections of {component} are fused, so LoRA layers would never be called; "
                    "call pipe.unfuse_qkv_projections() first"
                )
            if type(module) in carriers and ".loras." not in f".{path}.":
                modules[name_of_module(component, path)] = module
    return modules


def base_name(pipe: Any) -> str:
    """What to call the base model of a pipeline in files and messages: see `name_of_base`; never a path."""
    return name_of_base(str(getattr(pipe, "name_or_path", "") or "")) or type(pipe).__name__


def base_facts(pipe: Any) -> dict[str, str]:
    """What an adapter's metadata says of the base model that it is for."""
    name = base_name(pipe)
    fingerprint = fingerprint_of_base(name)
    return {"sdlora.base": name} | ({"sdlora.base_fingerprint": fingerprint} if fingerprint else {})


def other_kind(metadata: Mapping[str, str], pipe: Any) -> list[str]:
    """How `pipe` differs from what the file says about its base, even if all shapes are the same."""
    problems = []
    family, other = metadata.get("sdlora.family"), families.family_of_class(type(pipe).__name__)
    if family and other and family != other.name:
        problems.append(f'it was trained for the family "{family}", and this base is of "{other.name}"')
    marked = kind_marked(metadata)
    if other and not other.shares_adapters and marked in {kind.name for kind in other.kinds} - {other.kind(pipe).name}:
        problems.append(f'it was trained for "{marked}", and this base is "{other.kind(pipe).name}"')
    same = metadata.get("sdlora.base") == base_name(pipe)
    if same and metadata.get("sdlora.base_fingerprint", "") != fingerprint_of_base(base_name(pipe)):
        problems.append("it was trained on another edition of the embedded base; train it again on this one")
    # Other programs' files often record "epsilon" whatever they were trained on.
    recorded = metadata.get("modelspec.prediction_type") if "sdlora.version" in metadata else None
    config = getattr(getattr(pipe, "scheduler", None), "config", None)
    predicts = getattr(config, "prediction_type", None)
    if recorded and predicts and predicts != {"v": "v_prediction"}.get(recorded, recorded):
        problems.append(f'it was trained to predict "{recorded}", and the scheduler of this base says "{predicts}"')
    return problems


def layer_of(weights: Weights, module: nn.Module) -> Layer:
    """A layer with these weights for `module`: one of its variant's own, if they have the form that is trained."""
    row, weight = weights.row, module.weight
    assert isinstance(weight, Tensor)
    tensors = row.fitted(weights.tensors, tuple(weight.shape))
    if row.is_trained and type(module) in row.layers():
        layer = new_layer(module, weights.rank, weights.alpha, weights.variant)
        if {role: tensor.shape for role, tensor in layer.tensors().items()} == {
            role: tensor.shape for role, tensor in tensors.items()
        }:
            layer.load_tensors(tensors)
            return layer
    return Layer.holding(weights.variant, tensors, weights.alpha)
