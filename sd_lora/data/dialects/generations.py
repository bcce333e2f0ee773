"""What programs that draw write beside or into their pictures, as JSON or as text: the prompt and its negative."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from sd_lora.data.dialects.answers import as_json
from sd_lora.data.dialects.graphs import positive_of
from sd_lora.data.dialects.objects import described_by, tags_in
from sd_lora.data.dialects.parameters import Generation, read_parameters
from sd_lora.data.dialects.scores import scores_in

#: what exiftool and others print of NovelAI's pictures
_NOVELAI = re.compile(
    r"^Description:[ \t]*(?P<text>.{0,4000}?)(?=^(?:Software|Source|Comment|Title|Generation time):)",
    re.MULTILINE | re.DOTALL,
)

_DEEPEST = 6


def read_generation(text: str) -> Generation | None:
    """What a program that draws wrote, on one line or several; None for any other text. Text of JSON that says nothing
    about a picture has an empty prompt."""
    return read_json(text) or _read_novelai(text) or read_parameters(text)


def _read_novelai(text: str) -> Generation | None:
    described = _NOVELAI.search(text) if "NovelAI" in text else None
    return Generation("NovelAI", described["text"].strip()) if described else None


def read_json(text: str) -> Generation | None:
    """JSON of a program that draws, tags or downloads pictures; None if it is not JSON of an object or of texts."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        content = json.loads(as_json(text))
    except (ValueError, RecursionError):
        return None
    if isinstance(content, list):
        if scores_in(content):
            return Generation("a tagger", tags_in(content))
        if all(isinstance(item, str) for item in content):
            return Generation("JSON", ", ".join(content))
        content = next((item for item in content if isinstance(item, dict)), None)
    if not isinstance(content, dict):
        return None
    return _of_object(content, 0) or Generation("JSON", "")


#: where a program keeps an inner object, and whose it is
_INSIDE = {
    "sui_image_params": "SwarmUI", "invokeai_metadata": "InvokeAI", "sd-metadata": "InvokeAI", "image": "InvokeAI",
    "meta": "Civitai", "parameters": "A1111", "prompt": "ComfyUI", "workflow": "ComfyUI", "Comment": "NovelAI",
    "caption": "a tagger", "v4_prompt": "NovelAI", "metadata": "a program that draws", "inputs": "a program that draws",
    "params": "a program that draws", "request": "a program that draws", "generation": "a program that draws",
}  # fmt: skip
#: the prompt, its negative, and whose names these are
_NAMES = (
    ("positive_prompt", "negative_prompt", "InvokeAI"), ("prompt", "uc", "NovelAI"), ("c", "uc", "Draw Things"),
    ("prompt", "negativeprompt", "SwarmUI"), ("prompt", "negativePrompt", "Civitai"),
    ("Prompt", "Negative Prompt", "Fooocus"), ("prompt", "negative_prompt", "a program that draws"),
    ("positive", "negative", "a program that draws"), ("prompt", "", "JSON"), ("Prompt", "", "JSON"),
)  # fmt: skip


def _of_object(content: Mapping[str, Any], depth: int) -> Generation | None:
    if isinstance(characters := content.get("char_captions"), list):  # NovelAI's, since its fourth model
        texts = [content.get("base_caption"), *(_at(each, "char_caption") for each in characters)]
        return Generation("NovelAI", ", ".join(text.strip(" ,") for text in texts if isinstance(text, str) and text))
    graph = positive_of(content)
    if graph is not None:
        return Generation("ComfyUI", graph)
    for key, program in _INSIDE.items():
        inner = _inner(content.get(key), depth)
        if inner is not None:
            return Generation(program if inner.program in ("JSON", "A1111") else inner.program, *_texts(inner))
    for positive, negative, program in _NAMES:
        value = content.get(positive)
        if isinstance(value, list):  # InvokeAI's older files: texts with their weights
            value = ", ".join(str(part.get("prompt", "")) for part in value if isinstance(part, dict))
        if (
            isinstance(value, str)
            and (value.strip() or negative)
            and (not negative or isinstance(content.get(negative), str))
        ):
            return Generation(program, value, content.get(negative, ""))
    described = described_by(content)
    return Generation(*described) if described else None


def _at(value: object, key: str) -> object:
    return value.get(key) if isinstance(value, dict) else None


def _inner(value: object, depth: int) -> Generation | None:
    """What an object, or text of JSON or of A1111, inside another says."""
    if depth >= _DEEPEST:
        return None
    if isinstance(value, str):
        if value.lstrip()[:1] != "{":
            return read_parameters(value)
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return _of_object(value, depth + 1) if isinstance(value, dict) else None


def _texts(generation: Generation) -> tuple[str, str]:
    return generation.positive, generation.negative
