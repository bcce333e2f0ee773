"""What kind of model a ``.safetensors`` checkpoint holds, by its header alone; other kinds are refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sd_lora.errors import BaseModelError
from sd_lora.models.checkpoint.keys import PREFIXES
from sd_lora.models.families import FAMILIES, kinds
from sd_lora.storage import safetensors_header
from sd_lora.storage.safetensors_header import TensorInfo

_UNET = "model.diffusion_model."
_WIDTH = f"{_UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_LABELS = f"{_UNET}label_emb.0.0.weight"
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


@dataclass(frozen=True)
class CheckpointKind:
    """The layout of a checkpoint (a key of `PREFIXES`) and what it says about its noise schedule.

    `prediction_type` is None where the file does not say (SD2); `marked`: the file says it, it is not just the usual
    one.
    """

    kind: str
    prediction_type: str | None
    zero_snr: bool = False
    marked: bool = False


def read_header(path: Path) -> Header:
    """The header of a safetensors file; BaseModelError if it is another file, damaged, or far too large."""
    return Header(*safetensors_header.read_header(path, safetensors_header.BASE_MODEL))


def detect(path: str | Path) -> CheckpointKind:
    """The kind of the checkpoint at `path`, from its header alone.

    Raises BaseModelError that names what the file is, unless it is a complete base model of SD1, SD2 or SDXL.
    """
    path = Path(path)
    return kind_of(path, read_header(path))


def kind_of(path: Path, header: Header) -> CheckpointKind:
    """See `detect`."""
    for what, is_it, remedy in _OTHERS:
        if is_it(header):
            raise BaseModelError(f"base model {path} is {what}, which cannot be trained; {remedy}")
    kind = _layout(header)
    shown = {"vae": "VAE"} | {each.name: each.shown for family in FAMILIES.values() for each in family.components}
    missing = [shown[part] for part, prefix in PREFIXES[kind].items() if not header.has(prefix)]
    if missing:
        raise BaseModelError(
            f"base model {path} is a pruned checkpoint without {' and '.join(missing)}; name a full checkpoint or a "
            "diffusers folder"
        )
    if kind == "sdxl":
        v = "v_pred" in header.tensors
        return CheckpointKind(kind, "v_prediction" if v else "epsilon", "ztsnr" in header.tensors, marked=v)
    if kind == "sd15":
        return CheckpointKind(kind, "epsilon")
    prediction_type = _recorded_prediction_type(header.metadata)
    return CheckpointKind(kind, prediction_type, marked=prediction_type is not None)


def _layout(header: Header) -> str:
    if _LABELS in header.tensors:
        return "sdxl"
    by_width = {kind.width: kind.checkpoint for kind in kinds().values()}
    found = by_width.get((header.shape(_WIDTH) or (0,))[-1], "")
    return found or ("sd2" if header.has(PREFIXES["sd2"]["text_encoder"]) else "sd15")


def _recorded_prediction_type(metadata: Mapping[str, str]) -> str | None:
    """What an SD2 file predicts according to its metadata; None if it says nothing or contradicts itself."""
    architecture = f"{metadata.get('modelspec.architecture')}/lora"
    sd2 = [kind for kind in kinds().values() if kind.checkpoint == "sd2"]
    predicts_v = {kind.predicts_v for kind in sd2 if kind.marks["modelspec.architecture"] == architecture}
    if metadata.get("modelspec.prediction_type") in ("epsilon", "v"):
        predicts_v.add(metadata["modelspec.prediction_type"] == "v")
    return ("v_prediction" if predicts_v.pop() else "epsilon") if len(predicts_v) == 1 else None


def _any_of(*keys: str) -> Callable[[Header], bool]:
    """Whether the file has one of the keys, as it is or below the prefix of a UNet."""
    wanted = {prefix + key for key in keys for prefix in ("", _UNET)}
    return lambda header: not wanted.isdisjoint(header.tensors)


def _is_adapter(header: Header) -> bool:
    marks = (".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", ".lora.down.", ".lora.up.", ".hada_w1_a", ".lokr_w1")
    return any(mark in key for key in header.tensors for mark in marks)


def _is_embedding(header: Header) -> bool:
    names = {"emb_params", "string_to_param", "clip_l", "clip_g"}
    small = 0 < len(header.tensors) < 3 and all(len(info.shape) < 3 for info in header.tensors.values())
    return small or bool(names & {key.split(".")[0] for key in header.tensors})


def _inputs(*numbers: int) -> Callable[[Header], bool]:
    return lambda header: header.shape(f"{_UNET}input_blocks.0.0.weight")[1:2] in [(number,) for number in numbers]


def _is_refiner(header: Header) -> bool:
    channels = header.shape(f"{_UNET}input_blocks.0.0.weight")[:1]
    return _LABELS in header.tensors and (
        header.has("conditioner.embedders.0.model.") or channels == (_REFINER_CHANNELS,)
    )


def _lacks_unet(*prefixes: str) -> Callable[[Header], bool]:
    return lambda header: not header.has(f"{_UNET}input_blocks.") and any(map(header.has, prefixes))


_NAME = "name a checkpoint of Stable Diffusion 1, 2 or XL"
#: what else a file may be, how it is recognised, and what to do; the first match counts
_OTHERS: tuple[tuple[str, Callable[[Header], bool], str], ...] = (
    ("a LoRA adapter", _is_adapter, "name the base model it was made for (and it as lora.init)"),
    ("a textual-inversion embedding", _is_embedding, _NAME),
    ("Stable Diffusion 3", _any_of("joint_blocks.0.context_block.adaLN_modulation.1.bias"), _NAME),
    ("Flux", _any_of("double_blocks.0.img_attn.norm.key_norm.scale", "single_stream_modulation.lin.weight"), _NAME),
    ("Stable Cascade (Wuerstchen)", _any_of("clip_txt_mapper.weight", "down_blocks.1.0.channelwise.0.weight"), _NAME),
    ("Playground v2.5", _any_of("edm_mean"), _NAME),
    ("a ControlNet", _any_of("control_model.time_embed.0.weight", "controlnet_cond_embedding.conv_in.weight"), _NAME),
    ("the SDXL refiner", _is_refiner, "name the SDXL base"),
    ("an unCLIP model", lambda h: _LABELS in h.tensors and (h.has("cond_stage_model.") or h.has("embedder.")), _NAME),
    ("an inpainting model", _inputs(9), "name the base model it was made from"),
    ("an InstructPix2Pix model", _inputs(8), "name the base model it was made from"),
    ("a depth-to-image model", _inputs(5), "name the base model it was made from"),
    ("an upscaler", _inputs(7), _NAME),
    (
        "one component in diffusers' layout", _lacks_unet("down_blocks.", "encoder.down_blocks."),
        "name the folder with its model_index.json",
    ),
    ("a VAE alone", _lacks_unet("first_stage_model.", "encoder.", "decoder."), _NAME),
    ("a text encoder alone", _lacks_unet("cond_stage_model.", "conditioner.", "text_model.", "transformer."), _NAME),
    ("of no known kind", lambda h: not h.has(f"{_UNET}input_blocks."), _NAME),
)  # fmt: skip
