"""The names of modules of the UNet and of CLIP's text encoders in files and in memory.

The UNet's blocks have names in diffusers and in the original code of Stable Diffusion (sgm), mapped here both ways.

All published Stable Diffusion UNets have two resnets per down block and three per up block, so a block takes three
places in the original's flat lists. Paths here are dotted.
"""

from __future__ import annotations

import re

#: block and layer of a module of the UNet
BLOCK = re.compile(r"(?:(down|up)_blocks\.(\d+)|(mid)_block)\.(?:(?:attentions|resnets)\.(\d+)\.)?")
#: a segment of a path; those that contain an underscore themselves come first
SEGMENT = re.compile(
    r"down_blocks|up_blocks|mid_block|input_blocks|output_blocks|middle_block|time_embed(?:ding)?|label_emb"
    r"|in_layers|out_layers|emb_layers|skip_connection|transformer_blocks|to_(?:q|k|v|out)|proj_(?:in|out)"
    r"|time_emb_proj|conv_shortcut|conv_norm_out|conv_(?:in|out)|add_embedding|linear_[12]|text_model|self_attn"
    r"|(?:q|k|v|out)_proj|text_projection|(?:final_)?layer_norm[12]?|(?:token|position)_embedding|[^_]+"
)
#: a level of CLIP's modules that newer versions of transformers dropped; files keep it
TEXT_LEVEL = "text_model."
_ORIGINAL = ("input_blocks.", "middle_block.", "output_blocks.", "time_embed.", "label_emb.", "out.")
_ATTENTION = (
    r"norm|proj_in|proj_out|transformer_blocks\.\d+\.(?:norm[123]|attn[12]\.to_(?:q|k|v|out\.0)|ff\.net\.(?:0\.proj|2))"
)
#: all modules with weights that diffusers' UNets have, and CLIP's
_NATIVE = re.compile(
    r"conv_in|conv_out|conv_norm_out|(?:time|add)_embedding\.linear_[12]|(?:down_blocks\.\d+|up_blocks\.\d+|mid_block)\."
    r"(?:resnets\.\d+\.(?:norm[12]|conv[12]|time_emb_proj|conv_shortcut)|(?:down|up)samplers\.0\.conv"
    rf"|attentions\.\d+\.(?:{_ATTENTION}))"
)
_TEXT = re.compile(
    r"(?:text_model\.)?(?:encoder\.layers\.\d+\.(?:self_attn\.(?:q|k|v|out)_proj|mlp\.fc[12]|layer_norm[12])"
    r"|final_layer_norm|embeddings\.(?:token|position)_embedding)|text_projection"
)
_BARE_TEXT = ("encoder.layers.", "embeddings.", "final_layer_norm.")

_PER_BLOCK = 3
_ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "conv_norm_out": "out.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_MIDDLE = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}
_BACK = {sgm: path for path, sgm in _ENDS.items()}
_RESNET_BACK = {sgm: path for path, sgm in _RESNET.items()}
_MIDDLE_BACK = {sgm: path for path, sgm in _MIDDLE.items()}


def lasting_path(path: str) -> str:
    """Module `path` of a component, the same for every version of the libraries."""
    return TEXT_LEVEL + path if f"{path}.".startswith(_BARE_TEXT) else path


def is_original(path: str) -> bool:
    """Whether `path` begins as paths of the original UNet do."""
    return f"{path}.".startswith(_ORIGINAL)


def is_native(path: str, *, of_text: bool) -> bool:
    """Whether diffusers' UNets can have a module `path`, or text encoders, for `of_text`."""
    return (_TEXT if of_text else _NATIVE).fullmatch(path) is not None


def sgm_path(path: str, family: str, per_block: int = _PER_BLOCK) -> str:
    """``down_blocks.1.attentions.0.proj_in`` → ``input_blocks.4.1.proj_in``. `family` ("sd" or "sdxl") decides where an
    upsampler is: behind the attention, which SDXL's first up block has and SD's does not. `per_block`: places per block
    in a UNet of another depth than the published ones."""
    if path in _ENDS:
        return _ENDS[path]
    side, block, kind, index, rest = _split(path)
    if side == "mid_block":
        return f"middle_block.{_MIDDLE[f'{kind}.{index}']}.{_resnet(kind, rest)}"
    if kind == "downsamplers":
        return f"input_blocks.{per_block * (block + 1)}.0.op"
    if kind == "upsamplers":
        attends = family == "sdxl" or block > 0
        return f"output_blocks.{per_block * block + per_block - 1}.{2 if attends else 1}.conv"
    place = per_block * block + index
    place = f"input_blocks.{1 + place}" if side == "down_blocks" else f"output_blocks.{place}"
    return f"{place}.{1 if kind == 'attentions' else 0}.{_resnet(kind, rest)}"


def diffusers_path(path: str) -> str:
    """The inverse of `sgm_path`, for either family; ValueError if `path` is not an sgm path."""
    if path in _BACK:
        return _BACK[path]
    if middle := re.fullmatch(r"middle_block\.([012])\.(.+)", path):
        place = _MIDDLE_BACK[middle[1]]
        return f"mid_block.{place}.{_resnet_back(place.split('.')[0], middle[2])}"
    match = re.fullmatch(r"(input|output)_blocks\.(\d+)\.([012])\.(.+)", path)
    if not match:
        raise ValueError(path)
    down, number, place, rest = match[1] == "input", int(match[2]), int(match[3]), match[4]
    block, index = divmod(number - 1 if down else number, _PER_BLOCK)
    if down and rest == "op" and index == 2:
        return f"down_blocks.{block}.downsamplers.0.conv"
    if not down and rest == "conv" and index == 2 and place:
        return f"up_blocks.{block}.upsamplers.0.conv"
    if place == 2 or block < 0 or (down and index == 2):
        raise ValueError(path)
    kind = ("resnets", "attentions")[place]
    return f"{'down' if down else 'up'}_blocks.{block}.{kind}.{index}.{_resnet_back(kind, rest)}"


def _split(path: str) -> tuple[str, int, str, int, str]:
    """``down_blocks.1.attentions.0.proj_in`` → ("down_blocks", 1, "attentions", 0, "proj_in"); the mid block is 0."""
    match = re.fullmatch(
        r"(?:(down_blocks|up_blocks)\.(\d+)|(mid_block))\.(resnets|attentions|(?:down|up)samplers)\.(\d+)\.(.+)", path
    )
    if not match:
        raise ValueError(path)
    return match[1] or match[3], int(match[2] or 0), match[4], int(match[5]), match[6]


def _resnet(kind: str, rest: str) -> str:
    return _RESNET[rest] if kind == "resnets" else rest


def _resnet_back(kind: str, rest: str) -> str:
    if kind == "attentions":
        if not re.match(r"(?:norm|proj_in|proj_out|transformer_blocks\.\d+)(?:\.|$)", rest):
            raise ValueError(rest)
        return rest
    if rest not in _RESNET_BACK:
        raise ValueError(rest)
    return _RESNET_BACK[rest]
