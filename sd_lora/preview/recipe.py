"""How a picture was made, written into its PNG and read from others': JSON, and the line that A1111 writes."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from sd_lora.data.dialects.parameters import read_parameters
from sd_lora.errors import DataError
from sd_lora.preview.job import PreviewJob, PreviewRow
from sd_lora.preview.prompts import plain_name, split_tags
from sd_lora.version import __version__

#: text chunks: our own JSON, and what AUTOMATIC1111, Forge and viewers read
JSON_KEY, LINE_KEY = "sd_lora", "parameters"
_MOST_TEXT, _MOST_PIXELS = 100_000, 64_000_000
#: what AUTOMATIC1111 calls the schedulers of diffusers
_SAMPLERS = {
    "DDIMScheduler": "DDIM", "EulerDiscreteScheduler": "Euler", "EulerAncestralDiscreteScheduler": "Euler a",
    "DPMSolverMultistepScheduler": "DPM++ 2M", "HeunDiscreteScheduler": "Heun", "LMSDiscreteScheduler": "LMS",
    "PNDMScheduler": "PLMS", "UniPCMultistepScheduler": "UniPC", "LCMScheduler": "LCM",
}  # fmt: skip


def recipe_of(job: PreviewJob, row: PreviewRow, strength: float, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that makes one picture, by the row's own settings. `facts`: base, scheduler, and the adapters' sha256
    by path."""
    job = job.of(row)
    mix = [{"name": m.name, "sha256": facts["sha256"].get(str(m.path), ""), "strength": m.strength} for m in row.mix]
    return {
        "prompt": row.prompt, "negative": job.negative, "adapters": mix, "strength": strength, "seed": job.seed,
        "steps": job.steps, "guidance": job.guidance, "width": job.width, "height": job.height,
        "base": facts["base"], "scheduler": facts["scheduler"], "sd_lora": __version__,
    }  # fmt: skip


def a1111_line(recipe: Mapping[str, Any]) -> str:
    """The recipe as AUTOMATIC1111 writes it, adapters by the names of their files there. It has no form for strengths
    by block, of which the commonest is written."""
    tags = [
        f" <lora:{plain_name(a['name'])}:{recipe['strength'] * _single(a['strength']):.6g}>" for a in recipe["adapters"]
    ]
    hashes = ", ".join(f"{plain_name(a['name'])}: {a['sha256'][:12]}" for a in recipe["adapters"])
    sampler = _SAMPLERS.get(recipe["scheduler"], recipe["scheduler"])
    pairs = {
        "Steps": recipe["steps"], "Sampler": sampler, "CFG scale": f"{recipe['guidance']:g}",
        "Seed": recipe["seed"], "Size": f"{recipe['width']}x{recipe['height']}", "Model": recipe["base"],
        "Lora hashes": json.dumps(hashes) if hashes else "", "Version": f"sd_lora {recipe['sd_lora']}",
    }  # fmt: skip
    negative = f"\nNegative prompt: {recipe['negative']}" if recipe["negative"] else ""
    line = ", ".join(f"{key}: {value}" for key, value in pairs.items() if value != "")
    return f"{recipe['prompt']}{''.join(tags)}{negative}\n{line}"


def png_bytes(image: Image.Image, recipe: Mapping[str, Any] | None = None) -> bytes:
    """`image` as a PNG that carries `recipe`, if given, in both forms; that of a sheet as JSON only."""
    content, info = io.BytesIO(), PngInfo()
    if recipe:
        info.add_text(JSON_KEY, json.dumps(dict(recipe), ensure_ascii=False))
        if "prompt" in recipe:
            info.add_text(LINE_KEY, a1111_line(recipe))
    # A picture remembers how it is being saved, and several threads may be saving one that is kept: each saves its own.
    image.copy().save(content, "PNG", pnginfo=info)
    return content.getvalue()


def read_recipe(content: bytes) -> dict[str, Any]:
    """The settings in a PNG of ours or A1111's: some of prompts, negative, strengths, seed, steps, guidance, width,
    height, scheduler (a class of diffusers), adapters (name, strength, sha256; or adapters_by_row). Raises DataError
    for a picture that carries none."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ValueError(f"{image.width} × {image.height} pixels are too many")
            image.load()  # text chunks may follow the pixels
            texts: dict[str, str] = {key: str(text)[:_MOST_TEXT] for key, text in getattr(image, "text", {}).items()}
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"that is not a readable PNG ({error}); choose a picture that was drawn here") from error
    settings = _from_json(texts.get(JSON_KEY, "")) or _from_line(texts.get(LINE_KEY, ""))
    if not settings:
        raise DataError("that picture carries no settings; choose a PNG that was drawn here, by A1111 or by Forge")
    return settings


def _from_json(text: str) -> dict[str, Any]:
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(recipe, dict):
        return {}
    if "inference_steps" in recipe:  # the sample sheets of a run
        recipe |= {"steps": recipe["inference_steps"], "adapters": []}
    for one, several in (("prompt", "prompts"), ("strength", "strengths")):
        if one in recipe:
            recipe.setdefault(several, [recipe[one]])
    settings = {key: recipe[key] for key, fits in _FORMS.items() if key in recipe and fits(recipe[key])}
    if "adapters" in settings:
        settings["adapters"] = _adapters(settings["adapters"])
    if len(by_row := settings.pop("adapters_by_row", ())) == len(settings.get("prompts", ())) > 0:
        settings["adapters_by_row"] = [_adapters(mix) if isinstance(mix, list) else [] for mix in by_row]
    return settings


def _adapters(mix: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": a["name"][:200],
            "strength": _strength(a.get("strength", 1.0)),
            "sha256": str(a.get("sha256", ""))[:64],
        }
        for a in mix
        if isinstance(a, dict) and isinstance(a.get("name"), str)
    ]


def _strength(value: Any) -> Any:
    """`value` if it has the form of a strength, else 1."""
    return value if _is_number(value) or isinstance(value, Mapping | list) else 1.0


def _from_line(text: str) -> dict[str, Any]:
    generation = read_parameters(text)
    if generation is None or not generation.settings:
        return {}
    pairs = generation.settings
    prompt, tags = split_tags(generation.positive)
    settings: dict[str, Any] = {"prompts": [prompt], "negative": generation.negative}
    for key, ours, kind in (("Steps", "steps", int), ("Seed", "seed", int), ("CFG scale", "guidance", float)):
        try:
            value = kind(pairs[key])
        except (KeyError, ValueError):
            continue
        if _is_number(value):
            settings[ours] = value
    size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", pairs.get("Size", "").strip())
    if size:
        settings["width"], settings["height"] = int(size[1]), int(size[2])
    names = [kind for kind, sampler in _SAMPLERS.items() if sampler == pairs.get("Sampler", "").strip()]
    settings |= {"scheduler": names[0]} if names else {}
    settings["adapters"] = [{"name": name, "strength": strength, "sha256": ""} for name, strength in tags]
    return settings


def _single(strength: Any) -> float:
    """A strength, or the commonest of those by block, of equally common ones the greatest."""
    counts = Counter(_numbers(strength))
    return max(counts, key=lambda number: (counts[number], number)) if counts else 1.0


def _numbers(strength: Any) -> list[float]:
    if _is_number(strength):
        return [float(strength)]
    inner = strength.values() if isinstance(strength, Mapping) else strength if isinstance(strength, list) else ()
    return [number for part in inner for number in _numbers(part)]


def sheet_recipe(job: PreviewJob, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of an entire sheet: that of its pictures, with all prompts, their own options and strengths."""
    recipes = [recipe_of(job, replace(row, own=None), 0.0, facts) for row in job.rows]
    mixes = [recipe["adapters"] for recipe in recipes]
    acting = {"adapters": mixes[0]} if all(mix == mixes[0] for mix in mixes) else {"adapters_by_row": mixes}
    rest = {key: value for key, value in recipes[0].items() if key not in ("prompt", "strength", "adapters")}
    return {"prompts": [row.line for row in job.rows], "strengths": list(job.columns), **acting, **rest}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


#: setting → whether a value of JSON can be one
_FORMS: dict[str, Callable[[Any], bool]] = {
    "prompts": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    "negative": lambda value: isinstance(value, str),
    "scheduler": lambda value: isinstance(value, str) and value in _SAMPLERS,
    "strengths": lambda value: isinstance(value, list) and all(map(_is_number, value)),
    "guidance": _is_number,
    **dict.fromkeys(("seed", "steps", "width", "height"), lambda value: isinstance(value, int) and _is_number(value)),
    **dict.fromkeys(("adapters", "adapters_by_row"), lambda value: isinstance(value, list)),
}
