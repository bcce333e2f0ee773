"""Keys with the names of a transformer's original code, in which several modules of diffusers' are one matrix: read as
keys of those modules, each with its rows of `up`."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sd_lora.adapters.keys import spelling_of
from sd_lora.errors import AdapterError, some
from sd_lora.models.families import FAMILIES, ModelFamily
from sd_lora.storage.safetensors_header import TensorInfo

#: the roles of a tensor that can be split: of LoRA alone
_ROLES = ("down", "up", "alpha")


@dataclass(frozen=True)
class Piece:
    """The tensor `key` of a file, of which a module has the `rows` from, up to, and of how many parts."""

    key: str
    rows: tuple[int, int, int] = (0, 1, 1)

    def of(self, tensor: Any) -> Any:
        """Its rows of `tensor`, of numpy or torch."""
        start, stop, parts = self.rows
        return tensor if parts == 1 else tensor[start * len(tensor) // parts : stop * len(tensor) // parts]


def natives_of(family: ModelFamily, path: str) -> tuple[tuple[str, int], ...]:
    """The modules, with their shares of its rows, that module `path` of the denoiser is in `family`, whose dots may be
    underscores; none if it is not one of its `originals`."""
    if family.originals and _any_of(tuple(family.originals)).fullmatch(path):
        for original, natives in family.originals.items():
            if found := _any_of((original,)).fullmatch(path):
                return tuple((native.replace("#", found[1]), share) for native, share in natives)
    return ()


def pieces_of(header: Mapping[str, TensorInfo]) -> tuple[dict[str, TensorInfo], dict[str, Piece]]:
    """`header` by keys in diffusers' names, and what each key is made of where it is not one of the file's.

    AdapterError for a matrix that is none of the modules that its name stands for.
    """
    split, pieces = dict[str, TensorInfo](), dict[str, Piece]()
    for key, info in header.items():
        parts = _pieces(key, info)
        if not parts or parts.keys() & header.keys():
            split[key] = info
            continue
        pieces |= parts
        split |= {name: info._replace(shape=_shape(info.shape, piece)) for name, piece in parts.items()}
    return split, pieces


def _shape(shape: tuple[int, ...], piece: Piece) -> tuple[int, ...]:
    start, stop, parts = piece.rows
    return shape if parts == 1 else (shape[0] * (stop - start) // parts, *shape[1:])


def _pieces(key: str, info: TensorInfo) -> dict[str, Piece]:
    spelling, role = spelling_of(key)
    if spelling is None or role not in _ROLES or spelling.stem not in key:
        return {}
    before, _, ending = key.rpartition(spelling.stem)
    for family in FAMILIES.values():
        natives = natives_of(family, spelling.path) if _may_be_of(family, spelling.components) else ()
        total = sum(share for _, share in natives)
        if not natives:
            continue
        if role == "up" and (not info.shape or info.shape[0] % total):
            modules = f"the {len(natives)} modules that are one matrix there ({some([name for name, _ in natives], 4)})"
            raise AdapterError(
                f"{key} is of shape {list(info.shape)}, which cannot be divided among {modules}; the file is damaged, "
                f"or for another model than {family.title}"
            )
        made, start = dict[str, Piece](), 0
        for native, share in natives:
            rows = (start, start + share, total) if role == "up" else (0, 1, 1)
            made[before + _stem(family, spelling.stem, spelling.path, native) + ending] = Piece(key, rows)
            start += share
        return made
    return {}


def _may_be_of(family: ModelFamily, components: tuple[str, ...]) -> bool:
    """Whether a key that names `components` may be of the denoiser: kohya's call every denoiser a UNet."""
    return not components or family.denoiser in components or "unet" in components


def _stem(family: ModelFamily, stem: str, path: str, native: str) -> str:
    """The stem of module `native` of the denoiser, spelled as `stem` spells `path`."""
    if "." not in stem:
        prefix = next(each.prefix for each in family.components if each.name == family.denoiser)
        return prefix + native.replace(".", "_")
    before = stem.removesuffix(path)
    return (f"{family.denoiser}." if before in ("", "unet.", "lora_unet.") else before) + native


@functools.cache
def _any_of(originals: tuple[str, ...]) -> re.Pattern[str]:
    """Any of these modules, with numbers for # and dots or underscores."""
    return re.compile("|".join(re.escape(each).replace(r"\.", "[._]").replace(r"\#", r"(\d+)") for each in originals))
