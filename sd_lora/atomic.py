"""Write files whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from sd_lora.errors import AdapterError, SdLoraError


def write_atomically(path: Path, content: bytes, check: Callable[[Path], None] | None = None) -> None:
    """Write `content` beside `path`, fsync, `check` it there, then rename: `path` is whole or as it was. SdLoraError if
    it cannot be."""
    partial = path.with_name(f".{path.name[:200]}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            try:
                check(partial)
            except AdapterError as error:
                raise AdapterError(f"{path} was not written: {str(error).replace(str(partial), 'it')}") from error
        os.replace(partial, path)
    except OSError as error:
        raise SdLoraError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def open_to_others(path: Path) -> None:
    """Give `path` the permissions of any new file; safetensors writes files that their owner alone may read."""
    mask = os.umask(0o077)
    os.umask(mask)
    path.chmod(0o666 & ~mask)
