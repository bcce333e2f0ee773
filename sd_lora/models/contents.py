"""What a safetensors file holds, by its keys and shapes: one table for files given as an adapter or as a base model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sd_lora.storage.safetensors_header import TensorInfo

UNET = "model.diffusion_model."
LABELS = f"{UNET}label_emb.0.0.weight"
_FIRST = f"{UNET}input_blocks.0.0.weight"
_REFINER_CHANNELS = 384


@dataclass(frozen=True)
class Header:
    """The tensors of a safetensors file by key, and its metadata."""

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]

    def has(self, prefix: str) -> bool:
        return any(key.startswith(prefix) for key in self.tensors)

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of a tensor, or () if there is none."""
        return self.tensors[key].shape if key in self.tensors else ()


class Contents(NamedTuple):
    """A kind of file: `what` it is, how its header shows that, and what to do if it was given as a base model or as an
    adapter."""

    what: str
    fits: Callable[[Header], bool]
    as_base: str
    as_adapter: str


#: endings of the tensors of a LoRA, or of one of its relatives, in any program's spelling
_LORA = re.compile(
    r"[._]lora_(?:A|B|down|up|mid|magnitude_vector|embedding_[AB])\b|[._]lora\.(?:down|up)\b|_lora\.(?:down|up)\."
    r"|lora_linear_layer|\.(?:hada_|lokr_|oft_|boft_|dora_scale|on_input|diff(?:_b)?$|[ab][12]\.weight$)"
)


def is_lora_key(key: str) -> bool:
    """Whether `key` ends like one of a LoRA or of its relatives, whatever it is for."""
    return _LORA.search(key) is not None


def contents_of(header: Header) -> Contents | None:
    """What a file is that is neither an adapter nor a base model for Stable Diffusion; None if nothing shows it."""
    return next((row for row in CONTENTS if row.fits(header)), None)


def contents_of_keys(keys: Iterable[str]) -> Contents | None:
    """As `contents_of`, by the keys alone of a file that should be an adapter: base models are named as well."""
    header = Header(dict.fromkeys(keys, TensorInfo("", ())), {})
    return next((row for row in (*CONTENTS, *_CHECKPOINTS) if row.fits(header)), None)


def _any_of(*keys: str) -> Callable[[Header], bool]:
    """Whether the file has one of the keys, as it is or below the prefix of a UNet."""
    wanted = {prefix + key for key in keys for prefix in ("", UNET)}
    return lambda header: not wanted.isdisjoint(header.tensors)


def _matching(pattern: str, *, lora: bool = False) -> Callable[[Header], bool]:
    """Whether a key matches from its start; with `lora` a key of a LoRA, otherwise one of anything else."""
    wanted = re.compile(pattern)
    return lambda header: any(wanted.match(key) and is_lora_key(key) == lora for key in header.tensors)


def _lora_for(model: str, pattern: str) -> Contents:
    """The row of LoRAs for another model; `pattern` is of the path below what programs write before it."""
    above = r"(?:base_model\.model\.|module\.)*"
    start = above + r"(?:lora_unet_|lora_transformer_|lycoris_|transformer\.|diffusion_model\.)?"
    return Contents(f"a LoRA for {model}", _matching(f"{start}(?:{pattern})", lora=True), _NAME, _FAMILIES)


def _is_embedding(header: Header) -> bool:
    """A1111's keys, SDXL's two, or one tensor named after its word, as diffusers writes them."""
    names = {key.split(".")[0] for key in header.tensors}
    if names & {"emb_params", "string_to_param", "clip_l", "clip_g", "bundle_emb"}:
        return True
    small = all(len(info.shape) in (1, 2) for info in header.tensors.values())
    is_word = all("." not in key and (small or key.startswith("<")) for key in header.tensors)
    return 0 < len(header.tensors) < 3 and is_word


def _inputs(number: int) -> Callable[[Header], bool]:
    return lambda header: header.shape(_FIRST)[1:2] == (number,)


def _is_refiner(header: Header) -> bool:
    is_narrow = header.shape(_FIRST)[:1] == (_REFINER_CHANNELS,)
    return LABELS in header.tensors and (header.has("conditioner.embedders.0.model.") or is_narrow)


def _lacks_unet(pattern: str) -> Callable[[Header], bool]:
    part = _matching(pattern)
    return lambda header: not header.has(f"{UNET}input_blocks.") and part(header)


_NAME = "name a checkpoint of Stable Diffusion 1, 2 or XL"
_ORIGIN = "name the base model it was made from"
_FOLDER = "name its folder in diffusers' layout, or its id on the hub"
_FAMILIES = "name an adapter for a base model that is supported"
_NO_ADAPTER = "which is a base model, not an adapter; name an adapter, and this with --base"
_PART = "which is part of a base model, not an adapter; name an adapter"
_OTHER = "which is not an adapter of weights; name a LoRA"

#: the first that fits counts
CONTENTS: tuple[Contents, ...] = (
    # LoRAs for other models
    Contents("a motion LoRA of AnimateDiff", _matching(r".*motion_modules?[._]", lora=True), _NAME, _FAMILIES),
    _lora_for(
        "a language model", r"(?:language_model\.)?(?:model\.)*layers[._]\d+[._](?:self_attn|mlp)[._]"
        r"|(?:gpt_neox|h|encoder\.block|decoder\.block)[._].*|model\.decoder\.layers",
    ),
    _lora_for(
        "Flux or a relative, models without a UNet", r"(?:double|single)_blocks[._]\d|single_transformer_blocks[._]\d",
    ),
    _lora_for("Stable Diffusion 3 in the names of its original code", r"joint_(?:transformer_)?blocks[._]\d"),
    _lora_for("Wan or another video model, models without a UNet", r"blocks[._]\d+[._](?:self|cross)_attn"),
    _lora_for(
        "a model without a UNet, such as Qwen-Image or PixArt",
        r"transformer_blocks[._]\d|(?:img|txt)_|layers[._]\d|blocks[._]\d|noise_refiner|context_refiner",
    ),
    Contents(
        "a LoRA for a model without a UNet",
        _matching(r"lora_transformer_|transformer\.|lora_prior_|diffusion_model\."
                  r"(?!input_|middle_|output_|time_|label_|out\.|down_|mid_|up_|conv_)", lora=True), _NAME, _FAMILIES,
    ),
    Contents(
        "a LoRA adapter", lambda header: any(map(is_lora_key, header.tensors)),
        "name the base model it was made for (and it as lora.init)", "",
    ),
    # what is used beside a base model
    Contents("a textual-inversion embedding (embeddings are words, not changes of weights)", _is_embedding, _NAME,
             "name a LoRA, and use it beside this in a program that reads both"),
    Contents("an IP-Adapter", _matching(r"(?:image_proj|ip_adapter)\.|.*\.to_[kv]_ip\."), _NAME, _OTHER),
    Contents(
        "a ControlNet",
        _matching(r"(?:model\.diffusion_model\.)?(?:control_model\.|controlnet_|input_hint_block\.|zero_convs\."
                  r"|lllite_|lora_controlnet|control_add_embedding|controlnet_cond_embedding)"), _NAME, _OTHER,
    ),
    Contents(
        "a T2I-Adapter", _matching(r"(?:adapter\.)?body\.\d+\.(?:resnets|block[12]|in_conv|body)\."), _NAME, _OTHER,
    ),
    Contents("a motion module of AnimateDiff", _matching(r".*motion_modules?\."), _NAME, _OTHER),
    Contents(
        "an upscaler of pictures", _matching(r"(?:conv_first|RRDB_trunk|params_ema|model\.1\.sub)\b"), _NAME, _OTHER,
    ),
    # base models of other families
    Contents(
        "Stable Diffusion 3 in one file", _any_of("joint_blocks.0.context_block.adaLN_modulation.1.bias"), _FOLDER,
        _NO_ADAPTER,
    ),
    Contents(
        "Flux in one file",
        _any_of("double_blocks.0.img_attn.norm.key_norm.scale", "single_stream_modulation.lin.weight"), _FOLDER,
        _NO_ADAPTER,
    ),
    Contents(
        "Stable Cascade (Wuerstchen)", _any_of("clip_txt_mapper.weight", "down_blocks.1.0.channelwise.0.weight"), _NAME,
        _NO_ADAPTER,
    ),
    Contents("Playground v2.5", _any_of("edm_mean"), _NAME, _NO_ADAPTER),
    Contents(
        "a language model",
        _matching(r"(?:language_model\.)?(?:model\.)*layers\.\d+\.(?:self_attn|mlp)\.|lm_head\."), _NAME, _OTHER,
    ),
    # base models of these families that cannot be trained, and parts of some
    Contents("the SDXL refiner", _is_refiner, "name the SDXL base", _NO_ADAPTER),
    Contents(
        "an unCLIP model", lambda h: LABELS in h.tensors and (h.has("cond_stage_model.") or h.has("embedder.")), _NAME,
        _NO_ADAPTER,
    ),
    Contents("an inpainting model", _inputs(9), _ORIGIN, _NO_ADAPTER),
    Contents("an InstructPix2Pix model", _inputs(8), _ORIGIN, _NO_ADAPTER),
    Contents("a depth-to-image model", _inputs(5), _ORIGIN, _NO_ADAPTER),
    Contents("an upscaler", _inputs(7), _NAME, _NO_ADAPTER),
    Contents(
        "a small decoder for previews (TAESD)",
        _matching(r"(?:taesd_)?(?:(?:en|de)coder\.)?(?:layers\.)?\d+\.conv\.\d"),
        _NAME, _OTHER,
    ),
    Contents(
        "a VAE alone",
        _lacks_unet(r"first_stage_model\.|(?:encoder|decoder)\.(?:down|up|mid|conv_in|down_blocks|up_blocks)\b"),
        "name a checkpoint or folder of Stable Diffusion 1, 2 or XL (and this as model.vae)", _PART,
    ),
    Contents(
        "a UNet alone, in diffusers' layout", _lacks_unet(r"(?:unet\.)?(?:down_blocks|up_blocks|mid_block)\."),
        "name the folder with its model_index.json", _PART,
    ),
    Contents(
        "a UNet alone, without the prefix of checkpoints", _lacks_unet(r"(?:input|output)_blocks\.|middle_block\."),
        "name a full checkpoint or a diffusers folder", _PART,
    ),
    Contents("a vision encoder", _lacks_unet(r"vision_model\.|visual\."), _NAME, _OTHER),
    Contents(
        "a text encoder alone",
        _lacks_unet(r"cond_stage_model\.|conditioner\.|text_model\.|transformer\.|encoder\.block\.|shared\.weight"),
        _NAME, _PART,
    ),
)  # fmt: skip
#: what may be a base model, or be pruned, but is never an adapter
_CHECKPOINTS = (
    Contents(
        "a complete checkpoint",
        lambda h: h.has(UNET) and any(map(h.has, ("first_stage_model.", "cond_stage_model.", "conditioner."))), "",
        _NO_ADAPTER,
    ),
    Contents("the UNet weights of a checkpoint", lambda header: header.has(UNET), "", _PART),
)  # fmt: skip
