"""Pictures that were drawn, by everything that makes them what they are, up to a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from PIL import Image


class CellCache:
    """The pictures used last; safe to use from several threads. Pictures must not be changed by who gets them."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self._bytes = most_bytes, 0
        self._images: OrderedDict[Hashable, Image.Image] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Image.Image | None:
        with self._lock:
            image = self._images.get(key)
            if image is not None:
                self._images.move_to_end(key)
            return image

    def put(self, key: Hashable, image: Image.Image) -> None:
        with self._lock:
            self._drop(key)
            self._images[key] = image
            self._bytes += _size(image)
            while self._bytes > self._most and len(self._images) > 1:
                self._drop(next(iter(self._images)))

    def __len__(self) -> int:
        return len(self._images)

    def _drop(self, key: Hashable) -> None:
        old = self._images.pop(key, None)
        if old is not None:
            self._bytes -= _size(old)


def _size(image: Image.Image) -> int:
    return image.width * image.height * len(image.getbands())
