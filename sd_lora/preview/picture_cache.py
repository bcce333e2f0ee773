"""Pictures that were drawn, by everything that makes them what they are, up to a number of bytes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Hashable

from cachetools import LRUCache
from PIL import Image


class CellCache:
    """The pictures used last; safe to use from several threads. Pictures must not be changed by who gets them."""

    def __init__(self, most_bytes: int) -> None:
        self._images: LRUCache[Hashable, Image.Image] = LRUCache(most_bytes, getsizeof=_size)
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Image.Image | None:
        with self._lock:
            return self._images.get(key)

    def put(self, key: Hashable, image: Image.Image) -> None:
        with self._lock, contextlib.suppress(ValueError):  # larger than the whole cache
            self._images[key] = image


def _size(image: Image.Image) -> int:
    return image.width * image.height * len(image.getbands())
