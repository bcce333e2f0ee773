"""From a mix of adapters to the forms of other programs: strengths as diffusers takes them, and text to paste."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sd_lora.adapters.summary import AdapterSummary
from sd_lora.errors import ConfigError
from sd_lora.models.families import FAMILIES, components
from sd_lora.preview.prompts import plain_name

#: strengths that can be given; those of a mix are products of several of them
WEAKEST, STRONGEST = -1.0, 2.0
_TEXT_ENCODERS = set(components()) - {family.denoiser for family in FAMILIES.values()}
_COMFY_PACK = "LoRA Loader (Block Weight) of the Inspire Pack"


@dataclass(frozen=True)
class Share:
    """One adapter of a mix.

    `name`: of its file, without the ending; `strength`: as diffusers' `set_adapters` takes it; `unet`, `text`: the
    strength of the UNet and of the text encoders, as one number each; `beyond`: the blocks whose strength diffusers
    cannot set; `needs_export`: diffusers reads it from its own layout only.
    """

    name: str
    strength: float | dict[str, Any] = 1.0
    unet: float = 1.0
    text: float = 1.0
    beyond: tuple[str, ...] = ()
    needs_export: bool = False

    @property
    def has_blocks(self) -> bool:
        """Whether blocks have different strengths."""
        return isinstance(self.strength, dict) and isinstance(self.strength.get("unet"), dict)


@dataclass(frozen=True)
class Scene:
    """What is drawn with a mix: everything but the adapters."""

    prompt: str
    seed: int
    base: str
    size: int
    steps: int = 25
    guidance: float = 5.0


@dataclass(frozen=True)
class Snippet:
    """Text to paste, and what the other program cannot do with the mix."""

    text: str
    notes: tuple[str, ...] = ()


def file_names(names: Iterable[str]) -> list[str]:
    """The names as names of files, without duplicates."""
    return _unique(map(plain_name, names), "-")


def share(name: str, strength: float, factors: Mapping[str, float], summary: AdapterSummary) -> Share:
    """`strength` times the factors of parts: ``unet``, ``text_encoder`` (all text encoders), ``down``, ``mid``,
    ``up`` and single blocks as ``up.block_1``.

    Raises ConfigError for what is not a strength, and for factors of blocks if the adapter has modules outside of
    blocks, since no program can name those.
    """
    for value in (strength, *factors.values()):
        if not _is_strength(value):
            given = str(value)[:20]
            raise ConfigError(f"a strength must be between {WEAKEST:g} and {STRONGEST:g}, but {name} was given {given}")
    unet, text = (_rounded(strength * factors.get(part, 1.0)) for part in ("unet", "text_encoder"))
    blocks = {
        block: _rounded(strength * factors.get("unet", 1.0) * factor)
        for block, factor in _factors_of_blocks(factors, summary.parts).items()
    }
    is_by_block = any(value != unet for value in blocks.values())
    if is_by_block and "unet" in summary.parts:
        raise ConfigError(f"{name} has modules outside of the UNet's blocks; give it one strength for the UNet")
    denoiser = FAMILIES[summary.family].denoiser if summary.family in FAMILIES else "unet"
    by_part: dict[str, Any] = {part: text for part in summary.parts if part in _TEXT_ENCODERS}
    if not by_part:
        text = unet
    if any(part.startswith(denoiser) for part in summary.parts):
        by_part[denoiser] = _by_block(blocks) if is_by_block else unet
    is_one_number = not is_by_block and len(set(by_part.values())) < 2
    beyond = [part.removeprefix(f"{denoiser}.") for part in summary.beyond]
    return Share(
        name,
        next(iter(by_part.values()), unet) if is_one_number else by_part,
        unet,
        text,
        tuple(block for block in beyond if is_by_block and blocks[block] != 1),
        summary.needs_export,
    )


def _factors_of_blocks(factors: Mapping[str, float], parts: Iterable[str]) -> dict[str, float]:
    """``mid``, ``up.block_1`` … → the factor of the block times that of its side."""
    strengths = {}
    for block in (part.removeprefix("unet.") for part in parts if part.startswith("unet.")):
        side = block.partition(".")[0]
        strengths[block] = factors.get(side, 1.0) * (factors.get(block, 1.0) if block != side else 1.0)
    return strengths


def _by_block(blocks: Mapping[str, float]) -> dict[str, Any]:
    """``{"down": 0.5, "mid": 1.0, "up": {"block_1": 0.8, …}}``; one number for a side whose blocks agree."""
    sides: dict[str, dict[str, float]] = {}
    for part, value in blocks.items():
        side, _, block = part.partition(".")
        sides.setdefault(side, {})[block] = value
    one_each = {side: next(iter(values.values())) for side, values in sides.items() if len(set(values.values())) == 1}
    return {**sides, **one_each}


def diffusers(shares: Sequence[Share], scene: Scene) -> Snippet:
    """Python that draws the mix, if the adapters' files are in the folder where it runs."""
    names = _unique((re.sub(r"\W", "_", one.name) for one in shares), "_")  # PEFT accepts no dots
    imports = ["import torch", "from diffusers import DiffusionPipeline"]
    base = repr(scene.base if "/" in scene.base else f"path/to/{scene.base}")
    if scene.base == "tiny":
        base = "tiny_base_path()"
        imports.append("from sd_lora import tiny_base_path")
    lines = [*imports, "", f"pipe = DiffusionPipeline.from_pretrained({base})"]
    for one, name in zip(shares, names, strict=True):
        lines.append(f'pipe.load_lora_weights(".", weight_name={f"{one.name}.safetensors"!r}, adapter_name={name!r})')
    if shares:
        lines.append(f"pipe.set_adapters({names!r}, adapter_weights=[")
        lines += [f"    {one.strength!r}," for one in shares]
        lines.append("])")
    lines += [
        f"image = pipe({_encodable(scene.prompt)!r}, num_inference_steps={scene.steps}, "
        f"guidance_scale={scene.guidance:g},",
        f"             generator=torch.Generator().manual_seed({scene.seed})).images[0]",
        'image.save("mix.png")',
    ]
    notes = _note(
        "diffusers' strengths by block do not reach modules without attention: those in {} act at strength 1",
        [f"{', '.join(one.beyond)} of {one.name}" for one in shares if one.beyond],
    ) + _note(
        "diffusers reads this variant from its own layout only; convert {} to it first",
        [one.name for one in shares if one.needs_export],
    )
    return Snippet("\n".join(lines) + "\n", notes)


def a1111(shares: Sequence[Share], scene: Scene) -> Snippet:
    """A prompt for AUTOMATIC1111 and Forge; two numbers where text encoders and UNet have different strengths."""
    strengths = [f"{one.text:g}" if one.text == one.unet else f"{one.text:g}:{one.unet:g}" for one in shares]
    tags = [f"<lora:{one.name}:{strength}>" for one, strength in zip(shares, strengths, strict=True)]
    note = "strengths by block ({}) are not in this prompt: they need the extension sd-webui-lora-block-weight"
    notes = _note(note, [one.name for one in shares if one.has_blocks])
    return Snippet(" ".join([_encodable(scene.prompt), *tags]).strip() + "\n", notes)


def comfyui(shares: Sequence[Share], scene: Scene) -> Snippet:
    """A workflow in ComfyUI's API format: the checkpoint, a LoraLoader for each adapter, and what draws a picture."""
    nodes: dict[str, Any] = {}

    def node(kind: str, title: str = "", **inputs: Any) -> str:
        key = str(len(nodes) + 1)
        nodes[key] = {"class_type": kind, "inputs": inputs, "_meta": {"title": title or kind}}
        return key

    # Checkpoint and LoraLoader both output the model first and the text encoder second.
    last = checkpoint = node("CheckpointLoaderSimple", ckpt_name=f"{plain_name(scene.base)}.safetensors")
    for one in shares:
        strengths = {"strength_model": one.unet, "strength_clip": one.text}
        file = f"{one.name}.safetensors"
        last = node("LoraLoader", one.name, lora_name=file, **strengths, model=[last, 0], clip=[last, 1])
    positive = node("CLIPTextEncode", "prompt", text=_encodable(scene.prompt), clip=[last, 1])
    negative = node("CLIPTextEncode", "negative prompt", text="", clip=[last, 1])
    latent = node("EmptyLatentImage", width=scene.size, height=scene.size, batch_size=1)
    settings: dict[str, Any] = {"seed": scene.seed, "steps": scene.steps, "cfg": scene.guidance}
    settings |= {"sampler_name": "ddim", "scheduler": "normal", "denoise": 1.0}
    links: dict[str, Any] = {
        "model": [last, 0],
        "positive": [positive, 0],
        "negative": [negative, 0],
        "latent_image": [latent, 0],
    }
    picture = node("VAEDecode", samples=[node("KSampler", **settings, **links), 0], vae=[checkpoint, 2])
    node("SaveImage", filename_prefix="mix", images=[picture, 0])
    note = f"LoraLoader has no strengths by block ({{}}); the node {_COMFY_PACK} has"
    notes = _note(note, [one.name for one in shares if one.has_blocks])
    return Snippet(json.dumps(nodes, indent=1, ensure_ascii=False) + "\n", notes)


def _note(text: str, names: Sequence[str]) -> tuple[str, ...]:
    """`text` about `names`; nothing if there are none."""
    return (text.format(", ".join(names)),) if names else ()


def _unique(names: Iterable[str], sign: str) -> list[str]:
    """The names; one that is already there gets `sign` and a number appended."""
    unique: list[str] = []
    for name in names:
        numbered = (f"{name}{sign}{number}" for number in range(2, len(unique) + 3))
        unique.append(name if name not in unique else next(one for one in numbered if one not in unique))
    return unique


def _is_strength(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return is_number and WEAKEST <= value <= STRONGEST  # type: ignore[operator]


def _rounded(value: float) -> float:
    return round(float(value), 4) + 0.0  # no -0.0


def _encodable(text: str) -> str:
    """`text` without halves of surrogate pairs, which no file and no browser accepts."""
    return text.encode("utf-8", "replace").decode()
