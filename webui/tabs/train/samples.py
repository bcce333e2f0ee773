"""The samples of a run as strips: for each prompt its pictures step by step, cut out of the sheets that it drew."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from PIL import Image

from sd_lora.errors import SdLoraError
from sd_lora.preview.recipe import read_recipe
from sd_lora.preview.sheet import cells_of

from ...messages import escaped

_MOST_STEPS, _SIDE = 24, 176
#: the prompt, and its picture at the highest strength as a data URL
Sample = tuple[str, str]


def strips_html(samples: Sequence[tuple[int, Path]]) -> str:
    """A strip for each prompt, and a slider over the steps, which page.js moves; empty without samples."""
    columns = [(step, _samples(str(path), _stamp(path))) for step, path in samples[-_MOST_STEPS:] if path.is_file()]
    columns = [(step, cells) for step, cells in columns if cells]
    if not columns:
        return ""
    prompts = list(dict.fromkeys(prompt for _, cells in columns for prompt, _ in cells))
    last = columns[-1][0]
    strips = "".join(_strip(prompt, columns) for prompt in prompts)
    slider = (
        f'<label class="step">Step <input type="range" min="0" max="{len(columns) - 1}" value="{len(columns) - 1}" '
        f'data-steps="{" ".join(str(step) for step, _ in columns)}" aria-label="step of the samples"> '
        f"<output>{last:,}</output></label>"
    )
    return f'<div class="samples">{slider if len(columns) > 1 else ""}{strips}</div>'


def _strip(prompt: str, columns: Sequence[tuple[int, tuple[Sample, ...]]]) -> str:
    cells = "".join(
        f'<li data-step="{step}"><img src="{dict(samples)[prompt]}" alt="{escaped(prompt)}, step {step}">'
        f"<span>{step:,}</span></li>"
        for step, samples in columns
        if prompt in dict(samples)
    )
    return f'<figure><figcaption dir="auto">{escaped(prompt)}</figcaption><ol tabindex="0">{cells}</ol></figure>'


@lru_cache(maxsize=256)
def _samples(path: str, _stamp: int) -> tuple[Sample, ...]:
    """The prompts of a sheet with their pictures at the highest strength; none if it is not one of this program's."""
    with suppress(OSError, SdLoraError, ValueError):
        content = Path(path).read_bytes()
        recipe = read_recipe(content)
        prompts, strengths = recipe.get("prompts", []), recipe.get("strengths", [])
        with Image.open(io.BytesIO(content)) as sheet:
            rows = cells_of(sheet.convert("RGB"), len(prompts), len(strengths))
        return tuple((prompt, _url(row[-1])) for prompt, row in zip(prompts, rows, strict=True))
    return ()


def _url(picture: Image.Image) -> str:
    picture.thumbnail((_SIDE, _SIDE))
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=90)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def _stamp(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return 0
