"""Where an adapter is on disk: one file, or a folder as diffusers, PEFT or a run leaves it."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open

from sd_lora.adapters.arrays import read_arrays
from sd_lora.adapters.original import Piece, pieces_of
from sd_lora.errors import AdapterError, SdLoraWarning, reason, shown, some
from sd_lora.models.families import components
from sd_lora.storage.safetensors_header import TensorInfo, read_header

#: what begins the keys of embeddings in a file, before their word
_BUNDLED = "bundle_emb."
#: PEFT's record of rank and alpha, beside the file
CONFIG = "adapter_config.json"
_PEFT = "adapter_model.safetensors"
_PICKLES = (".bin", ".pt", ".ckpt")
#: the file of a folder: of a run, of diffusers, of PEFT
_NAMES = ("adapter.safetensors", "pytorch_lora_weights.safetensors", _PEFT)


class EmbeddingsIgnored(SdLoraWarning):
    """A file holds embeddings beside the adapter, which only programs that load embeddings can use."""


@dataclass(frozen=True)
class Source:
    """An adapter's `files`, each with the component that its folder names ("" if none does); all tensors by key, those
    of a component's folder with its name before them; the metadata; and PEFT's `configs` by component."""

    path: Path
    files: tuple[tuple[Path, str], ...]
    header: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    #: the keys of embeddings that come with the adapter, by their words
    embeddings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    #: what the keys of `header` are made of that are not the file's own
    pieces: Mapping[str, Piece] = field(default_factory=dict)
    #: the header with the file's own keys
    spelled: Mapping[str, TensorInfo] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file, _ in self.files)

    def arrays(self) -> dict[str, Any]:
        """All tensors as numpy's float32 arrays; OSError or SafetensorError."""
        own = {
            _key(component, key): array for file, component in self.files for key, array in read_arrays(file).items()
        }
        return own | {key: piece.of(own[piece.key]) for key, piece in self.pieces.items() if piece.key in own}

    @contextlib.contextmanager
    def tensors(self) -> Iterator[Any]:
        """A function from key to tensor, for the length of a ``with`` block; OSError or SafetensorError."""
        with ExitStack() as stack:
            opened = [(component, stack.enter_context(safe_open(file, "pt"))) for file, component in self.files]
            homes = {_key(component, key): (file, key) for component, file in opened for key in file.keys()}  # noqa: SIM118

            def tensor(key: str) -> Any:
                piece = self.pieces.get(key, Piece(key))
                file, inner = homes[piece.key]
                return piece.of(file.get_tensor(inner))

            yield tensor


def open_source(path: str | Path) -> Source:
    """What is at `path`. AdapterError for a folder without an adapter, or with more than one, and for a file whose
    header cannot be read."""
    path = Path(path)
    files = _files_in(path) if os.path.isdir(path) else ((path, ""),)
    header: dict[str, TensorInfo] = {}
    metadata: dict[str, str] = {}
    configs: dict[str, Mapping[str, Any]] = {}
    for file, component in files:
        tensors, facts = read_header(file)
        header |= {_key(component, key): info for key, info in tensors.items()}
        metadata |= facts
        if (config := _config_beside(file)) is not None:
            configs[component] = config
    bundled: dict[str, tuple[str, ...]] = {}
    for key in [key for key in header if key.startswith(_BUNDLED)]:
        word = re.sub(r"\.(?:string_to_param.*|clip_\w+|emb_params)$", "", key.removeprefix(_BUNDLED))
        bundled[word] = (*bundled.get(word, ()), key)
        del header[key]
    if bundled and not header:
        raise AdapterError(
            f"{path} holds embeddings only ({some(sorted(bundled), 3)}), not an adapter; use it as those"
        )
    try:
        split, pieces = pieces_of(header)
    except AdapterError as error:
        raise AdapterError(f"{path} cannot be read: {error}") from error
    return Source(path, files, split, metadata, bundled, configs, pieces, header)


def _key(component: str, key: str) -> str:
    return f"{component}.{key}" if component else key


def _files_in(folder: Path) -> tuple[tuple[Path, str], ...]:
    named = [folder / name for name in _NAMES if (folder / name).is_file()]
    if named:
        return ((named[0], ""),)
    of_components = [(folder / name / _PEFT, name) for name in components() if (folder / name / _PEFT).is_file()]
    if of_components:
        return tuple(of_components)
    others = sorted(folder.glob("*.safetensors")) or sorted(folder.glob(f"*/{_PEFT}"))  # PEFT's, below its own name
    pickles = [file.name for file in sorted(folder.iterdir()) if file.suffix in _PICKLES]
    if pickles and not others:
        raise AdapterError(
            f"{shown(str(folder))} holds {some(pickles, 3)}, and pickles can run code and are never loaded; save the "
            "adapter again as .safetensors with the program that made it"
        )
    if len(others) != 1:
        what = (
            f"{len(others)} adapters ({some([str(file.relative_to(folder)) for file in others], 3)})"
            if others
            else "no adapter"
        )
        raise AdapterError(f"{shown(str(folder))} is a folder that holds {what}; name one .safetensors file")
    return ((others[0], ""),)


def _config_beside(file: Path) -> Mapping[str, Any] | None:
    """PEFT's config beside `file`; None if there is none, or if it is of another kind of adapter."""
    place = file.with_name(CONFIG)
    if not place.is_file():
        return None
    try:
        config = json.loads(place.read_text("utf-8"), parse_int=float)  # else an integer may be too large
    except (OSError, ValueError, RecursionError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise AdapterError(
            f"{shown(str(place))}, which holds the alphas of {file.name}, cannot be read: {why}"
        ) from error
    if not isinstance(config, Mapping):
        raise AdapterError(f"{shown(str(place))}, which holds the alphas of {file.name}, is not a table of settings")
    return config
