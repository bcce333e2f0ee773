"""The kinds of base model that programs tell apart, the marks by which a file says which it is for, and how to
recognise them."""

from __future__ import annotations

import re
from collections.abc import Mapping

#: kind → the metadata that A1111, Forge and sd-scripts read (docs/file-format.md)
MARKS: dict[str, dict[str, str]] = {
    "sd1": {"ss_base_model_version": "sd_v1", "ss_v2": "False", "modelspec.architecture": "stable-diffusion-v1/lora"},
    "sd2": {
        "ss_base_model_version": "sd_v2", "ss_v2": "True", "modelspec.architecture": "stable-diffusion-v2-512/lora",
    },
    "sd2-v": {
        "ss_base_model_version": "sd_v2_v", "ss_v2": "True",
        "modelspec.architecture": "stable-diffusion-v2-768-v/lora",
    },
    "sdxl": {
        "ss_base_model_version": "sdxl_base_v1-0", "ss_v2": "False",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
    },
}  # fmt: skip
KINDS = tuple(MARKS)
#: kind → what AUTOMATIC1111 and Forge call it
VERSIONS = {"sd1": "SD1", "sd2": "SD2", "sd2-v": "SD2", "sdxl": "SDXL"}

_WIDTHS = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
_SDXL_ONLY = re.compile(r"text_encoder_2\.|.*\.transformer_blocks\.[1-9]")
_SD_ONLY = re.compile(r"unet\.(?:(?:down|up)_blocks\.3\.|down_blocks\.0\.attentions\.|up_blocks\.2\.attentions\.)")
_PROJECTION = re.compile(r"unet\..*\.proj_(?:in|out)$")


def family_of_kind(kind: str) -> str:
    """The family, as in `sdlora.family`: "sd" or "sdxl"."""
    return "sdxl" if kind == "sdxl" else "sd"


def kind_of(downs: Mapping[str, tuple[int, ...]], metadata: Mapping[str, str]) -> str:
    """The kind of base an adapter is for, or "" if nothing tells it.

    `downs` has the shape of each module's `down` by name in memory. The width of the cross-attention decides where it
    is one of a published model; then the metadata; then which blocks there are. SD2's two prediction types are told
    apart by the metadata alone.
    """
    said = kind_marked(metadata)
    widths = {shape[1] for name, shape in downs.items() if name.endswith((".attn2.to_k", ".attn2.to_v"))}
    found = next((_WIDTHS[width] for width in widths if width in _WIDTHS), "")
    if found and not (found == "sd2" and said == "sd2-v"):
        return "sd2-v" if found == "sd2" and _predicts_v(metadata) else found
    if said:
        return said
    if any(map(_SDXL_ONLY.match, downs)):
        return "sdxl"
    sides = {len(shape) for name, shape in downs.items() if _PROJECTION.match(name)}
    if any(map(_SD_ONLY.match, downs)) and sides:
        return "sd1" if sides == {4} else "sd2-v" if _predicts_v(metadata) else "sd2"
    return ""


def kind_marked(metadata: Mapping[str, str]) -> str:
    """The kind that the metadata names, or "" if it names none."""
    for kind, marks in MARKS.items():
        if metadata.get("modelspec.architecture") == marks["modelspec.architecture"]:
            return kind
    version = metadata.get("ss_base_model_version", "")
    if version.startswith("sdxl_") or metadata.get("sdlora.family") == "sdxl":
        return "sdxl"
    known = {marks["ss_base_model_version"]: kind for kind, marks in MARKS.items()}
    if version in known:
        return known[version]
    if metadata.get("ss_v2") == "True":
        return "sd2-v" if _predicts_v(metadata) else "sd2"
    return ""


def _predicts_v(metadata: Mapping[str, str]) -> bool:
    return metadata.get("modelspec.prediction_type") == "v" or metadata.get("ss_v_parameterization") == "True"
