"""Strengths of an adapter's parts: from one number, or numbers by component and block, to one for every module.

The nested form is that of diffusers' `set_adapters`. It means the same there for attentions, and mostly for conv
layers: diffusers leaves the resnets of the mid block and of blocks without attention at 1, and where a block has a
list, gives its up- or downsampler the first number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from sd_lora.errors import AdapterError, nearest
from sd_lora.lora.layers import Strength, checked_strength
from sd_lora.models.families import ModelFamily
from sd_lora.models.families.base import Place

#: One strength for all, or one for each component, or for each block of the denoiser, or for each layer of a block.
Strengths = Strength | Mapping[str, Any]


def strengths_by_module(
    names: Iterable[str], value: Strengths, family: ModelFamily, base: Iterable[str] | None = None
) -> dict[str, float | Tensor]:
    """The strength of each module of `names`.

    `value` is a number, or one number per sample of a batch; or it is given by component, and for the denoiser by
    block: ``{"text_encoder": 0.5, "unet": {"mid": 1.0, "up": {"block_0": 0.6, "block_1": [0.4, 0.8, 1.0]}}}``.
    Parts that are left out have strength 1. A list has a number for each attention of a block (or one for all); the
    resnet before an attention goes with it, and the block's up- or downsampler with the last. Modules outside of the
    blocks have strength 1 where strengths are given by block. A number for ``down`` or ``up`` also applies to blocks
    without attention.

    `base` names all modules of the base model; without it a list may be longer than `names` shows.
    Raises AdapterError naming every part that has no modules, every list of a wrong length and every number that is
    not finite.
    """
    if not isinstance(value, Mapping):
        return dict.fromkeys(names, checked_strength(value))
    places = {name: family.part_of(name) for name in names}
    depths: dict[tuple[str, ...], int] = {}
    for block, layer in map(family.part_of, places if base is None else base):
        depths[block] = max(depths.get(block, 1), layer + 1)
    problems: list[str] = []
    strengths = _Spread(depths, base is not None, problems).over(places, value, ())
    if problems:
        raise AdapterError(f"strengths cannot be set: {'; '.join(problems)}")
    return strengths


class _Spread:
    """One walk through the given strengths; collects what is wrong with them."""

    def __init__(self, depths: Mapping[tuple[str, ...], int], exact: bool, problems: list[str]) -> None:
        self.depths, self.exact, self.problems = depths, exact, problems

    def over(self, places: Mapping[str, Place], value: Any, part: tuple[str, ...]) -> dict[str, float | Tensor]:
        """`value`, given for `part`, spread over the modules in it."""
        label, below = ".".join(part), _grouped(places, len(part))
        if isinstance(value, Mapping):
            strengths: dict[str, float | Tensor] = dict.fromkeys(places, 1.0)
            for key, inner in value.items():
                if key in below:
                    strengths |= self.over(below[key], inner, (*part, key))
                else:
                    known = nearest(str(key), below) if below else f"{label} has no parts"
                    self.problems.append(f'the adapter has no modules in "{".".join((*part, str(key)))}" ({known})')
            return strengths
        if isinstance(value, Sequence) and not isinstance(value, str):
            return self._listed(places, value, part)
        try:
            return dict.fromkeys(places, checked_strength(value))  # pyright: ignore[reportArgumentType]
        except AdapterError as error:
            self.problems.append(f"{label}: {error}")
            return {}

    def _listed(
        self, places: Mapping[str, Place], values: Sequence[Any], part: tuple[str, ...]
    ) -> dict[str, float | Tensor]:
        # the same for every block
        if len(part) > 1 and places and all(len(place[0]) > len(part) for place in places.values()):
            blocks = _grouped(places, len(part))
            return {n: s for key, inner in blocks.items() for n, s in self._listed(inner, values, (*part, key)).items()}
        depth, label = self.depths.get(part, 1), ".".join(part)
        if len(part) < 2:
            self.problems.append(f"{label} takes one number, not a list")
            return {}
        if len(values) != 1 and (len(values) < depth or (self.exact and len(values) > depth)):
            self.problems.append(f"{label} has {depth} layers, but {len(values)} numbers were given")
            return {}
        strengths: dict[str, float | Tensor] = {}
        for index, value in enumerate(values):
            last = index == len(values) - 1
            layer = {n: p for n, p in places.items() if p[1] == index or (last and not 0 <= p[1] < index)}
            strengths |= self.over(layer, value, (*part, str(index)))
        return strengths


def _grouped(places: Mapping[str, Place], depth: int) -> dict[str, dict[str, Place]]:
    """The modules of `places` that are in a part `depth` levels down, by that part's key."""
    groups: dict[str, dict[str, Place]] = {}
    for name, place in places.items():
        if len(place[0]) > depth:
            groups.setdefault(place[0][depth], {})[name] = place
    return groups
