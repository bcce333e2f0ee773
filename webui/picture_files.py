"""Pictures for browsers: PNG files with their recipe, in the page's private folder."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from sd_lora.preview.recipe import png_bytes


def picture_file(work: Path, image: Image.Image, recipe: Mapping[str, Any], name: str = "") -> str:
    """The path of `image` as a PNG that carries `recipe`; a picture that lies there already is not written again.

    `name` is what a browser saves it as, without the ending.
    """
    digest = hashlib.sha256(json.dumps(dict(recipe), sort_keys=True, default=str).encode())
    digest.update(image.tobytes())
    path = work / digest.hexdigest()[:32] / f"{name or 'picture'}.png"
    try:
        os.utime(path)  # the janitor takes what was not used for long
    except OSError:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{uuid.uuid4().hex}")
        partial.write_bytes(png_bytes(image, recipe))
        partial.replace(path)
    return str(path)
