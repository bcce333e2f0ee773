"""Names in memory ↔ keys in files: pure renamings, all of them here (docs/file-format.md).

In memory an adapter's module is named ``<component>.<module path>``. Two layouts are written: kohya's keys, which every
client reads, and diffusers' own. Those and two older spellings are read.
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
_OLD = re.compile(r"(.+?)(?:\.processor)?(?:\.lora_linear_layer|\.lora|\.to_(q|k|v|out)_lora)\.(down|up)\.weight")
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
    and the `layout` it is spelled in ("kohya", "kohya-sgm", "diffusers" or "diffusers-old")."""

    name: str
    role: str
    layout: str


def name_of_module(component: str, path: str) -> str:
    """The name of module `path` of `component`, the same for every version of the libraries."""
    return f"{component}.{lasting_path(path)}"


def kohya_stem(name: str, family: str = "sd") -> str:
    """``unet.mid_block.attentions.0.….to_out.0`` → ``lora_unet_mid_block_attentions_0_…_to_out_0``; for family "sdxl"
    with the original block names, ``lora_unet_middle_block_1_…``, the only ones every client loads wholly there."""
    component, places = name.partition(".")[0], [each.name for each in FAMILIES[family].components]
    if component not in places:
        raise AdapterError(f'component "{component}" has no place in an adapter file; {", ".join(places)} have')
    try:
        return FAMILIES[family].kohya_stem(name)
    except (ValueError, KeyError):
        title = FAMILIES[family].title
        raise AdapterError(f"module {name} does not exist in {title}, so no key can name it") from None


def name_of_stem(stem: str) -> str:
    """The inverse of `kohya_stem`, for block names of both kinds; AdapterError for a stem of another program."""
    return _module_of_stem(stem)[0]


def split_key(key: str) -> Key:
    """What `key` means; AdapterError if it is in no layout that is read."""
    stem, _, ending = key.partition(".")
    prefixes = tuple(each.prefix for family in FAMILIES.values() for each in family.components)
    if stem.startswith(prefixes) and (role := kohya_role(ending)):
        name, sgm = _module_of_stem(stem)
        return Key(name, role, "kohya-sgm" if sgm else "kohya")
    component, _, rest = key.removeprefix("base_model.model.").partition(".")
    rest = rest.removeprefix("base_model.model.")
    if component in components():
        if peft := _peft_role(rest):
            return Key(name_of_module(component, peft[0]), peft[1], "diffusers")
        if old := _OLD.fullmatch(rest):
            path = old[1] + (f".to_{old[2]}" + (".0" if old[2] == "out" else "") if old[2] else "")
            return Key(name_of_module(component, path), old[3], "diffusers-old")
    raise AdapterError(f'key "{key}" is in no layout that sd_lora reads; convert the file to kohya keys')


def understood(keys: Iterable[str]) -> tuple[dict[str, Key], list[str]]:
    """What the keys of a file mean, and those that mean nothing here."""
    meanings: dict[str, Key] = {}
    unknown = []
    for key in keys:
        try:
            meanings[key] = split_key(key)
        except AdapterError:
            unknown.append(key)
    return meanings, unknown


def not_read(label: str, unknown: Sequence[str], count: int) -> str:
    """The sentence about a file in which the keys `unknown`, of `count`, mean nothing; "" if there are none."""
    if not unknown:
        return ""
    what = next((f"it holds {kind}" for kind in map(foreign, unknown) if kind), "convert it to kohya keys")
    keys = some([key[:100] for key in unknown], 2)
    return f"{label} has {len(unknown)} of {count} keys in no layout that sd_lora reads ({keys}); {what}"


def foreign(key: str) -> str:
    """What a file with this key is instead of a LoRA for Stable Diffusion, or an empty string."""
    return next((what for pattern, what in _FOREIGN if re.match(pattern, key)), "")


def kohya_role(ending: str) -> str:
    """The role of a kohya key that ends so after the module's stem, or ""."""
    return "alpha" if ending == "alpha" else file_roles("kohya").get(ending, "")


def _peft_role(path: str) -> tuple[str, str] | None:
    """The module and the role of a key in PEFT's spelling, which may name its adapter: ``….lora_A.default.weight``."""
    for ending, role in file_roles("diffusers").items():
        start, dot, last = ending.partition(".")
        module, separator, rest = path.rpartition(f".{start}")
        if separator and module and re.fullmatch(rf"(\.\w+)?\.{last}" if dot else r"(\.\w+)*", rest):
            return module, role
    return None


def _module_of_stem(stem: str) -> tuple[str, bool]:
    """The module a stem names, and whether it is spelled in the original block names."""
    for family in FAMILIES.values():
        with contextlib.suppress(ValueError):
            return family.module_of_stem(stem)
    raise AdapterError(f'key "{stem}" is in no layout that sd_lora reads; convert the file to kohya keys')
