"""The table of variants. To add one: a file here and a row below; the contract tests then check it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from sd_lora.errors import AdapterError, nearest
from sd_lora.lora.variants.dora import Dora
from sd_lora.lora.variants.glora import Glora
from sd_lora.lora.variants.loha import Loha
from sd_lora.lora.variants.lokr import Lokr
from sd_lora.lora.variants.lora import Lora
from sd_lora.lora.variants.oft import Oft
from sd_lora.lora.variants.variant import Variant
from sd_lora.lora.variants.whole import Full, Ia3, Norm

if TYPE_CHECKING:
    from torch import nn

    from sd_lora.lora.layers import Layer

VARIANTS: dict[str, Variant] = {
    row.name: row
    for row in (Lora(), Dora(), Loha(), Lokr(), Dora(Loha()), Dora(Lokr()), Full(), Norm(), Ia3(), Glora(), Oft())
}


def new_layer(module: nn.Module, rank: int, alpha: float, variant: str = "lora", factor: int = 0) -> Layer:
    """A fresh layer of `variant` for `module`; `factor` is LoKr's. Raises AdapterError for a variant that does not
    exist or is not trained."""
    trained = [name for name, row in VARIANTS.items() if row.is_trained]
    if variant not in trained:
        raise AdapterError(f'there is no variant "{variant}"; {nearest(variant, trained)}')
    row = VARIANTS[variant]
    return (row.layers(factor) if row.takes_factor else row.layers())[type(module)](module, rank, alpha)


def variant_of(roles: Collection[str]) -> Variant | None:
    """The variant whose modules have tensors of these `roles`, the one that lacks fewest; None if none has all."""
    able = [row for row in VARIANTS.values() if set(roles) <= set(row.roles)]
    return min(able, key=lambda row: len(row.missing(roles)), default=None)


def called(variants: Iterable[str]) -> str:
    """The variant that names an adapter with modules of these `variants`: the last in the table, "" without modules."""
    return max(variants, key=list(VARIANTS).index, default="")


def file_roles(layout: str) -> dict[str, str]:
    """Ending of a key in `layout` → role, of all variants."""
    return {ending: role for row in VARIANTS.values() for role, ending in row.keys[layout].items()}
