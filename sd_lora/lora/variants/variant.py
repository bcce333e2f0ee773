"""A row of the table of variants: facts and arithmetic. Nothing here loads torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sd_lora.lora.layers import Layer

#: a numpy array or a tensor of torch
Array = Any
Shapes = Mapping[str, tuple[int, ...]]

MAX_RANK = 4096


class Variant:
    """A way to write the change of a weight with few numbers. A new one overrides what differs and gets a row.

    Methods take what belongs to one module by role (``down``, ``up`` …): shapes, or arrays of numpy or torch.
    """

    name: str
    #: what people call it
    title: str
    #: layout → role → ending of its key
    keys: Mapping[str, Mapping[str, str]]
    #: roles that a module may lack
    optional: Collection[str] = ()
    #: whether it can be trained and written; others are read only
    is_trained = True
    #: ``ss_network_module``, by which kohya's tools know it, and the ``algo`` among its arguments
    network_module = "networks.lora"
    algorithm = ""
    #: whether diffusers reads it from kohya's keys, and from its own layout
    diffusers_reads_kohya = diffusers_reads_export = True
    #: roles whose tensors training never makes zero: one of zeros is damaged
    never_zero: tuple[str, ...] = ()
    #: the role that is multiplied when another alpha is written
    scaled_role = "up"
    #: whether the sum of two changes is one of this variant, whose rank is the sum of theirs
    can_add = False
    #: whether a smaller rank can be computed from its tensors alone
    can_cut = False
    #: whether ``lora.factor`` can act on it, and ``lora.rank_dropout`` and ``optimizer.plus_ratio``
    takes_factor = False
    has_up_and_ranks = False
    #: whether ``optimizer.max_norm`` can act on it
    can_cap_norm = False
    #: whether its change depends on the weight that it changes, which must then be in full precision
    needs_base = False
    #: what users should know before they train it, as a sentence
    note = ""
    #: whether it is known how other programs read it
    is_judged = False
    #: what other programs make of a `Part` of a file with it: effect, programs, why, when
    clients: tuple[tuple[str, tuple[str, ...], str, Callable[[Any], bool]], ...] = ()

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(self.keys["kohya"])

    def missing(self, roles: Collection[str]) -> list[str]:
        """The roles without which `roles` change nothing."""
        return sorted(set(self.roles) - set(self.optional) - set(roles))

    def problem(self, shapes: Shapes, layout: str) -> str:
        """Why tensors of these shapes in a file of `layout` are not a module: a clause, or ""."""
        raise NotImplementedError

    def only_read(self, shapes: Shapes) -> str:  # noqa: ARG002
        """What tensors of these shapes are, if they are read but not trained; else ""."""
        return "" if self.is_trained else self.title

    def rank(self, shapes: Shapes) -> int:
        raise NotImplementedError

    def is_scaled(self, shapes: Shapes) -> bool:  # noqa: ARG002
        """Whether alpha / rank multiplies the change."""
        return True

    def shape(self, shapes: Shapes) -> tuple[int, ...]:
        """The shape of the weight that is changed."""
        raise NotImplementedError

    def fits(self, shapes: Shapes, shape: tuple[int, ...]) -> bool:
        """Whether a weight of `shape` can be changed: one of another kernel may be kept as a matrix."""
        mine = self.shape(shapes)
        return mine == shape or (2 in (len(mine), len(shape)) and mine[:1] == shape[:1] and prod(mine) == prod(shape))

    def product(self, tensors: Mapping[str, Array]) -> Array:
        """The change at scaling 1, in the shape of the weight, as far as the tensors alone make it."""
        raise NotImplementedError

    def inner(self, one: Mapping[str, Array], other: Mapping[str, Array]) -> Array:
        """The sum of `product` of `one` times that of `other`, element by element: of one with itself, ‖product‖²."""
        return (self.product(one) * self.product(other)).sum()

    def delta(self, tensors: Mapping[str, Tensor], scaling: float, weight: Tensor) -> Tensor:  # noqa: ARG002
        """The change of `weight` at strength 1."""
        return self.product(tensors) * scaling

    def delta_bias(self, tensors: Mapping[str, Tensor]) -> Tensor | None:  # noqa: ARG002
        """The change (out,) of the bias at strength 1, if there is one."""
        return None

    def scaled(self, tensors: Mapping[str, Array], factor: float) -> dict[str, Array]:
        """`tensors` whose change is `factor` times theirs."""
        return {**tensors, self.scaled_role: tensors[self.scaled_role] * factor}

    def balanced(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors with the same change that a narrow type keeps better, if there are such."""
        return dict(tensors)

    def in_file(self, tensors: Mapping[str, Tensor], layout: str) -> Mapping[str, Tensor]:  # noqa: ARG002
        """`tensors` in the shapes that files of `layout` have."""
        return tensors

    def in_memory(self, tensors: Mapping[str, Array], layout: str, alpha: float | None = None) -> dict[str, Array]:  # noqa: ARG002
        """The inverse of `in_file`; `alpha`: that of the module, if the file has one."""
        return dict(tensors)

    def fitted(self, tensors: Mapping[str, Array], shape: tuple[int, ...]) -> dict[str, Array]:  # noqa: ARG002
        """`tensors` for a weight of `shape`, which they fit: a matrix may be a kernel of ones, and the reverse."""
        return dict(tensors)

    def start(self, shape: tuple[int, ...], rank: int) -> dict[str, Tensor]:
        """The tensors of a fresh layer for a weight of `shape`, which change nothing yet."""
        raise NotImplementedError

    def layers(self, factor: int = 0) -> dict[type[nn.Module], Callable[[nn.Module, int, float], Layer]]:
        """Type of a module → how a fresh layer for it is made, of a module, a rank and an alpha."""
        from torch import nn

        return dict.fromkeys((nn.Linear, nn.Conv2d), self._fresh(factor))

    def _fresh(self, factor: int) -> Callable[[nn.Module, int, float], Layer]:
        from sd_lora.lora.layers import Layer

        return functools.partial(Layer.fresh, self.name, factor=factor)
