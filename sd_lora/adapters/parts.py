"""The parts of an adapter file as they are spelled in it, foreign and damaged ones included.

Where the reader of `adapter_file` refuses or understands, this only describes; `clients` judges by it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from sd_lora.adapters.keys import kohya_role
from sd_lora.lora.variants import file_roles, variant_of

_KOHYA = re.compile(r"(lora_(?:unet|te|te1|te2)_)(.+)$")
_DOTTED = re.compile(r"((?:unet|text_encoder|text_encoder_2)\.)(.+)$")
#: ending of a dotted key → spelling, role; the longer ones first, then those of the variants
_ENDINGS = (
    ("_lora.down.weight", "old", "down"), ("_lora.up.weight", "old", "up"),
    (".lora_linear_layer.down.weight", "old", "down"), (".lora_linear_layer.up.weight", "old", "up"),
    (".lora.down.weight", "old", "down"), (".lora.up.weight", "old", "up"), (".alpha", "peft", "alpha"),
)  # fmt: skip
_SGM = re.compile(r"(?:input_blocks|middle_block|output_blocks|time_embed|label_emb|out)_\d|middle_block_")
_DIFFUSERS = re.compile(r"(?:down_blocks|mid_block|up_blocks|conv_in|conv_out|time_embedding|add_embedding)(?:_|$)")
_OUTSIDE = re.compile(
    r"(?:conv_in|conv_out|(?:time|add)_embedding_linear_\d|input_blocks_0_0|out_2|time_embed_\d|label_emb_\d_\d)$"
)
_ATTENTION = re.compile(r"attn[12]_to_(?:q|k|v|out_0)$|self_attn_(?:q|k|v|out)_proj$")


@dataclass(frozen=True)
class Part:
    """One module of a file. `spelling`: "kohya", "peft", "old" (diffusers before PEFT) or "other"; `flat`: its path
    with underscores; `shapes`: by role; `alpha`: None if the file has none for it."""

    stem: str
    spelling: str
    prefix: str
    flat: str
    shapes: Mapping[str, tuple[int, ...]] = field(compare=False)
    keys: tuple[str, ...]
    alpha: float | None = None

    @property
    def variant(self) -> str:
        row = variant_of(self.shapes)
        return row.name if row else ""

    @property
    def is_text(self) -> bool:
        return self.prefix.startswith(("lora_te", "text_encoder"))

    @property
    def is_sgm(self) -> bool:
        return self.prefix == "lora_unet_" and bool(_SGM.match(self.flat))

    @property
    def has_diffusers_name(self) -> bool:
        return self.prefix == "lora_unet_" and bool(_DIFFUSERS.match(self.flat))

    @property
    def is_attention(self) -> bool:
        return bool(_ATTENTION.search(self.flat))

    @property
    def is_projection(self) -> bool:
        return not self.is_text and self.flat.endswith(("_proj_in", "_proj_out"))

    @property
    def is_outside_blocks(self) -> bool:
        return not self.is_text and bool(_OUTSIDE.match(self.flat))


@dataclass(frozen=True)
class FileFacts:
    """The `parts` of a file that lack nothing, and its `stray` keys; `kind` as in `kinds`, or ""."""

    parts: tuple[Part, ...]
    stray: tuple[str, ...]
    metadata: Mapping[str, str]
    kind: str = ""
    header_bytes: int = 0

    @cached_property
    def commonest_alpha(self) -> float | None:
        return Counter(part.alpha for part in self.parts).most_common(1)[0][0] if self.parts else None

    @cached_property
    def mixes_names(self) -> bool:
        """Original and diffusers' block names in one file."""
        return any(p.is_sgm for p in self.parts) and any(p.has_diffusers_name for p in self.parts)

    @cached_property
    def tells_width(self) -> bool:
        """Whether a module's inputs are as wide as the cross-attention: what InvokeAI tells the base by."""
        if any(part.flat.endswith(("attn2_to_k", "attn2_to_v")) for part in self.parts):
            return True
        if self.kind == "sdxl":
            return not all(part.is_text for part in self.parts)
        return not self.kind or any(part.is_text and part.is_attention for part in self.parts)

    def is_partial(self, part: Part) -> bool:
        """Whether `part` is of a text encoder's attention of which only some projections are in the file."""
        if not (part.is_text and part.is_attention):
            return False
        layer = part.prefix, part.flat.rpartition("self_attn_")[0]
        return self._projections[layer] < 4

    @cached_property
    def _projections(self) -> Counter[tuple[str, str]]:
        text = (part for part in self.parts if part.is_text and part.is_attention)
        return Counter((part.prefix, part.flat.rpartition("self_attn_")[0]) for part in text)


def facts_of(
    shapes: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str], alphas: Mapping[str, float],
    kind: str = "", header_bytes: int = 0,
) -> FileFacts:  # fmt: skip
    """Sort the keys of a file. `shapes`: of every tensor, by key; `alphas`: value by key, of those that are alphas."""
    found: dict[str, dict[str, str]] = {}
    names: dict[str, tuple[str, str, str]] = {}
    stray: list[str] = []
    for key in sorted(shapes):
        stem, spelling, prefix, flat, role = _parse(key)
        if not role:
            stray.append(key)
            continue
        names[stem] = (spelling, prefix, flat)
        found.setdefault(stem, {})[role] = key
    parts = []
    for stem, keys in found.items():
        row = variant_of(set(keys) - {"alpha"})
        if row is None or row.missing(keys):
            stray += keys.values()
            continue
        parts.append(
            Part(
                stem, *names[stem], {role: shapes[key] for role, key in keys.items() if role != "alpha"},
                tuple(keys.values()), alphas.get(keys.get("alpha", "")),
            )
        )  # fmt: skip
    return FileFacts(tuple(parts), tuple(stray), metadata, kind, header_bytes)


def _parse(key: str) -> tuple[str, str, str, str, str]:
    """Key → stem, spelling, prefix, flat path, role; the role is empty for a key of no LoRA module."""
    stem, _, rest = key.partition(".")
    match = _KOHYA.match(stem)
    if match:
        return stem, "kohya", match[1], match[2], kohya_role(rest)
    peft = [(f".{ending}{more}", "peft", role) for ending, role in file_roles("diffusers").items()
            for more in ("", ".weight")]  # fmt: skip
    for ending, spelling, role in (*_ENDINGS, *peft):
        if key.endswith(ending):
            path = key.removesuffix(ending)
            match = _DOTTED.match(path)
            if not match:
                return path, "other", "", path.replace(".", "_"), role
            flat = match[2].replace(".processor.", ".").replace(".", "_")
            if spelling == "old" and flat.endswith("to_out"):
                flat += "_0"
            return path, spelling, match[1], flat, role
    return key, "other", "", key, ""
