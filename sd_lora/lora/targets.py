"""Plan which modules get a LoRA layer, of which rank and alpha: a list to print before any tensor is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeVar

from torch import nn

from sd_lora.errors import AdapterError, nearest
from sd_lora.lora.variants import VARIANTS

Size = TypeVar("Size", int, float)


@dataclass(frozen=True)
class Target:
    """A module chosen for a layer. `name` is ``<component>.<path>``, e.g. ``unet.mid_block.….to_q``."""

    name: str
    module: nn.Module = field(repr=False, compare=False)
    rank: int
    alpha: float


def plan_targets(
    components: Mapping[str, nn.Module],
    groups: Mapping[str, Sequence[str]],
    targets: Sequence[str],
    sizes: tuple[int, float] = (16, 16.0),
    overrides: tuple[Mapping[str, int], Mapping[str, float]] = ({}, {}),
) -> list[Target]:
    """Choose the modules of `components` that `targets` name.

    `targets` holds names of `groups` or glob patterns over full names (``unet.up_blocks.*.to_v``); `groups` gives each
    group's patterns. `sizes` is (rank, alpha) for all; `overrides` gives (ranks, alphas) by pattern, the last match
    winning. Only modules of a type that a layer exists for are eligible.

    Raises AdapterError naming every group or pattern that chooses nothing.
    """
    least, lowest = min((sizes[0], *overrides[0].values())), min((sizes[1], *overrides[1].values()))
    if least < 1:
        raise AdapterError(f"a rank must be at least 1, but {least} was given")
    if lowest <= 0:
        raise AdapterError(f"an alpha must be above 0, but {lowest:g} was given")
    carriers = VARIANTS["lora"].layers()
    eligible = {
        f"{component}.{path}": module
        for component, root in components.items()
        for path, module in root.named_modules()
        if type(module) in carriers and ".loras." not in f".{path}."
    }
    chosen: set[str] = set()
    problems: list[str] = []
    for target in targets:
        matched = {n for n in eligible if any(fnmatchcase(n, p) for p in groups.get(target, (target,)))}
        if not matched:
            hint = "no such module" if "." in target or "*" in target else nearest(target, groups)
            problems.append(f'target "{target}" matches no linear or conv module of {", ".join(components)} ({hint})')
        chosen |= matched
    for pattern in (*overrides[0], *overrides[1]):
        if not any(fnmatchcase(name, pattern) for name in chosen):
            problems.append(f'rank or alpha pattern "{pattern}" matches none of the {len(chosen)} chosen modules')
    if problems:
        raise AdapterError("; ".join(problems))
    return [
        Target(name, module, _last(overrides[0], name, sizes[0]), float(_last(overrides[1], name, sizes[1])))
        for name, module in eligible.items()
        if name in chosen
    ]


def _last(patterns: Mapping[str, Size], name: str, default: Size) -> Size:
    matches = [value for pattern, value in patterns.items() if fnmatchcase(name, pattern)]
    return matches[-1] if matches else default
