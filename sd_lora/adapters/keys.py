"""Names in memory ↔ keys in files: pure renaming, and the only place for it (docs/file-format.md).

In memory an adapter's module is named ``<component>.<module path>``. Two layouts are written: kohya's keys, which every
client reads, and those of diffusers. These and two older ones are read.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sd_lora.errors import AdapterError, some
from sd_lora.lora.variants import file_roles
from sd_lora.models.families import FAMILIES, components
from sd_lora.models.families.unet_names import lasting_path

LAYOUTS = ("kohya", "diffusers")
#: metadata: the names of all modules in the file, so that a file that lost some is recognised
MODULES_KEY = "sdlora.modules"
#: metadata: diffusers' record of rank and alpha, where other layouts have alphas in the file
DIFFUSERS_KEY = "lora_adapter_metadata"
#: keys of diffusers before PEFT: module, projection of an attention, role
_OLD = re.compile(r"(.+?)(?:\.processor)?(?:\.lora_linear_layer|\.lora|(\.to_(?:q|k|v|out))_lora)\.(down|up)\.weight")
#: the level that PEFT's own models have above the modules
_WRAPPER = "base_model.model."
_FOREIGN = (
    (r".*\.(?:hada_w|hada_t)", "LoHa"), (r".*\.lokr_", "LoKr"), (r".*\.(?:oft_|boft_)", "OFT"),
    (r".*\.lora_mid\.", "LoCon with a Tucker core"), (r".*\.(?:a1|a2|b1|b2)\.weight", "GLoRA"),
    (r".*\.on_input$", "IA3"), (r".*\.diff(?:_b)?$", "full weight differences"),
    (r"bundle_emb|emb_params|string_to_param", "embeddings"),
    (r"(?:lora_transformer_|transformer\.|diffusion_model\.|lora_unet_(?:double|single|joint)_blocks)",
     "an adapter for a model without a UNet, such as Flux or SD3"),
    (r"(?:lora_prior_|unet\.down_blocks.*motion_modules|lora_unet_(?:img|txt)_)", "an adapter for another model type"),
    (r"(?:model\.diffusion_model|first_stage_model|cond_stage_model|conditioner)\.", "a base model, not an adapter"),
)  # fmt: skip


@dataclass(frozen=True)
class Key:
    """What a key of a file means: the module's `name` in memory, the `role` of its tensor ("alpha", or a variant's)
    and the `layout` of the key ("kohya", "kohya-sgm", "diffusers" or "diffusers-old")."""

    name: str
    role: str
    layout: str


@dataclass(frozen=True)
class Spelling:
    """How the keys of a module are spelled, whether it exists or not: the `stem` that they share, the `layout`, the
    `prefix` that stands for the `component`, and the rest of the module's `path`, in kohya's keys with underscores.

    `layout`: "kohya", "diffusers", "diffusers-named" (with the name of an adapter, as PEFT saves it), "diffusers-old"
    (before PEFT), or "other" where no component is named.
    """

    stem: str
    layout: str
    prefix: str
    component: str
    path: str


def name_of_module(component: str, path: str) -> str:
    """The name of module `path` of `component`, the same for every version of the libraries."""
    return f"{component}.{lasting_path(path)}"


def kohya_stem(name: str, family: str = "sd") -> str:
    """``unet.mid_block.attentions.0.….to_out.0`` → ``lora_unet_mid_block_attentions_0_…_to_out_0``; for family "sdxl"
    with the original block names, ``lora_unet_middle_block_1_…``, which alone every client loads completely there."""
    component, known = name.partition(".")[0], [each.name for each in FAMILIES[family].components]
    if component not in known:
        raise AdapterError(f'an adapter file cannot hold modules of "{component}", only of {", ".join(known)}')
    try:
        return FAMILIES[family].kohya_stem(name)
    except (ValueError, KeyError):
        title = FAMILIES[family].title
        raise AdapterError(f"module {name} does not exist in {title}, so no key can name it") from None


def split_key(key: str) -> Key:
    """What `key` means; AdapterError if it is in no layout that is read."""
    spelling, role = spelling_of(key.removeprefix(_WRAPPER))
    if spelling is not None and spelling.layout == "kohya":
        for family in FAMILIES.values():
            with contextlib.suppress(ValueError):
                name, is_original = family.module_of_stem(spelling.stem)
                return Key(name, role, "kohya-sgm" if is_original else "kohya")
    elif spelling is not None and spelling.component and role != "alpha":
        name = name_of_module(spelling.component, spelling.path.removeprefix(_WRAPPER))
        return Key(name, role, spelling.layout.removesuffix("-named"))
    raise AdapterError(f'key "{key}" is in no layout that sd_lora reads; convert the file to kohya keys')


def understood(keys: Iterable[str]) -> tuple[dict[str, Key], list[str]]:
    """What the keys of a file mean, and the keys that are in no layout that is read."""
    meanings: dict[str, Key] = {}
    unknown = []
    for key in keys:
        try:
            meanings[key] = split_key(key)
        except AdapterError:
            unknown.append(key)
    return meanings, unknown


def layout_of(keys: Iterable[Key]) -> str:
    """The layout of a file's keys; several joined by " + "."""
    layouts = {key.layout for key in keys}
    if layouts == {"kohya", "kohya-sgm"}:  # text encoders are spelled the same in both
        return "kohya-sgm"
    return " + ".join(sorted(layouts))


def not_read(label: str, unknown: Sequence[str], count: int) -> str:
    """The sentence about a file of which the keys `unknown`, of `count`, are not read; "" if there are none."""
    if not unknown:
        return ""
    what = next((f"it holds {kind}" for kind in map(foreign, unknown) if kind), "convert it to kohya keys")
    keys = some([key[:100] for key in unknown], 2)
    return f"{label} has {len(unknown)} of {count} keys in no layout that sd_lora reads ({keys}); {what}"


def foreign(key: str) -> str:
    """What a file with this key is instead of a LoRA for Stable Diffusion, or an empty string."""
    return next((what for pattern, what in _FOREIGN if re.match(pattern, key)), "")


def spelling_of(key: str) -> tuple[Spelling | None, str]:
    """How `key` is spelled, and the role of its tensor; None and "" for a key that no LoRA module has."""
    stem, _, ending = key.partition(".")
    for each in (component for family in FAMILIES.values() for component in family.components):
        if stem.startswith(each.prefix) and stem != each.prefix:
            role = "alpha" if ending == "alpha" else file_roles("kohya").get(ending)
            spelling = Spelling(stem, "kohya", each.prefix, each.name, stem.removeprefix(each.prefix))
            return (spelling, role) if role else (None, "")
    stem, layout, role = _dotted(key)
    component, _, path = stem.partition(".")
    if role and path and component in components():
        return Spelling(stem, layout, f"{component}.", component, path), role
    return (Spelling(stem, "other", "", "", stem), role) if role and layout != "diffusers-named" else (None, "")


def _dotted(key: str) -> tuple[str, str, str]:
    """Stem, layout and role of a key in diffusers' spellings; the role is "" if it is in none."""
    if old := _OLD.fullmatch(key):
        projection = old[2] or ""
        return old[1] + projection + ".0" * (projection == ".to_out"), "diffusers-old", old[3]
    for ending, role in {**file_roles("diffusers"), "alpha": "alpha"}.items():
        start, dot, last = ending.partition(".")
        stem, separator, rest = key.rpartition(f".{start}")
        if separator and stem and re.fullmatch(rf"(\.\w+)?\.{last}" if dot else r"(\.\w+)*", rest):
            is_plain = rest in ((f".{last}",) if dot else ("", ".weight"))
            return stem, "diffusers" if is_plain else "diffusers-named", role
    return key, "", ""
