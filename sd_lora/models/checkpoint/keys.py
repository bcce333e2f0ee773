"""Diffusers' parameter names ↔ the keys of an original checkpoint (ldm for SD1 and SD2, sgm for SDXL).

`places` is the only table: `Place.of` reads by it and `gathered` writes by it. Values stay the same both ways.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from sd_lora.errors import BaseModelError, some
from sd_lora.models.families import family_of_checkpoint
from sd_lora.models.families.unet_names import sgm_path

if TYPE_CHECKING:
    from torch import Tensor

#: kind of checkpoint → component → what its keys begin with
PREFIXES: dict[str, dict[str, str]] = {
    "sd15": {
        "unet": "model.diffusion_model.", "vae": "first_stage_model.", "text_encoder": "cond_stage_model.transformer.",
    },
    "sd2": {"unet": "model.diffusion_model.", "vae": "first_stage_model.", "text_encoder": "cond_stage_model.model."},
    "sdxl": {
        "unet": "model.diffusion_model.", "vae": "first_stage_model.",
        "text_encoder": "conditioner.embedders.0.transformer.", "text_encoder_2": "conditioner.embedders.1.model.",
    },
}  # fmt: skip
_QKV = ("q_proj", "k_proj", "v_proj")


@dataclass(frozen=True)
class Place:
    """Where a parameter is in a checkpoint: its key, and how the stored tensor differs from the parameter."""

    key: str
    #: 0, 1 or 2: the stored rows are those of queries, keys and values, one above the other
    third: int | None = None
    transposed: bool = False
    #: the stored tensor is a convolution of one pixel, (out, in, 1, 1), and the parameter is linear
    pixel: bool = False

    def shape_of(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """The shape the parameter has if the tensor under the key has shape `stored`."""
        if self.third is not None:
            return (stored[0] // 3, *stored[1:]) if stored and stored[0] % 3 == 0 else ()
        return tuple(reversed(stored)) if self.transposed else stored

    def of(self, stored: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The parameter of `shape` from the tensor under the key; a view of it where possible."""
        if self.third is not None:
            return stored.chunk(3)[self.third]
        return stored.T if self.transposed else stored.reshape(shape)


def fits(place: Place, stored: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether a stored tensor gives a parameter of `shape`; 1 × 1 convolutions and linear layers count as equal."""
    return _bare(place.shape_of(stored)) == _bare(shape)


def _bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:2] if len(shape) > 2 and set(shape[2:]) == {1} else shape


def places(kind: str, component: str, names: Iterable[str], *, flat_text: bool = False) -> dict[str, Place]:
    """Where each parameter of `component` is in a checkpoint of `kind`, a key of `PREFIXES`.

    The names of text encoders may have the level ``text_model.`` or not; with `flat_text` the keys of a CLIP encoder do
    not have it, as in some files of SD1. Raises BaseModelError for names that a checkpoint cannot hold.
    """
    names, prefix = list(names), PREFIXES[kind][component]
    place: Callable[[str], Place | None]
    if component == "unet":
        resnets = {name.split(".")[3] for name in names if name.startswith("down_blocks.0.resnets.")}
        place = partial(_unet_place, family_of_checkpoint(kind).name, len(resnets) + 1)
    elif component == "vae":
        place = _vae_table(names)
    elif prefix.endswith(".model."):
        place = _openclip_place
    else:
        place = partial(_clip_place, "" if flat_text else "text_model.")

    by_name = {name: spot for name in names if (spot := place(name))}
    if strange := [name for name in names if name not in by_name]:
        raise BaseModelError(
            f"{component} has weights that a checkpoint cannot hold ({some(strange, 1)}); fuse or eject adapters"
        )
    return {name: replace(spot, key=prefix + spot.key) for name, spot in by_name.items()}


def gathered(parameters: Mapping[str, Tensor], where: Mapping[str, Place]) -> dict[str, Tensor]:
    """The tensors of a checkpoint that hold `parameters`, by key."""
    import torch

    stored: dict[str, Tensor] = {}
    thirds: dict[str, dict[int, Tensor]] = defaultdict(dict)
    for name, tensor in parameters.items():
        place = where[name]
        if place.third is not None:
            thirds[place.key][place.third] = tensor
        elif place.transposed:
            stored[place.key] = tensor.T
        else:
            stored[place.key] = tensor[..., None, None] if place.pixel else tensor
    return stored | {key: torch.cat([parts[third] for third in range(3)]) for key, parts in thirds.items()}


_ATTENTION = re.compile(
    r"norm|proj_in|proj_out|transformer_blocks\.\d+\.(?:norm[123]|attn[12]\.to_(?:q|k|v|out\.0)|ff\.net\.(?:0\.proj|2))"
)


def _unet_place(family: str, per_block: int, name: str) -> Place | None:
    module, _, role = name.rpartition(".")
    inside = re.search(r"\.attentions\.\d+\.(.+)", module)
    if role not in ("weight", "bias") or (inside and not _ATTENTION.fullmatch(inside[1])):
        return None  # such as an adapter's layer
    try:
        return Place(f"{sgm_path(module, family, per_block)}.{role}")
    except (ValueError, KeyError):
        return None


_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def _vae_table(names: list[str]) -> Callable[[str], Place | None]:
    """The original VAE counts the decoder's blocks from the picture inwards, and its attention has convolutions."""
    ups = len({n.split(".")[2] for n in names if n.startswith("decoder.up_blocks.")})

    def place(name: str) -> Place | None:
        half, _, rest = name.partition(".")
        if half in ("quant_conv", "post_quant_conv"):
            return Place(name)
        module, _, role = rest.rpartition(".")
        if module in ("conv_in", "conv_out", "conv_norm_out"):
            return Place(f"{half}.{module.removeprefix('conv_') if 'norm' in module else module}.{role}")
        if attention := re.fullmatch(r"mid_block\.attentions\.0\.(.+)", module):
            key = _VAE_ATTENTION.get(attention[1])
            pixel = role == "weight" and attention[1] != "group_norm"
            return Place(f"{half}.mid.attn_1.{key}.{role}", pixel=pixel) if key else None
        if resnet := re.fullmatch(r"mid_block\.resnets\.(\d+)\.(.+)", module):
            return Place(f"{half}.mid.block_{int(resnet[1]) + 1}.{_shortcut(resnet[2])}.{role}")
        if block := re.fullmatch(
            r"(down|up)_blocks\.(\d+)\.(resnets\.(\d+)\.(.+)|(?:down|up)samplers\.0\.conv)", module
        ):
            side, number = block[1], int(block[2])
            number = ups - 1 - number if side == "up" else number
            inner = f"block.{block[4]}.{_shortcut(block[5])}" if block[4] else f"{side}sample.conv"
            return Place(f"{half}.{side}.{number}.{inner}.{role}")
        return None

    return place


def _clip_place(level: str, name: str) -> Place | None:
    name = name.removeprefix("text_model.")
    return Place(level + name) if name in _OPENCLIP_ENDS or _CLIP_LAYER.fullmatch(name) else None


def _shortcut(module: str) -> str:
    return "nin_shortcut" if module == "conv_shortcut" else module


_OPENCLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight", "final_layer_norm.bias": "ln_final.bias",
}  # fmt: skip
_OPENCLIP_LAYER = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip
_CLIP_LAYER = re.compile(
    r"encoder\.layers\.\d+\.(?:layer_norm[12]|mlp\.fc[12]|self_attn\.(?:q|k|v|out)_proj)\.(?:weight|bias)"
)


def _openclip_place(name: str) -> Place | None:
    if name == "text_projection.weight":
        return Place("text_projection", transposed=True)  # the original multiplies from the right
    name = name.removeprefix("text_model.")
    if name in _OPENCLIP_ENDS:
        return Place(_OPENCLIP_ENDS[name])
    match = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
    if match is None:
        return None
    block, module, role = f"transformer.resblocks.{match[1]}", match[2], match[3]
    attention, _, projection = module.rpartition(".")
    if attention == "self_attn" and projection in _QKV:
        return Place(f"{block}.attn.in_proj_{role}", third=_QKV.index(projection))
    return Place(f"{block}.{_OPENCLIP_LAYER[module]}.{role}") if module in _OPENCLIP_LAYER else None
