"""What programs that draw write beside or into their pictures: the prompt, the negative prompt and the settings."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sd_lora.data.dialects.graphs import positive_of
from sd_lora.data.dialects.tags import described_by

#: the first of several settings that A1111, Forge and those like them write after the prompts
_LAST_LINE = re.compile(r"^Steps: \d+\s*(?:,|$)", re.MULTILINE)
_INLINE = re.compile(r"\sSteps: \d+, (?:Sampler|Schedule type|CFG scale|Seed|Size|Model|Model hash): ")
_NEGATIVE = re.compile(r"(?:^|\s)Negative prompt:")
_LABEL = re.compile(r"\s*parameters\s*(?::|\n)\s*", re.IGNORECASE)
_PAIR = re.compile(r'\s*(\w[\w ]{0,60}):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)')
_LONGEST_LINE = 10_000
_UPSCALED = re.compile(r"\s*Postprocess (?:upscale|upscaler|crop)\b[^:]*: ")
#: Easy Diffusion's lines; older ones begin without a label
_LABELS = "Negative Prompt|Width|Height|Seed|Steps|Guidance Scale|Sampler|Stable Diffusion model|Clip Skip|VAE model"
_LABELLED = re.compile(rf"Prompt:(.*?)(?<=\s)(?=(?:{_LABELS}):\s)", re.DOTALL)
_ITS_NEGATIVE = re.compile(rf"Negative Prompt:(.*?)(?=(?:{_LABELS}):\s|\Z)", re.DOTALL)
_UNLABELLED = re.compile(r"\sWidth: \d+\s+Height: \d+\s+Seed: \d+\s")
_DEEPEST = 6


@dataclass(frozen=True)
class Generation:
    """What `program` wrote: the prompt and its negative, and the settings as written, by their names there."""

    program: str
    positive: str
    negative: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


def read_generation(text: str) -> Generation | None:
    """What a program that draws wrote, on one line or several; None for any other text. Text of JSON that says nothing
    about a picture has an empty prompt."""
    readers: tuple[Callable[[str], Generation | None], ...] = (read_json, _read_labelled, read_parameters)
    return next((generation for read in readers if (generation := read(text)) is not None), None)


def read_parameters(text: str) -> Generation | None:
    """A1111's text: the prompt, ``Negative prompt: …`` and ``Steps: 20, Sampler: …``; None if both are missing."""
    if _UPSCALED.match(text):
        return Generation("A1111", "")
    last = _LAST_LINE.search(text) or _INLINE.search(text)
    head, line = (text[: last.start()], text[last.start() :].strip()) if last else (text, "")
    negative = _NEGATIVE.search(head)
    if last is None and negative is None:
        return None
    positive = head[: negative.start()] if negative else head
    label = _LABEL.match(positive)
    return Generation(
        "A1111",
        (positive[label.end() :] if label else positive).strip(),
        head[negative.end() :].strip() if negative else "",
        dict(_PAIR.findall(line[:_LONGEST_LINE])),
    )


def read_json(text: str) -> Generation | None:
    """JSON of a program that draws, tags or downloads pictures; None if it is not JSON of an object or of texts."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(content, list):
        if content and all(isinstance(item, str) for item in content):
            return Generation("JSON", ", ".join(content))
        content = next((item for item in content if isinstance(item, dict)), None)
    if not isinstance(content, dict):
        return None
    return _of_object(content, 0) or Generation("JSON", "")


def _read_labelled(text: str) -> Generation | None:
    match = _LABELLED.match(text.lstrip())
    if match:
        negative = _ITS_NEGATIVE.search(text)
        return Generation("Easy Diffusion", match[1].strip(), negative[1].strip() if negative else "")
    end = _UNLABELLED.search(text)
    return Generation("Easy Diffusion", text[: end.start()].strip()) if end else None


#: where a program keeps an inner object, and whose it is
_INSIDE = {
    "sui_image_params": "SwarmUI", "invokeai_metadata": "InvokeAI", "sd-metadata": "InvokeAI", "image": "InvokeAI",
    "meta": "Civitai", "parameters": "A1111", "prompt": "ComfyUI", "workflow": "ComfyUI", "Comment": "NovelAI",
    "caption": "a tagger",
}  # fmt: skip
#: the prompt, its negative, and whose names these are
_NAMES = (
    ("positive_prompt", "negative_prompt", "InvokeAI"), ("prompt", "uc", "NovelAI"),
    ("prompt", "negativeprompt", "SwarmUI"), ("prompt", "negativePrompt", "Civitai"),
    ("Prompt", "Negative Prompt", "Fooocus"), ("prompt", "negative_prompt", "a program that draws"),
    ("prompt", "", "JSON"), ("Prompt", "", "JSON"),
)  # fmt: skip


def _of_object(content: Mapping[str, Any], depth: int) -> Generation | None:
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
        if isinstance(value, str) and (not negative or isinstance(content.get(negative), str)):
            return Generation(program, value, content.get(negative, ""))
    described = described_by(content)
    return Generation(*described) if described else None


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
