"""Layers: `Layer`, which any variant can use, and those of LoRA, which need no full ΔW.

Pure torch. A layer computes only what is *added* to its target's output. It gets the target at every call, because a
variant may need its weight, and never keeps or changes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from sd_lora.errors import AdapterError
from sd_lora.lora.variants import VARIANTS

Strength = float | Sequence[float] | Tensor


class Layer(nn.Module):
    """What every variant has. Its parameters are float32, each named by its role; `strength` is one number or one value
    per sample of the batch."""

    variant: str

    def __init__(self, rank: int, alpha: float) -> None:
        super().__init__()
        self.rank, self.alpha = rank, alpha
        self._strength: float | Tensor = 1.0
        #: share of the inputs that is left out at random, set while training only
        self.dropout = 0.0
        #: the same for the ranks, where a variant has them
        self.rank_dropout = 0.0

    @classmethod
    def fresh(cls, variant: str, module: nn.Module, rank: int, alpha: float, factor: int = 0) -> Self:
        """A layer of any `variant` for `module`, on its device, started by the row of the variant."""
        weight = module.weight
        assert isinstance(weight, Tensor)
        if isinstance(module, nn.Conv2d) and module.groups != 1:
            raise AdapterError(f"a conv with {module.groups} groups cannot have a layer; leave it out of the targets")
        row, sizes = VARIANTS[variant], (rank, factor) if VARIANTS[variant].takes_factor else (rank,)
        layer = cls.holding(variant, row.start(tuple(weight.shape), *sizes), alpha)
        return layer.to(device=place_of(weight))

    @classmethod
    def holding(cls, variant: str, tensors: Mapping[str, Tensor], alpha: float) -> Self:
        """A layer of `variant` with these tensors, of whatever form they are."""
        shapes, row = {role: tuple(tensor.shape) for role, tensor in tensors.items()}, VARIANTS[variant]
        rank = row.rank(shapes)
        layer = cls(rank, alpha if row.is_scaled(shapes) else float(rank))
        layer.variant = variant
        for role, tensor in tensors.items():
            layer.register_parameter(role, nn.Parameter(tensor.float()))
        return layer

    @property
    def scaling(self) -> float:
        return self.alpha / self.rank

    @property
    def strength(self) -> float | Tensor:
        return self._strength

    @strength.setter
    def strength(self, value: Strength) -> None:
        self._strength = checked_strength(value)

    @property
    def is_off(self) -> bool:
        """True at the scalar strength 0, where the layer need not be computed."""
        return not isinstance(self._strength, Tensor) and self._strength == 0

    def forward(self, x: Tensor, target: nn.Module, output: Tensor) -> Tensor:
        """What the layer adds to `output`, that of `target` for the input `x` (batch first), cast to float32 like
        the weights unless autocast decides."""
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(next(self.parameters()).dtype)
        if isinstance(self._strength, Tensor):
            return self.change_of_each(x, target, output, self._strength)
        change = self.change(x, target, output)
        return change if self._strength == 1 else change * self._strength  # in training: one pass less

    def change(self, x: Tensor, target: nn.Module, output: Tensor) -> Tensor:  # noqa: ARG002
        """What is added at strength 1: all targets are linear in their weight and bias."""
        weight = target.weight
        assert isinstance(weight, Tensor)
        delta, bias = self.delta_weight(weight), self.delta_bias()
        x = functional.dropout(x, self.dropout) if self.dropout else x
        if isinstance(target, nn.Conv2d):
            return target._conv_forward(x, delta, bias)
        if isinstance(target, nn.LayerNorm):
            return functional.layer_norm(x, target.normalized_shape, delta, bias, target.eps)
        if isinstance(target, nn.GroupNorm):
            return functional.group_norm(x, target.num_groups, delta, bias, target.eps)
        return functional.linear(x, delta, bias)

    def change_of_each(self, x: Tensor, target: nn.Module, output: Tensor, strengths: Tensor) -> Tensor:
        """What is added at `strengths` (n,), one per sample."""
        change = self.change(x, target, output)
        return change * _per_sample(strengths, change)

    def delta_weight(self, weight: Tensor) -> Tensor:
        """How `weight`, the target's, changes at strength 1: float32, in its shape, on the layer's device."""
        return VARIANTS[self.variant].delta(*self._with(weight)).reshape(weight.shape)

    def delta_bias(self) -> Tensor | None:
        """How the target's bias changes at strength 1, if it does."""
        return VARIANTS[self.variant].delta_bias(self._weights())

    def tensors(self) -> dict[str, Tensor]:
        """The weights by role."""
        return {role: weight.detach() for role, weight in self._weights().items()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy weights in; roles and shapes must be the same."""
        weights = self.tensors()
        if odd := sorted(set(weights) ^ set(tensors)):
            raise ValueError(f"{type(self).__name__}: {odd[0]} {'is missing' if odd[0] in weights else 'is unknown'}")
        for role, weight in weights.items():
            weight.copy_(tensors[role])

    def extra_repr(self) -> str:
        return f"rank={self.rank}, alpha={self.alpha:g}"

    def _weights(self) -> dict[str, Tensor]:
        return {name.removesuffix(".weight"): weight for name, weight in self.named_parameters()}

    def _with(self, weight: Tensor) -> tuple[dict[str, Tensor], float, Tensor]:
        """The tensors, the scaling and the target's `weight`, for the row: in float32, on the layer's device."""
        tensors = {role: tensor.float() for role, tensor in self._weights().items()}
        if VARIANTS[self.variant].needs_base:
            weight = weight.to(next(self.parameters()).device, torch.float32)
        return tensors, self.scaling, weight


class LoraLayer(Layer):
    """The layers of LoRA, made for a target: `down` and `up` one after the other, without ΔW."""

    variant = "lora"
    down: nn.Linear | nn.Conv2d
    up: nn.Linear | nn.Conv2d

    def change(self, x: Tensor, target: nn.Module, output: Tensor) -> Tensor:  # noqa: ARG002
        return self.up(self._inner(x) * self.scaling)  # fewer numbers than what comes out

    def change_of_each(self, x: Tensor, target: nn.Module, output: Tensor, strengths: Tensor) -> Tensor:  # noqa: ARG002
        inner = self._inner(x)  # far smaller than the change, so there the strengths cost least
        return self.up(inner * _per_sample(strengths * self.scaling, inner))

    def _inner(self, x: Tensor) -> Tensor:
        """`x` in the layer's ranks."""
        inner = self.down(functional.dropout(x, self.dropout) if self.dropout else x)
        return self._fewer_ranks(inner) if self.rank_dropout else inner

    def scale(self, factor: float) -> None:
        """Multiply the change by `factor` (> 0), up and down alike."""
        for weight in (self.up.weight, self.down.weight):
            weight.mul_(math.sqrt(factor))

    def _fewer_ranks(self, inner: Tensor) -> Tensor:
        """`inner` without some of its ranks, others for each sample; the rest is scaled up to the same mean."""
        samples, ranks = inner.shape[0], (self.rank, 1, 1) if isinstance(self.down, nn.Conv2d) else (self.rank,)
        shape = (samples,) + (1,) * (inner.ndim - 1 - len(ranks)) + ranks
        return inner * functional.dropout(torch.ones(shape, device=inner.device, dtype=inner.dtype), self.rank_dropout)

    def _start(self, target: nn.Linear | nn.Conv2d) -> None:
        """The first weights, on the target's device: down Kaiming, up zero, so the output does not change yet."""
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)
        self.to(device=place_of(target.weight), dtype=torch.float32)


class LoraLinear(LoraLayer):
    """For `nn.Linear`: (batch, …, in) → (batch, …, out)."""

    def __init__(self, target: nn.Module, rank: int, alpha: float) -> None:
        super().__init__(rank, alpha)
        assert isinstance(target, nn.Linear)
        self.down = nn.Linear(target.in_features, rank, bias=False)
        self.up = nn.Linear(rank, target.out_features, bias=False)
        self._start(target)


class LoraConv2d(LoraLayer):
    """For `nn.Conv2d`: down has the target's kernel, stride and padding, up is 1 × 1 (the LoCon form)."""

    def __init__(self, target: nn.Module, rank: int, alpha: float) -> None:
        super().__init__(rank, alpha)
        assert isinstance(target, nn.Conv2d)
        if target.groups != 1:
            raise AdapterError(
                f"a conv with {target.groups} groups cannot have a LoRA layer; leave it out of the targets"
            )
        shape: Any = {
            "kernel_size": target.kernel_size, "stride": target.stride, "padding": target.padding,
            "dilation": target.dilation, "padding_mode": target.padding_mode,
        }  # fmt: skip
        self.down = nn.Conv2d(target.in_channels, rank, bias=False, **shape)
        self.up = nn.Conv2d(rank, target.out_channels, 1, bias=False)
        self._start(target)


def place_of(weight: Tensor) -> torch.device:
    """The device for a layer of a target with this `weight`: the CPU while the target has none yet."""
    return torch.device("cpu") if weight.is_meta else weight.device


def checked_strength(value: Strength) -> float | Tensor:
    """`value` as a float or a 1-D tensor of finite numbers; AdapterError otherwise."""
    try:
        tensor = torch.as_tensor(value, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AdapterError(f"a strength must be a number or one number per sample, but {value!r} was given") from error
    if not bool(torch.isfinite(tensor).all()):
        wrong = tensor.flatten()[~torch.isfinite(tensor.flatten())][0].item()
        raise AdapterError(f"a strength must be a finite number, but {wrong} was given")
    if tensor.ndim > 1 or not tensor.numel():
        raise AdapterError(f"strengths must be one number or one per sample, but shape {tuple(tensor.shape)} was given")
    return tensor if tensor.ndim == 1 else float(value)  # pyright: ignore[reportArgumentType]


def _per_sample(strength: Tensor, change: Tensor) -> Tensor:
    """`strength` (n,) shaped to multiply `change` (k · n, …): under guidance the batch is k copies of the n samples."""
    copies, rest = divmod(change.shape[0], strength.shape[0])
    if rest:
        raise AdapterError(f"{strength.shape[0]} strengths were set for a batch of {change.shape[0]} samples")
    shape = (-1,) + (1,) * (change.ndim - 1)
    return strength.to(change).repeat(copies).view(shape)
