"""Files for browsers, in the page's private folder."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from sd_lora.preview.recipe import png_bytes


def picture_file(work: Path, image: Image.Image, recipe: Mapping[str, Any], name: str = "") -> str:
    """The path of `image` as a PNG that carries `recipe`; a browser saves it as `name`, given without the ending."""
    key = json.dumps(dict(recipe), sort_keys=True, default=str).encode() + image.tobytes()
    return str(
        cached_file(work, key, f"{name or 'picture'}.png", lambda file: file.write_bytes(png_bytes(image, recipe)))
    )


def cached_file(work: Path, key: bytes, name: str, write: Callable[[Path], object]) -> Path:
    """The file called `name` for `key` in the folder `work`; if it is not there, `write` writes it to a given path."""
    path = work / hashlib.sha256(key).hexdigest()[:32] / name
    try:
        os.utime(path)  # the janitor deletes what has not been used for long
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as unfinished:
            write(Path(unfinished) / name)
            (Path(unfinished) / name).replace(path)
    return path
