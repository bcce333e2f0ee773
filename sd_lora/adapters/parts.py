"""The parts of an adapter file as they are spelled in it, foreign and damaged ones included.

Where the reader of `adapter_file` refuses or understands, this only describes; `clients` judges by it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

from sd_lora.adapters.keys import kohya_role
from sd_lora.lora.variants import file_roles, variant_of
from sd_lora.models.families import FAMILIES, Kind, ModelFamily, components, kinds
from sd_lora.models.families.unet_names import TEXT_LEVEL
from sd_lora.models.kinds import family_of_kind

#: ending of a dotted key → spelling, role; the longer ones first, then those of the variants
_ENDINGS = (
    ("_lora.down.weight", "old", "down"), ("_lora.up.weight", "old", "up"),
    (".lora_linear_layer.down.weight", "old", "down"), (".lora_linear_layer.up.weight", "old", "up"),
    (".lora.down.weight", "old", "down"), (".lora.up.weight", "old", "up"), (".alpha", "peft", "alpha"),
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One module of a file. `spelling`: "kohya", "peft", "old" (diffusers before PEFT) or "other"; `prefix`: how its
    path begins for its `component`; `flat`: the rest of its path, with underscores; `shapes`: by role;
    `alpha`: None if the file has none for it. `name`: the module in memory, "" if it is none of the
    `family`; `is_original`: spelled as in the original code."""

    stem: str
    spelling: str
    prefix: str
    component: str
    flat: str
    shapes: Mapping[str, tuple[int, ...]] = field(compare=False)
    keys: tuple[str, ...]
    family: ModelFamily = field(compare=False, repr=False)
    alpha: float | None = None

    @property
    def variant(self) -> str:
        row = variant_of(self.shapes)
        return row.name if row else ""

    @cached_property
    def _meant(self) -> tuple[str, bool]:
        prefixes = {each.name: each.prefix for each in self.family.components}
        with suppress(ValueError):
            return self.family.module_of_stem(prefixes.get(self.component, "") + self.flat)
        return "", False

    @property
    def name(self) -> str:
        return self._meant[0]

    @property
    def is_original(self) -> bool:
        return self.spelling == "kohya" and self._meant[1]

    @property
    def is_text(self) -> bool:
        return self.component not in ("", self.family.denoiser)

    @property
    def is_bare(self) -> bool:
        """Of a text encoder, without the level that newer transformers dropped."""
        return self.is_text and not self.flat.startswith(TEXT_LEVEL.replace(".", "_"))

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
    """The `parts` of a file that lack nothing, and its `stray` keys; the `kind` of base, if it is known."""

    parts: tuple[Part, ...]
    stray: tuple[str, ...]
    metadata: Mapping[str, str]
    family: ModelFamily
    kind: Kind | None = None
    header_bytes: int = 0

    @property
    def has_pixel_projections(self) -> bool:
        return self.kind is not None and self.kind.has_pixel_projections

    @cached_property
    def commonest_alpha(self) -> float | None:
        return Counter(part.alpha for part in self.parts).most_common(1)[0][0] if self.parts else None

    @cached_property
    def mixes_names(self) -> bool:
        """Original and diffusers' block names in one file."""
        kohya = [p for p in self.parts if p.spelling == "kohya" and p.name and not p.is_text]
        return len({p.is_original for p in kohya}) == 2

    @cached_property
    def tells_width(self) -> bool:
        """Whether its modules show the base to InvokeAI: by the width of the cross-attention's inputs or of a text
        encoder's, or by original names."""
        if any(part.name.endswith(self.family.width_modules) for part in self.parts):
            return True
        if self.kind is not None and self.family.writes_original:
            return not all(part.is_text for part in self.parts)
        return self.kind is None or any(part.group == "text" for part in self.parts)

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
) -> FileFacts:
    """Sort the keys of a file. `shapes`: of every tensor, by key; `alphas`: value by key, of those that are alphas;
    `kind`: the name of the kind of base, "" if that is unknown."""
    family = family_of_kind(kind) if kind else next(iter(FAMILIES.values()))
    found: dict[str, dict[str, str]] = {}
    names: dict[str, tuple[str, str, str, str]] = {}
    stray: list[str] = []
    for key in sorted(shapes):
        stem, spelling, prefix, component, flat, role = _parse(key)
        if not role:
            stray.append(key)
            continue
        names[stem] = (spelling, prefix, component, flat)
        found.setdefault(stem, {})[role] = key
    parts = []
    for stem, keys in found.items():
        row = variant_of(set(keys) - {"alpha"})
        if row is None or row.missing(keys):
            stray += keys.values()
            continue
        parts.append(
            Part(
                stem,
                *names[stem],
                {role: shapes[key] for role, key in keys.items() if role != "alpha"},
                tuple(keys.values()),
                family,
                alphas.get(keys.get("alpha", "")),
            )
        )
    return FileFacts(tuple(parts), tuple(stray), metadata, family, kinds().get(kind), header_bytes)


def _parse(key: str) -> tuple[str, str, str, str, str, str]:
    """Key → stem, spelling, prefix, component, flat path, role; the role is empty for a key of no LoRA module."""
    stem, _, rest = key.partition(".")
    for component in (each for family in FAMILIES.values() for each in family.components):
        flat = stem.removeprefix(component.prefix)
        if flat not in ("", stem):
            return stem, "kohya", component.prefix, component.name, flat, kohya_role(rest)
    peft = [
        (f".{ending}{more}", "peft", role)
        for ending, role in file_roles("diffusers").items()
        for more in ("", ".weight")
    ]
    for ending, spelling, role in (*_ENDINGS, *peft):
        if key.endswith(ending):
            path = key.removesuffix(ending)
            component, _, inner = path.partition(".")
            if not inner or component not in components():
                return path, "other", "", "", path.replace(".", "_"), role
            flat = inner.replace(".processor.", ".").replace(".", "_")
            if spelling == "old" and flat.endswith("to_out"):
                flat += "_0"
            return path, spelling, f"{component}.", component, flat, role
    return key, "other", "", "", key, ""
