"""The parts of an adapter file as they are spelled in it, foreign and damaged ones included.

The reader in `adapters.file` accepts or refuses a file; this only describes it, and `clients` judges by that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property

from sd_lora.adapters.keys import Spelling, spelling_of
from sd_lora.adapters.original import natives_of
from sd_lora.lora.variants import variant_of
from sd_lora.models.families import FAMILIES, Kind, ModelFamily, kinds
from sd_lora.models.kinds import family_of_kind

#: what InvokeAI takes a width for; 1280 is that of the time embedding of SD1 and SD2 as well
_VERSIONS = {768: "SD1", 1024: "SD2", 1280: "SDXL", 2048: "SDXL"}
_WIDTH_ENDINGS = ("_attn2_to_k", "_attn2_to_v", "time_emb_proj")
_DEEP = re.compile(
    r"lora_unet_(?:(?:down|up)_blocks_\d+_attentions_\d+|mid_block_attentions_\d+|(?:input|output)_blocks_\d+_\d+"
    r"|middle_block_\d+)_transformer_blocks_(\d+)_"
)


@dataclass(frozen=True)
class Part(Spelling):
    """One module of a file. `shapes`: by role; `alpha`: None if the file has none for it; `family`: the one the file is
    for."""

    shapes: Mapping[str, tuple[int, ...]] = field(compare=False)
    keys: tuple[str, ...]
    family: ModelFamily = field(compare=False, repr=False)
    alpha: float | None = None

    @property
    def variant(self) -> str:
        row = variant_of(self.shapes)
        return row.name if row else ""

    @property
    def flat(self) -> str:
        """Its path with underscores."""
        return self.path.replace(".", "_")

    @cached_property
    def _module(self) -> tuple[str, bool]:
        for component in self.components_of(self.family):
            with suppress(ValueError):
                return self.family.module_of_path(component, self.path)
        return "", False

    @property
    def name(self) -> str:
        """The module in memory, "" if the family has no such module."""
        return self._module[0]

    @property
    def is_original(self) -> bool:
        """Whether it is spelled with the block names of the original code."""
        return self.layout == "kohya" and self._module[1]

    @property
    def component(self) -> str:
        """The component that its key names, "" if it names none."""
        return next(iter(self.components_of(self.family) if self.components else ()), next(iter(self.components), ""))

    @property
    def is_text(self) -> bool:
        return self.component not in ("", self.family.denoiser)

    @property
    def is_bare(self) -> bool:
        """Of a text encoder, without the level that newer transformers dropped."""
        return self.is_text and self.flat.startswith("encoder_layers_")

    @property
    def unjudged(self) -> str:
        """What it has that nobody measured how other programs read it, "" if they are known to."""
        if self.layout == "other":
            return "a spelling of keys that is none of kohya's or diffusers'"
        if any(natives_of(family, self.path) for family in FAMILIES.values()) and not self.name:
            return "the names of the original code, in which several modules are one matrix"
        if not any(replace(self, family=family).name for family in (self.family, *FAMILIES.values())):
            return "names of modules that no base has"
        row = variant_of(self.shapes)
        if row is not None and not row.is_judged:
            return f"keys of {row.title}"
        return "keys of LoCon with a core" if "mid" in self.shapes else ""

    @cached_property
    def group(self) -> str:
        """The group of targets it is in."""
        return self.family.group_of(self.name)

    @property
    def is_attention(self) -> bool:
        return self.group in ("attn", "text")

    @property
    def is_outside_blocks(self) -> bool:
        return self.name != "" and self.family.part_of(self.name)[0] == (self.family.denoiser,)


@dataclass(frozen=True)
class FileFacts:
    """The complete `parts` of a file, and its `stray` keys; the `kind` of base, if it is known; and the `shapes` of all
    tensors by key, in the order of the file."""

    parts: tuple[Part, ...]
    stray: tuple[str, ...]
    metadata: Mapping[str, str]
    family: ModelFamily
    kind: Kind | None = None
    header_bytes: int = 0
    has_embeddings: bool = False
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def has_pixel_projections(self) -> bool:
        return self.kind is not None and self.kind.has_pixel_projections

    @property
    def openclip(self) -> tuple[str, ...]:
        return self.kind.openclip if self.kind is not None else ()

    @cached_property
    def commonest_alpha(self) -> float | None:
        return Counter(part.alpha for part in self.parts).most_common(1)[0][0] if self.parts else None

    @cached_property
    def mixes_names(self) -> bool:
        """Original and diffusers' block names in one file."""
        kohya = [p for p in self.parts if p.layout == "kohya" and p.name and not p.is_text]
        return len({p.is_original for p in kohya}) == 2

    @cached_property
    def version_by_width(self) -> str:
        """The version that InvokeAI takes the base for, "" if it cannot tell: by the first width in the file of the
        inputs of the cross-attention's keys and values, of the time embedding's projection by diffusers' name, or of
        text attention; else by the depth of SDXL's transformers. Bases of other sizes than the published ones are
        judged as if they had those."""
        text: dict[str, int] = {}
        for key, shape in self.shapes.items():
            stem, _, role = key.partition(".")
            width = shape[1] if role == "lora_down.weight" and len(shape) > 1 else 0
            if stem.startswith("lora_te") and "_self_attn_" in stem:
                text[stem.split("_")[1]] = width  # a key of another role takes the width away again
                width = text.get("te", 0) or (text["te1"] + text["te2"] if text.get("te1") and text.get("te2") else 0)
            elif not (stem.startswith("lora_unet_") and stem.endswith(_WIDTH_ENDINGS)):
                width = 0
            if width:
                expected = self.kind.version if self.kind is not None else ""
                return _VERSIONS.get(width, expected)
        is_deep = any(int(found[1]) > 1 for key in self.shapes if (found := _DEEP.match(key)))
        return _VERSIONS[2048] if is_deep else ""

    def is_partial(self, part: Part) -> bool:
        """Whether `part` is of a text encoder's attention of which only some projections are in the file."""
        return part.group == "text" and self._projections[part.name.rpartition(".")[0]] < 4

    @cached_property
    def _projections(self) -> Counter[str]:
        return Counter(part.name.rpartition(".")[0] for part in self.parts if part.group == "text")


def facts_of(
    shapes: Mapping[str, tuple[int, ...]],
    metadata: Mapping[str, str],
    alphas: Mapping[str, float],
    kind: str = "",
    header_bytes: int = 0,
    has_embeddings: bool = False,
) -> FileFacts:
    """Sort the keys of a file. `shapes`: of every tensor, by key; `alphas`: the values of the alphas, by key; `kind`:
    the name of the kind of base, "" if that is unknown."""
    family = family_of_kind(kind) if kind else next(iter(FAMILIES.values()))
    spellings: dict[str, Spelling] = {}
    keys_of: dict[str, dict[str, str]] = {}
    stray: list[str] = []
    for key in sorted(shapes):
        spelling, role = spelling_of(key)
        if spelling is None:
            stray.append(key)
            continue
        spellings[spelling.stem] = spelling
        keys_of.setdefault(spelling.stem, {})[role] = key
    for key in [key for key in stray if "on_input" in keys_of.get(key.removesuffix(".weight"), {})]:
        keys_of[key.removesuffix(".weight")]["gain"] = key  # (IA)³'s, which has the name of a model's tensor
        stray.remove(key)
    parts = []
    for stem, keys in keys_of.items():
        row = variant_of(set(keys) - {"alpha"})
        if row is None or row.missing(keys):
            stray += keys.values()
            continue
        of_roles = {role: shapes[key] for role, key in keys.items() if role != "alpha"}
        alpha = alphas.get(keys.get("alpha", ""))
        parts.append(
            Part(**vars(spellings[stem]), shapes=of_roles, keys=tuple(keys.values()), family=family, alpha=alpha)
        )
    return FileFacts(
        tuple(parts), tuple(stray), metadata, family, kinds().get(kind), header_bytes, has_embeddings, shapes
    )
