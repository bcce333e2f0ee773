"""What each of six programs would load of an adapter file, judged by its keys, shapes, alphas and metadata.

The rules were read in the programs' sources and measured with their own loaders in November 2026. A rule says which
modules it is about, which programs it applies to, and whether these drop the modules, distort them or refuse the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sd_lora.adapters.parts import FileFacts, Part
from sd_lora.lora.variants import VARIANTS
from sd_lora.models.families import kinds

A1111 = "AUTOMATIC1111"
CLIENTS = ("diffusers", "ComfyUI", A1111, "Forge", "sd-scripts", "InvokeAI")
#: Forge refuses a file with more unknown keys than this
FORGE_STRAY_KEYS = 12
#: ComfyUI shows the metadata of files with a header below this
COMFY_HEADER = 2**20


@dataclass(frozen=True)
class Rule:
    """`applies` to a part of a file: then `clients` refuse the file, or drop or distort the part. `why`: a clause."""

    effect: str
    clients: tuple[str, ...]
    why: str
    applies: Callable[[FileFacts, Part], bool]


@dataclass(frozen=True)
class ClientAnswer:
    """What `client` would do: of `modules` it loads `loaded` correctly, with the `reasons` why not all. `unjudged`:
    what no rule is known for, as clauses; `notes` are not faults."""

    client: str
    loaded: int
    modules: int
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        return self.loaded == self.modules and not self.reasons


def _has_original_names(file: FileFacts) -> bool | None:
    """Whether kohya's keys of its family have the original block names, as those of SDXL; None if it is unknown."""
    return None if file.kind is None else file.family.writes_original


def _is_of_other_family(file: FileFacts, part: Part) -> bool:
    """Whether it is under a prefix that kohya's keys have in another family only."""
    return part.layout == "kohya" and part.prefix not in [each.prefix for each in file.family.components]


def _unmapped(client: str) -> Callable[[FileFacts, Part], bool]:
    def applies(file: FileFacts, part: Part) -> bool:
        patterns = file.family.unmapped.get(client, ()) if file.kind is not None else ()
        is_native = part.layout == "kohya" and not part.is_original
        return is_native and any(fnmatchcase(part.name, pattern) for pattern in patterns)

    return applies


def _is_of_other_form(file: FileFacts, part: Part) -> bool:
    """Whether `down` has two sides where the base's weight has four, or the reverse; of a base that is known."""
    if file.kind is None or part.name == "" or "down" not in part.shapes:
        return False
    shape = file.family.shape_with_kernel(part.name, (9, 9), file.kind.name)  # nine inputs stand for any kernel
    return len(part.shapes["down"]) != len(shape)


RULES: tuple[Rule, ...] = (
    Rule("refuses", ("diffusers", "InvokeAI"), "keys that belong to no complete LoRA module",
         lambda f, _: bool(f.stray)),
    # kohya's keys
    Rule("refuses", ("diffusers",), "original block names, which it maps for SDXL only",
         lambda f, p: _has_original_names(f) is False and p.is_original),
    Rule("drops", ("sd-scripts", "InvokeAI"), "original block names, which it maps for SDXL only",
         lambda f, p: _has_original_names(f) is False and p.is_original),
    Rule("drops", ("diffusers",), "two kinds of block names in one file",
         lambda f, p: _has_original_names(f) is not False and f.mixes_names and p.is_original),
    Rule("refuses", ("InvokeAI",), "two kinds of block names in one file", lambda f, _: f.mixes_names),
    *(Rule("drops", (client,), "modules that it does not know by diffusers' block names", _unmapped(client))
      for client in ("diffusers", A1111)),
    Rule("drops", ("sd-scripts",), "modules it never puts layers on (conv_in, conv_out, time and size embeddings)",
         lambda _, p: p.is_outside_blocks),
    Rule("drops", ("ComfyUI", A1111, "Forge", "sd-scripts", "InvokeAI"), "text-encoder keys without text_model_",
         lambda _, p: p.layout == "kohya" and p.is_bare),
    Rule("drops", ("sd-scripts", "InvokeAI"), "lora_te1_ keys, which are for SDXL",
         lambda f, p: _has_original_names(f) is False and _is_of_other_family(f, p)),
    Rule("refuses", ("InvokeAI",), "lora_te_ keys, which are for SD1 and SD2",
         lambda f, p: _has_original_names(f) is True and _is_of_other_family(f, p)),
    Rule("drops", (A1111,), "lora_te_ keys, which are for SD1 and SD2",
         lambda f, p: _has_original_names(f) is True and _is_of_other_family(f, p)),
    Rule("refuses", ("diffusers",), "text attention with only some of q, k, v, out",
         lambda f, p: p.layout == "kohya" and f.is_partial(p)),
    # AUTOMATIC1111 has these text encoders as OpenCLIP, with the attention's projections in one matrix
    Rule("drops", (A1111,), "text attention with only some of q, k, v, out",
         lambda f, p: p.layout == "kohya" and f.is_partial(p) and p.component in f.openclip),
    Rule("refuses", ("diffusers", "sd-scripts"), "proj_in or proj_out stored 2-D where SD1 has a 1 × 1 conv",
         lambda f, p: f.has_pixel_projections and p.group == "proj" and len(p.shapes.get("down", ())) == 2),
    Rule("refuses", ("diffusers",), "a matrix where the base has a convolution, or the reverse", _is_of_other_form),
    Rule("refuses", ("diffusers",), "embeddings beside the adapter", lambda f, _: f.has_embeddings),
    Rule("refuses", ("diffusers",), "lora_adapter_metadata in a file with alphas",
         lambda f, p: "lora_adapter_metadata" in f.metadata and p.alpha is not None),
    # diffusers keeps other alphas by patterns that match neither attention nor, since transformers 5.6, text
    Rule("distorts", ("diffusers",), "an alpha that is not the commonest of the file",
         lambda f, p: p.layout == "kohya" and p.alpha != f.commonest_alpha and (p.is_attention or p.is_text)),
    Rule("refuses", ("InvokeAI",), "no attn2.to_k or to_v, by whose width it recognises the base",
         lambda f, _: not f.version_by_width),
    Rule("refuses", ("InvokeAI",), "it takes the file for one of another base, by the width of its first modules",
         lambda f, _: f.kind is not None and f.version_by_width not in ("", f.kind.version)),
    # diffusers' keys
    Rule("drops", ("ComfyUI", "Forge"), "attention under diffusers' keys",
         lambda _, p: p.layout == "diffusers" and p.is_attention and not p.is_text),
    Rule("drops", ("ComfyUI", "Forge"), "text-encoder keys without text_model",
         lambda _, p: p.layout == "diffusers" and p.is_bare),
    Rule("drops", (A1111, "sd-scripts"), "diffusers' keys", lambda _, p: p.layout.startswith("diffusers")),
    Rule("refuses", ("InvokeAI",), "diffusers' keys", lambda _, p: p.layout.startswith("diffusers")),
    Rule("refuses", ("diffusers",), "alphas beside diffusers' keys",
         lambda _, p: p.layout == "diffusers" and p.alpha is not None),
)  # fmt: skip


#: of families that say themselves which program reads which of their layouts
_BY_LAYOUT = (
    Rule("drops", CLIENTS, "modules that the base model does not have", lambda _, p: p.name == ""),
    *(Rule("drops", (client,), "keys of this layout, which it does not read for this base model",
           lambda f, p, client=client: client not in f.family.read_by.get(p.layout, ()))
      for client in CLIENTS),
)  # fmt: skip
_ANYWHERE = (
    "keys that belong to no complete LoRA module",
    "embeddings beside the adapter",
    "alphas beside diffusers' keys",
)


def _rules(file: FileFacts) -> tuple[Rule, ...]:
    """Those for the family that `file` is for, with those of the variants."""
    for_family = RULES
    if file.family.read_by:
        for_family = (*_BY_LAYOUT, *(rule for rule in RULES if rule.why in _ANYWHERE))

    def rule(variant: str, effect: str, clients: tuple[str, ...], why: str, when: Callable[[Part], bool]) -> Rule:
        return Rule(effect, clients, why, lambda _, part: part.variant == variant and when(part))

    return for_family + tuple(rule(row.name, *facts) for row in VARIANTS.values() for facts in row.clients)


def answers(file: FileFacts) -> tuple[ClientAnswer, ...]:
    """What every client of `CLIENTS` would make of `file`."""
    return tuple(_answer(file, client) for client in CLIENTS)


def _answer(file: FileFacts, client: str) -> ClientAnswer:
    judged = [part for part in file.parts if not part.unjudged]
    rest = Counter(part.unjudged for part in file.parts if part.unjudged)
    unjudged = tuple(f"not judged: {count} of {len(file.parts)} with {what}" for what, count in rest.items())
    hit: dict[str, str] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for rule in _rules(file):
        if client not in rule.clients:
            continue
        parts = [part for part in judged if rule.applies(file, part)]
        if parts and rule.effect == "refuses":
            return _refusal(file, client, rule.why, unjudged)
        for part in parts:
            if part.stem not in hit:
                hit[part.stem] = rule.effect
                counts[rule.effect, rule.why] += 1
    stray = len(file.stray) + sum(len(p.keys) for p in judged if hit.get(p.stem) == "drops")
    if client == "Forge" and stray > FORGE_STRAY_KEYS:
        why = f"{stray} keys that it does not know; it accepts at most {FORGE_STRAY_KEYS}"
        return _refusal(file, client, why, unjudged)
    total = len(file.parts)
    reasons = tuple(f"{effect} {count} of {total}: {why}" for (effect, why), count in counts.items())
    if not total:
        reasons = ("finds no LoRA module",)
    return ClientAnswer(client, len(judged) - len(hit), total, reasons, tuple(_notes(file, client)), unjudged)


def _refusal(file: FileFacts, client: str, why: str, unjudged: tuple[str, ...]) -> ClientAnswer:
    reasons, notes = (f"refuses the file: {why}",), tuple(_notes(file, client))
    return ClientAnswer(client, 0, len(file.parts), reasons, notes, unjudged)


def _notes(file: FileFacts, client: str) -> Iterator[str]:
    shown = _shown_as(client, file)
    expected = file.kind.version if file.kind is not None else ""
    if shown and expected and shown != expected and not file.family.read_by:
        yield f"shown as {shown}, not {expected}: its metadata does not say otherwise"
    if client == "ComfyUI" and file.header_bytes >= COMFY_HEADER:
        yield f"does not show the metadata: the header is {file.header_bytes / 2**20:.1f} MB"
    bare = [p for p in file.parts if p.is_bare]
    if client == "diffusers" and bare:
        yield f"{len(bare)} text-encoder modules need transformers 5.6 or newer"


def _shown_as(client: str, file: FileFacts) -> str:
    """The model type under which a client that goes by metadata lists the file; "" for the others."""
    metadata, rows = file.metadata, list(kinds().values())
    if client not in (A1111, "Forge"):
        return ""
    for row in rows:
        if row.listed_by and fnmatchcase(metadata.get(row.listed_by[0], ""), row.listed_by[1]):
            return row.version
    if client == A1111:
        return rows[0].version if metadata else "Unknown"
    versions = {row.marks["modelspec.architecture"]: row.version for row in rows if row.marks.get("ss_v2") == "False"}
    return versions.get(metadata.get("modelspec.architecture", ""), "Unknown")
