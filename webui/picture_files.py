"""Pictures for browsers, as files in the page's private folder."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from sd_lora.preview.recipe import png_bytes


def picture_file(work: Path, image: Image.Image, recipe: Mapping[str, Any], name: str = "") -> str:
    """The path of `image` as a PNG that carries `recipe`; `name` is what a browser saves it as, without the ending."""
    key = json.dumps(dict(recipe), sort_keys=True, default=str).encode() + image.tobytes()
    return kept_file(work, key, f"{name or 'picture'}.png", lambda: png_bytes(image, recipe))


def kept_file(work: Path, key: bytes, name: str, content: Callable[[], bytes]) -> str:
    """The path of the file `name` for `key` in the folder `work`; its `content` is written unless it is there."""
    path = work / hashlib.sha256(key).hexdigest()[:32] / name
    try:
        os.utime(path)  # the janitor takes what was not used for long
    except OSError:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{uuid.uuid4().hex}")
        partial.write_bytes(content())
        partial.replace(path)
    return str(path)
