"""Names in memory ↔ keys in files: pure renamings, all of them here (docs/file-format.md).

In memory an adapter's module is named ``<component>.<module path>``. The default file uses kohya's keys, which every
client reads: ``lora_unet_<path with _>.lora_down.weight``, ``.lora_up.weight`` and ``.alpha``.
"""

from __future__ import annotations

import re

from sd_lora.errors import AdapterError

_PREFIXES = {"unet": "lora_unet_", "text_encoder": "lora_te_"}
_ROLES = {"lora_down.weight": "down", "lora_up.weight": "up", "alpha": "alpha"}

# Path segments that contain an underscore themselves, so that a flattened path can be split again.
_SEGMENTS = re.compile(
    r"down_blocks|up_blocks|mid_block|transformer_blocks|to_(?:q|k|v|out)|proj_(?:in|out)|time_emb_proj|conv_shortcut"
    r"|conv_(?:in|out)|time_embedding|add_embedding|linear_[12]|text_model|self_attn|(?:q|k|v|out)_proj"
    r"|[^_]+"
)


def name_of_module(component: str, path: str) -> str:
    """The name of module `path` of `component`, the same for every version of the libraries."""
    if component == "text_encoder" and not path.startswith("text_model."):
        path = f"text_model.{path}"  # newer transformers dropped this level; files keep it
    return f"{component}.{path}"


def kohya_stem(name: str) -> str:
    """``unet.mid_block.attentions.0.….to_out.0`` → ``lora_unet_mid_block_attentions_0_…_to_out_0``."""
    component, _, path = name.partition(".")
    if component not in _PREFIXES:
        raise AdapterError(f'component "{component}" has no place in an adapter file; {", ".join(_PREFIXES)} have')
    return _PREFIXES[component] + path.replace(".", "_")


def name_of_stem(stem: str) -> str:
    """The inverse of `kohya_stem`; AdapterError for a stem of another program or model type."""
    for component, prefix in _PREFIXES.items():
        if stem.startswith(prefix):
            flat = stem.removeprefix(prefix)
            path = ".".join(_SEGMENTS.findall(flat))
            if path.replace(".", "_") == flat:
                return f"{component}.{path}"
    raise AdapterError(f'key "{stem}" is in no layout that sd_lora reads; convert the file to kohya keys')


def split_key(key: str) -> tuple[str, str]:
    """``stem.role`` → (name in memory, "down" | "up" | "alpha")."""
    stem, _, role = key.partition(".")
    if role not in _ROLES:
        raise AdapterError(f'key "{key}" is in no layout that sd_lora reads; convert the file to kohya keys')
    return name_of_stem(stem), _ROLES[role]
