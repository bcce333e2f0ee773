"""Measures on the embedded base, where the truth is known: the renderer draws any content in any style.

How much of a style did an adapter learn, and did it keep the content?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from sd_lora.adapters.adapter import Adapter
from sd_lora.evaluation.style_distance import share_closed, style_distance
from sd_lora.models.opening import family_of_pipe
from sd_lora.tinybase.judge import load_judge, recognised, to_tensor
from sd_lora.tinybase.styles import SIZE, Style, render
from sd_lora.tinybase.world import Scene, sample_scene

_PROMPT_SEED, _OTHER_SEED = 7_000_000, 9_000_000


@dataclass(frozen=True)
class StyleMeasure:
    """At one strength: `distance` to unseen pictures in the style, the share of the base's distance `closed`, and the
    share of pictures whose subject and background the judge recognises."""

    strength: float
    distance: float
    closed: float
    subject: float
    background: float


def unseen_scenes(count: int, first: int = _PROMPT_SEED, *, pair: bool = False) -> list[Scene]:
    """`count` scenes of different captions, of one subject or of a `pair`, that hold a (subject, colour, background) or
    a pair of subjects which neither the base nor an adapter was ever trained on."""
    scenes: dict[str, Scene] = {}
    for seed in range(first, first + 100 * count):
        scene = sample_scene(seed, held_out=True, pair=pair)
        scenes.setdefault(scene.caption, scene)
        if len(scenes) == count:
            break
    return list(scenes.values())


def generate(
    pipe: Any, prompts: Sequence[str], *, seed: int = 0, guidance: float = 4.0, batch: int = 16, size: int | None = None
) -> list[Image.Image]:
    """One picture per prompt, of the base's own size if no other is given; picture i starts from noise that depends on
    (seed, i) alone."""
    images: list[Image.Image] = []
    family = family_of_pipe(pipe)
    side = size or family.native_size(pipe)
    for start in range(0, len(prompts), batch):
        chunk = list(prompts[start : start + batch])
        noise = torch.cat([family.noise(pipe, (side, side), seed * 100_003 + start + i) for i in range(len(chunk))])
        how = {"height": side, "width": side, "guidance_scale": guidance, "num_inference_steps": 20}
        images += pipe(chunk, latents=noise, **how).images
    return images


@torch.inference_mode()
def reconstruction(pipe: Any, style: str, count: int = 48, size: int = SIZE) -> float:
    """Mean PSNR in dB of what the VAE makes of `count` pictures in `style` that it was not trained on."""
    pictures = to_tensor([render(scene, style, size) for scene in unseen_scenes(count)], size)
    rebuilt = pipe.vae.decode(pipe.vae.encode(pictures).latent_dist.mean).sample.clamp(-1, 1)
    errors = ((pictures - rebuilt) / 2).square().mean(dim=(1, 2, 3))
    return float((-10 * errors.log10()).mean())


def measure_style(
    pipe: Any,
    adapter: Adapter,
    style: str | Style,
    suffix: str,
    *,
    strengths: Sequence[float] = (0, 0.5, 1),
    count: int = 32,
) -> list[StyleMeasure]:
    """Measure `adapter` at each strength (0 first) on `count` unseen prompts, each with `suffix` appended.

    The references are the renderer's pictures of the same prompts in `style`; the floor is the distance between two
    renderings of those prompts that differ in what no prompt names.
    """
    scenes = unseen_scenes(count)
    references = [render(scene, style) for scene in scenes]
    others = [render(Scene(**{**vars(scene), "seed": scene.seed + _OTHER_SEED}), style) for scene in scenes]
    floor, judge = style_distance(others, references), load_judge()
    prompts = [scene.caption + suffix for scene in scenes]
    rows: list[StyleMeasure] = []
    for strength in strengths:
        with adapter.injected(pipe, strength):
            images = generate(pipe, prompts)
        distance = style_distance(images, references)
        closed = share_closed(rows[0].distance, distance, floor) if rows else 0.0
        shares = recognised(judge, images, scenes)
        rows.append(StyleMeasure(float(strength), distance, closed, shares["subject"], shares["background"]))
    return rows
