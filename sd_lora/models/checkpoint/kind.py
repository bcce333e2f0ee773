"""What kind of model a ``.safetensors`` checkpoint holds, by its header alone; other kinds are refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sd_lora.errors import BaseModelError
from sd_lora.models.checkpoint.keys import PREFIXES
from sd_lora.models.contents import LABELS, UNET, Header, contents_of
from sd_lora.models.families import FAMILIES, kinds
from sd_lora.storage import safetensors_header

_WIDTH = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


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
    other = contents_of(header)
    if other is None and not header.has(f"{UNET}input_blocks."):
        raise BaseModelError(f"base model {path} is of no known kind; name a checkpoint of Stable Diffusion 1, 2 or XL")
    if other is not None:
        raise BaseModelError(f"base model {path} is {other.what}, which cannot be trained; {other.as_base}")
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
    if LABELS in header.tensors:
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
