"""Names in memory ↔ keys in files: pure renamings, all of them here (docs/file-format.md).

In memory an adapter's module is named ``<component>.<module path>``. Two layouts are written: kohya's keys, which every
client reads, and diffusers' own. Those and two older spellings are read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sd_lora.errors import AdapterError
from sd_lora.lora.variants import file_roles
from sd_lora.models.families.unet_names import diffusers_path, sgm_path

LAYOUTS = ("kohya", "diffusers")
COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
_PREFIXES = {
    "sd": {"unet": "lora_unet_", "text_encoder": "lora_te_"},
    "sdxl": {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"},
}
_COMPONENTS = {prefix: component for family in _PREFIXES.values() for component, prefix in family.items()}

# Path segments that contain an underscore themselves, so that a flattened path can be split again.
_SEGMENTS = re.compile(
    r"down_blocks|up_blocks|mid_block|input_blocks|output_blocks|middle_block|time_embed(?:ding)?|label_emb"
    r"|in_layers|out_layers|emb_layers|skip_connection|transformer_blocks|to_(?:q|k|v|out)|proj_(?:in|out)"
    r"|time_emb_proj|conv_shortcut|conv_(?:in|out)|add_embedding|linear_[12]|text_model|self_attn"
    r"|(?:q|k|v|out)_proj|text_projection|[^_]+"
)
_SGM = ("input_blocks.", "middle_block.", "output_blocks.", "time_embed.", "label_emb.", "out.")
_ROOTS = (
    "down_blocks.", "up_blocks.", "mid_block.", "conv_in.", "conv_out.", "time_embedding.", "add_embedding.",
    "text_model.", "encoder.layers.", "text_projection.",
)  # fmt: skip
_COMPONENT = re.compile(r"(unet|text_encoder|text_encoder_2)\.(?:base_model\.model\.)?(.+)")
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
    if component.startswith("text_encoder") and not path.startswith(("text_model.", "text_projection")):
        path = f"text_model.{path}"  # newer transformers dropped this level; files keep it
    return f"{component}.{path}"


def kohya_stem(name: str, family: str = "sd") -> str:
    """``unet.mid_block.attentions.0.….to_out.0`` → ``lora_unet_mid_block_attentions_0_…_to_out_0``; for family "sdxl"
    with the original block names, ``lora_unet_middle_block_1_…``, the only ones every client loads wholly there."""
    component, _, path = name.partition(".")
    prefixes = _PREFIXES[family]
    if component not in prefixes:
        raise AdapterError(f'component "{component}" has no place in an adapter file; {", ".join(prefixes)} have')
    if family == "sdxl" and component == "unet":
        try:
            path = sgm_path(path, family)
        except (ValueError, KeyError):
            raise AdapterError(f"module {name} does not exist in Stable Diffusion XL, so no key can name it") from None
    return prefixes[component] + path.replace(".", "_")


def name_of_stem(stem: str) -> str:
    """The inverse of `kohya_stem`, for block names of both kinds; AdapterError for a stem of another program."""
    return _module_of_stem(stem)[0]


def split_key(key: str) -> Key:
    """What `key` means; AdapterError if it is in no layout that is read."""
    stem, _, ending = key.partition(".")
    if stem.startswith(tuple(_COMPONENTS)) and (role := kohya_role(ending)):
        name, sgm = _module_of_stem(stem)
        return Key(name, role, "kohya-sgm" if sgm else "kohya")
    found = _COMPONENT.fullmatch(key.removeprefix("base_model.model."))
    if found:
        component, rest = found.groups()
        if peft := _peft_role(rest):
            return Key(name_of_module(component, peft[0]), peft[1], "diffusers")
        if old := _OLD.fullmatch(rest):
            path = old[1] + (f".to_{old[2]}" + (".0" if old[2] == "out" else "") if old[2] else "")
            return Key(name_of_module(component, path), old[3], "diffusers-old")
    raise AdapterError(f'key "{key}" is in no layout that sd_lora reads; convert the file to kohya keys')


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
    for prefix, component in _COMPONENTS.items():
        if stem.startswith(prefix):
            flat = stem.removeprefix(prefix)
            path = ".".join(_SEGMENTS.findall(flat))
            if path.replace(".", "_") != flat or not f"{path}.".startswith(_ROOTS + _SGM):
                break
            if component != "unet" or not f"{path}.".startswith(_SGM):
                return name_of_module(component, path), False
            try:
                return f"unet.{diffusers_path(path)}", True
            except ValueError:
                break
    raise AdapterError(f'key "{stem}" is in no layout that sd_lora reads; convert the file to kohya keys')
