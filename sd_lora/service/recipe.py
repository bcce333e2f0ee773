"""How a picture was made, written into its PNG and read from others': JSON, and the line that A1111 writes."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from sd_lora.errors import DataError
from sd_lora.service.job import PreviewJob, PreviewRow
from sd_lora.strength_text import split_tags
from sd_lora.version import __version__

#: text chunks: our own JSON, and what AUTOMATIC1111, Forge and viewers read
JSON_KEY, LINE_KEY = "sd_lora", "parameters"
_PAIR = re.compile(r'\s*([\w ]+):\s*("(?:\\.|[^"])*"|[^,]*)(?:,|$)')
_LAST_LINE = re.compile(r"^Steps: \d", re.MULTILINE)
_MOST_TEXT = 100_000


def recipe_of(job: PreviewJob, row: PreviewRow, strength: float, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that makes one picture. `facts`: base, scheduler, and the sha256 of adapters by path."""
    mix = [{"name": m.name, "sha256": facts["sha256"].get(str(m.path), ""), "strength": m.strength} for m in row.mix]
    return {
        "prompt": row.prompt, "negative": job.negative, "adapters": mix, "strength": strength, "seed": job.seed,
        "steps": job.steps, "guidance": job.guidance, "width": job.width, "height": job.height,
        "base": facts["base"], "scheduler": facts["scheduler"], "sd_lora": __version__,
    }  # fmt: skip


def a1111_line(recipe: Mapping[str, Any]) -> str:
    """The recipe as AUTOMATIC1111 writes it. Adapters with strengths by block appear with the column's strength only,
    for which it has no form."""
    tags = [f" <lora:{a['name']}:{_effective(a['strength'], recipe['strength']):g}>" for a in recipe["adapters"]]
    hashes = ", ".join(f"{a['name']}: {a['sha256'][:12]}" for a in recipe["adapters"])
    pairs = {
        "Steps": recipe["steps"], "Sampler": recipe["scheduler"], "CFG scale": f"{recipe['guidance']:g}",
        "Seed": recipe["seed"], "Size": f"{recipe['width']}x{recipe['height']}", "Model": recipe["base"],
        "Lora hashes": json.dumps(hashes) if hashes else "", "Version": f"sd_lora {recipe['sd_lora']}",
    }  # fmt: skip
    negative = f"\nNegative prompt: {recipe['negative']}" if recipe["negative"] else ""
    line = ", ".join(f"{key}: {value}" for key, value in pairs.items() if value != "")
    return f"{recipe['prompt']}{''.join(tags)}{negative}\n{line}"


def png_with_recipe(image: Image.Image, recipe: Mapping[str, Any]) -> bytes:
    """`image` as a PNG that carries `recipe` in both forms; that of a sheet as JSON only."""
    content, info = io.BytesIO(), PngInfo()
    info.add_itxt(JSON_KEY, json.dumps(dict(recipe), ensure_ascii=False))
    if "prompt" in recipe:
        info.add_itxt(LINE_KEY, a1111_line(recipe))
    # A picture remembers how it is being saved, and several threads may be saving one that is kept: each saves its own.
    image.copy().save(content, "PNG", pnginfo=info)
    return content.getvalue()


def read_recipe(content: bytes) -> dict[str, Any]:
    """The settings in a PNG of ours or A1111's: some of prompts, negative, strengths, seed, steps, guidance, width,
    height, adapters (name, strength). Raises DataError for a picture that carries none."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            image.load()  # text chunks may follow the pixels
            texts: dict[str, str] = {key: str(text)[:_MOST_TEXT] for key, text in getattr(image, "text", {}).items()}
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"that is no PNG that can be read ({error}); choose a picture drawn here") from error
    found: dict[str, Any] = {}
    if JSON_KEY in texts:
        found = _from_json(texts[JSON_KEY])
    if not found and LINE_KEY in texts:
        found = _from_line(texts[LINE_KEY])
    if not found:
        raise DataError("that picture carries no settings; choose a PNG that was drawn here, by A1111 or by Forge")
    return found


def _from_json(text: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(said, dict):
        return {}
    found: dict[str, Any] = {}
    prompts = said.get("prompts", [said["prompt"]] if "prompt" in said else None)
    if isinstance(prompts, list) and all(isinstance(p, str) for p in prompts):
        found["prompts"] = prompts
    if isinstance(said.get("negative"), str):
        found["negative"] = said["negative"]
    strengths = said.get("strengths", [said["strength"]] if "strength" in said else None)
    if isinstance(strengths, list) and all(_is_number(s) for s in strengths):
        found["strengths"] = [float(s) for s in strengths]
    if "inference_steps" in said:  # the sample sheets of a training
        said = {**said, "steps": said["inference_steps"], "adapters": []}
    for key in ("seed", "steps", "width", "height"):
        if isinstance(said.get(key), int) and not isinstance(said[key], bool):
            found[key] = said[key]
    if _is_number(said.get("guidance")):
        found["guidance"] = float(said["guidance"])
    if isinstance(said.get("adapters"), list):
        found["adapters"] = [
            {"name": a["name"], "strength": a.get("strength", 1.0)}
            for a in said["adapters"] if isinstance(a, dict) and isinstance(a.get("name"), str)
        ]  # fmt: skip
    return found


def _from_line(text: str) -> dict[str, Any]:
    last = _LAST_LINE.search(text)
    if last is None:
        return {}
    head, pairs = text[: last.start()].strip(), dict(_PAIR.findall(text[last.start() :]))
    prompt, _, negative = head.partition("\nNegative prompt:")
    prompt, tags = split_tags(prompt)
    found: dict[str, Any] = {"prompts": [prompt], "negative": negative.strip()}
    for key, ours, kind in (("Steps", "steps", int), ("Seed", "seed", int), ("CFG scale", "guidance", float)):
        try:
            found[ours] = kind(pairs[key])
        except (KeyError, ValueError):
            continue
    size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", pairs.get("Size", "").strip())
    if size:
        found["width"], found["height"] = int(size[1]), int(size[2])
    found["adapters"] = [{"name": name, "strength": strength} for name, strength in tags]
    return found


def _effective(own: Any, column: float) -> float:
    return column * own if _is_number(own) else column


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def sheet_recipe(job: PreviewJob, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of a whole sheet: that of its pictures, with all prompts and strengths."""
    one = recipe_of(job, job.rows[0], 0.0, facts)
    prompts: Sequence[str] = [row.prompt for row in job.rows]
    rest = {key: value for key, value in one.items() if key not in ("prompt", "strength")}
    return {"prompts": list(prompts), "strengths": list(job.columns), **rest}
