"""What adapters of any variant change, as singular triplets."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.fit import base_name, modules_of
from sd_lora.config.schema import ModelConfig
from sd_lora.errors import AdapterError
from sd_lora.lora.factors import Triplets, triplets_of, triplets_of_matrix
from sd_lora.lora.weights import Weights
from sd_lora.models.kinds import family_of_adapter, kind_of
from sd_lora.models.opening import load_named


class Changes:
    """What each module of an adapter of any variant changes, as singular triplets. `left_out`: the names of modules
    whose change of a norm or a bias no LoRA can hold, among those asked for so far."""

    def __init__(
        self, weights: Mapping[str, Weights], metadata: Mapping[str, str], label: str, model: ModelConfig | None
    ) -> None:
        """AdapterError if a change depends on the base and no `model` is given, or does not fit that."""
        self._weights, self.left_out = weights, ()
        self._family = family_of_adapter({name: w.shape for name, w in weights.items()}, metadata)
        self._kind = kind_of({name: w.shape for name, w in weights.items()}, metadata)
        odd = next((w.row for w in weights.values() if w.row.needs_base), None)
        if odd is not None and model is None:
            raise AdapterError(
                f"{label} holds {odd.title}, whose change depends on the base model; name that with --base"
            )
        self._modules = None
        if model is not None:
            pipe, _ = load_named(model, torch.float32)
            if problems := Adapter(weights, metadata, label).misfits(pipe):
                raise AdapterError(f"{label} does not fit base model {base_name(pipe)}: {'; '.join(problems)}")
            self._modules = modules_of(pipe)

    def triplets(self, name: str) -> Triplets | None:
        """The change of module `name`; None if it is none of a matrix."""
        w = self._weights[name]
        if w.row.can_cut:
            return triplets_of(w)
        if w.row.delta_bias(w.tensors) is not None:
            self.left_out = (*self.left_out, name)
        change = self._change(name, w)
        if change.ndim > 1:
            return triplets_of_matrix(change)
        self.left_out = tuple(dict.fromkeys((*self.left_out, name)))
        return None

    @torch.no_grad()
    def _change(self, name: str, w: Weights) -> Tensor:
        if self._modules is None:
            change = w.row.product(w.tensors) * w.scaling
            return change.reshape(self._family.shape_with_kernel(name, tuple(change.shape), self._kind))
        weight = self._modules[name].weight
        assert isinstance(weight, Tensor)
        tensors = {role: tensor.double() for role, tensor in w.tensors.items()}
        return w.row.delta(tensors, w.scaling, weight.double()).reshape(weight.shape)
