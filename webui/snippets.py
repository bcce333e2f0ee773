"""From a mix of adapters to what other programs take: strengths in diffusers' form, and text to paste."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sd_lora.adapters.summary import AdapterSummary
from sd_lora.errors import ConfigError
from sd_lora.preview.prompts import plain_name

#: strengths that are taken; those of a mix are products of several of them
WEAKEST, STRONGEST = -1.0, 2.0
_TEXT = ("text_encoder", "text_encoder_2")
_COMFY_PACK = "LoRA Loader (Block Weight) of the Inspire Pack"


@dataclass(frozen=True)
class Share:
    """One adapter of a mix: its file's name without the ending, its strength in the form of diffusers' `set_adapters`,
    that of UNet and text encoders as one number each, the blocks whose strength diffusers cannot set, and whether
    diffusers reads it from its own layout only."""

    name: str
    strength: float | dict[str, Any] = 1.0
    unet: float = 1.0
    text: float = 1.0
    beyond: tuple[str, ...] = ()
    needs_export: bool = False

    @property
    def blocks(self) -> dict[str, Any]:
        """Strengths by block, if it has any."""
        inner = self.strength.get("unet") if isinstance(self.strength, dict) else None
        return inner if isinstance(inner, dict) else {}


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
    """Text to paste, and what the other program cannot do of the mix."""

    text: str
    notes: tuple[str, ...] = field(default=())


def file_names(names: Iterable[str]) -> list[str]:
    """The names as those of files, each once."""
    return _each_once(map(plain_name, names), "-")


def share(name: str, strength: float, factors: Mapping[str, float], summary: AdapterSummary) -> Share:
    """`strength` times the factors of parts: ``unet``, ``text_encoder`` (all text encoders), ``down``, ``mid``,
    ``up`` and single blocks as ``up.block_1``.

    Raises ConfigError for what is no strength, and for factors of blocks where modules lie outside of them, since no
    form names those.
    """
    odd = [value for value in (strength, *factors.values()) if not _is_strength(value)]
    if odd:
        raise ConfigError(
            f"a strength lies between {WEAKEST:g} and {STRONGEST:g}, but {name} was given {str(odd[0])[:20]}"
        )
    unet, text = (_rounded(strength * factors.get(part, 1.0)) for part in ("unet", "text_encoder"))
    blocks = {
        block: _rounded(strength * factors.get("unet", 1.0) * factor)
        for block, factor in _factors_of_blocks(factors, summary.parts).items()
    }
    is_by_block = any(value != unet for value in blocks.values())
    if is_by_block and "unet" in summary.parts:
        raise ConfigError(f"{name} has modules outside of the UNet's blocks; give it one strength for the UNet")
    whole: dict[str, Any] = {part: text for part in summary.parts if part in _TEXT}
    if not whole:
        text = unet
    if any(part.startswith("unet") for part in summary.parts):
        whole["unet"] = _by_block(blocks) if is_by_block else unet
    is_one_number = not is_by_block and len(set(whole.values())) < 2
    beyond = [part.removeprefix("unet.") for part in summary.beyond]
    return Share(
        name,
        next(iter(whole.values()), unet) if is_one_number else whole,
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
    """``{"down": 0.5, "mid": 1.0, "up": {"block_1": 0.8, …}}``; one number for a side that has one."""
    strengths: dict[str, Any] = {}
    for part, value in blocks.items():
        side, _, block = part.partition(".")
        if block:
            strengths.setdefault(side, {})[block] = value
        else:
            strengths[side] = value
    return {
        side: next(iter(values.values())) if isinstance(values, dict) and len(set(values.values())) == 1 else values
        for side, values in strengths.items()
    }


def diffusers(shares: Sequence[Share], scene: Scene) -> Snippet:
    """Python that draws the mix, with the adapters' files in the folder it runs in."""
    names = _each_once((re.sub(r"\W", "_", one.name) for one in shares), "_")  # PEFT takes no dot
    where = scene.base if "/" in scene.base else f"path/to/{scene.base}"
    base = "tiny_base_path()" if scene.base == "tiny" else repr(where)
    lines = ["import torch", "from diffusers import DiffusionPipeline", ""]
    if scene.base == "tiny":
        lines[1:2] = ["from diffusers import DiffusionPipeline", "from sd_lora import tiny_base_path"]
    lines.append(f"pipe = DiffusionPipeline.from_pretrained({base})")
    for one, name in zip(shares, names, strict=True):
        lines.append(f'pipe.load_lora_weights(".", weight_name={f"{one.name}.safetensors"!r}, adapter_name={name!r})')
    if shares:
        lines.append(f"pipe.set_adapters({names!r}, adapter_weights=[")
        lines += [f"    {one.strength!r}," for one in shares]
        lines.append("])")
    lines += [
        f"image = pipe({_whole(scene.prompt)!r}, num_inference_steps={scene.steps}, guidance_scale={scene.guidance:g},",
        f"             generator=torch.Generator().manual_seed({scene.seed})).images[0]",
        'image.save("mix.png")',
    ]
    missed = [f"{', '.join(one.beyond)} of {one.name}" for one in shares if one.beyond]
    notes = []
    if missed:
        notes.append(
            "in diffusers, strengths by block miss modules that go with no attention: "
            f"those in {'; '.join(missed)} act at strength 1"
        )
    others = [one.name for one in shares if one.needs_export]
    if others:
        notes.append(f"diffusers reads this variant from its own layout only; convert {', '.join(others)} to it first")
    return Snippet("\n".join(lines) + "\n", tuple(notes))


def a1111(shares: Sequence[Share], scene: Scene) -> Snippet:
    """A prompt for AUTOMATIC1111 and Forge; two numbers where text encoders and UNet have different strengths."""
    tags = [
        f"<lora:{one.name}:{_number(one.text)}>"
        if one.text == one.unet
        else f"<lora:{one.name}:{_number(one.text)}:{_number(one.unet)}>"
        for one in shares
    ]
    blocked = [one.name for one in shares if one.blocks]
    notes = []
    if blocked:
        notes.append(
            f"strengths by block ({', '.join(blocked)}) are not in this prompt: they need the extension "
            "sd-webui-lora-block-weight"
        )
    return Snippet(" ".join([_whole(scene.prompt), *tags]).strip() + "\n", tuple(notes))


def comfyui(shares: Sequence[Share], scene: Scene) -> Snippet:
    """A workflow in ComfyUI's API format: the checkpoint, a LoraLoader for each adapter, and what draws a picture."""
    nodes: dict[str, Any] = {}

    def node(kind: str, title: str = "", **inputs: Any) -> str:
        key = str(len(nodes) + 1)
        nodes[key] = {"class_type": kind, "inputs": inputs, "_meta": {"title": title or kind}}
        return key

    # Checkpoint and LoraLoader both put out the model first and the text encoder second.
    last = checkpoint = node("CheckpointLoaderSimple", ckpt_name=f"{plain_name(scene.base)}.safetensors")
    for one in shares:
        last = node(
            "LoraLoader",
            one.name,
            lora_name=f"{one.name}.safetensors",
            strength_model=one.unet,
            strength_clip=one.text,
            model=[last, 0],
            clip=[last, 1],
        )
    positive = node("CLIPTextEncode", "prompt", text=_whole(scene.prompt), clip=[last, 1])
    negative = node("CLIPTextEncode", "negative prompt", text="", clip=[last, 1])
    latent = node("EmptyLatentImage", width=scene.size, height=scene.size, batch_size=1)
    sampled = node(
        "KSampler",
        seed=scene.seed,
        steps=scene.steps,
        cfg=scene.guidance,
        sampler_name="ddim",
        scheduler="normal",
        denoise=1.0,
        model=[last, 0],
        positive=[positive, 0],
        negative=[negative, 0],
        latent_image=[latent, 0],
    )
    picture = node("VAEDecode", samples=[sampled, 0], vae=[checkpoint, 2])
    node("SaveImage", filename_prefix="mix", images=[picture, 0])
    blocked = [one.name for one in shares if one.blocks]
    notes = []
    if blocked:
        notes.append(f"LoraLoader has no strengths by block ({', '.join(blocked)}); the node {_COMFY_PACK} has")
    return Snippet(json.dumps(nodes, indent=1, ensure_ascii=False) + "\n", tuple(notes))


def _each_once(names: Iterable[str], sign: str) -> list[str]:
    """The names, with `sign` and a number behind those that were there before."""
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


def _number(value: float) -> str:
    return f"{value:g}"


def _whole(text: str) -> str:
    """`text` without halves of characters, which no file and no browser takes."""
    return text.encode("utf-8", "replace").decode()
