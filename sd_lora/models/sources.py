"""Where a base model is: the embedded folder, a folder or file on this machine, or a model of the hub.

Only `find_base` (and a captioner) uses the network, and only for a hub model.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sd_lora.config.conflicts import Place, place_conflicts
from sd_lora.errors import BaseModelError
from sd_lora.models.families import weighted
from sd_lora.models.families.latent import tokenizer_of
from sd_lora.models.hub import hub_error
from sd_lora.models.names import is_hub_id, name_of_base
from sd_lora.storage.other_formats import other_format
from sd_lora.tinybase import tiny_base_path

_PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
_WANTED = (
    'a diffusers pipeline folder, a .safetensors checkpoint, a hub model (owner/name), or "tiny" for the embedded base'
)
# model.safetensors, model.fp16.safetensors, and both in shards; older files have the variant after the shard.
_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model)(?:\.(\w+))?(?:-(\d{5})-of-(\d{5}))?(?:\.(\w+))?\.safetensors", re.ASCII
)
_INDEX = "model_index.json"


@dataclass(frozen=True)
class BaseSource:
    """A base model on this machine: its folder or checkpoint file, and what to call it."""

    path: Path
    name: str
    is_file: bool = False


def find_base(base: str | Path, revision: str = "", accept: Callable[[Path], object] | None = None) -> BaseSource:
    """What `base` means: ``tiny``, a pipeline folder, a ``.safetensors`` checkpoint, or a hub model at `revision`.

    A hub model is downloaded, or taken from the hub's cache when the hub cannot be reached; `accept` sees a folder
    with its ``model_index.json`` before anything large is fetched. Raises BaseModelError.
    """
    text, path = str(base), Path(base).expanduser()
    place = base_place(base)
    if place == "hub":
        return BaseSource(_from_hub(text, revision, accept), text)
    if revision and (text == "tiny" or path.exists()):
        raise BaseModelError("; ".join(place_conflicts(text, revision, "", place)))
    if text == "tiny":
        return BaseSource(tiny_base_path(), "tiny")
    if path.suffix.lower() in _PICKLES and not path.is_dir():
        raise BaseModelError(
            f'base model "{base}" is a {path.suffix} file; pickles can run code and are never loaded, '
            "convert it to .safetensors"
        )
    if place == "file":
        path = Path(os.path.abspath(path))
        return BaseSource(path, name_of_base(path), is_file=True)
    path = path.resolve()
    if not (path / _INDEX).is_file():
        raise BaseModelError(f'base model "{base}" {_what_is_wrong(path)}; name {_WANTED}')
    return BaseSource(path, name_of_base(path))


def class_of_folder(folder: Path) -> str:
    """The pipeline class that a folder's index names; empty if it has none that can be read."""
    try:
        index = json.loads((folder / _INDEX).read_text("utf-8"))
        return str(index.get("_class_name", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def base_place(base: str | Path) -> Place:
    """Where `base` would be found; no network. What does not exist and is not a hub model counts as a folder."""
    path = Path(base).expanduser()
    weights = path.suffix.lower()
    if (
        str(base) != "tiny"
        and not path.exists()
        and is_hub_id(str(base))
        and weights not in (".safetensors", *_PICKLES)
    ):
        return "hub"
    return "file" if weights == ".safetensors" and path.is_file() else "folder"


def _what_is_wrong(path: Path) -> str:
    if not path.exists():
        return "does not exist"
    if not path.is_dir():
        other = other_format(path)
        return f"is {other.what if other else 'a file'}, not a .safetensors checkpoint"
    files = sorted(path.glob("*.safetensors"))
    hint = f" but one checkpoint, which can be named instead ({files[0]})" if len(files) == 1 else ""
    return f"has no {_INDEX}{hint}"


def variant_of(folder: Path) -> str | None:
    """``fp16`` if a component of the pipeline folder has its weights in that variant only, else None.

    It is the `variant` that diffusers' `from_pretrained` needs; components without the variant then load as usual.
    """
    return _variant(_variants(path.name for path in _files(folder / part)) for part in weighted())


def weight_files(folder: Path) -> list[Path]:
    """The files of weights that diffusers reads from a pipeline folder."""
    fp16, found = variant_of(folder), []
    for part in weighted():
        files = {path.name: path for path in _files(folder / part)}
        variant = fp16 if fp16 in _variants(files) else ""
        matches = ((_WEIGHTS.fullmatch(name), path) for name, path in sorted(files.items()))
        found += [path for match, path in matches if match and (match[1] or match[4] or "") == variant]
    return found


def _variant(components: Iterable[set[str]]) -> str | None:
    return "fp16" if any("fp16" in variants and "" not in variants for variants in components) else None


def _variants(names: Iterable[str]) -> set[str]:
    """The variants (``""`` is the plain one) of which `names` has every shard."""
    shards: dict[tuple[str, str], set[str]] = {}
    for match in filter(None, map(_WEIGHTS.fullmatch, names)):
        variant, shard, count, variant_after = match.groups()
        shards.setdefault((variant or variant_after or "", count or "00001"), set()).add(shard or "00001")
    return {variant for (variant, count), numbers in shards.items() if len(numbers) == int(count)}


def _plain() -> tuple[str, ...]:
    """The components without weights that training and previews need."""
    return (*(tokenizer_of(name) for name in weighted() if "text" in name), "scheduler")


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []


def _from_hub(repo: str, revision: str, accept: Callable[[Path], object] | None) -> Path:
    """The snapshot folder of hub model `repo`, with the files that are needed of it."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        folder = Path(snapshot_download(repo, revision=revision or None, allow_patterns=[_INDEX]))
    except Exception as error:
        raise hub_error("base model", repo, revision, error) from error
    if not (folder / _INDEX).is_file():
        raise BaseModelError(
            f"base model {repo} of the hub has no {_INDEX}; download its .safetensors checkpoint and name that file"
        )
    if accept is not None:
        accept(folder)
    missing = _missing(folder)
    if not missing:
        return folder
    commit = folder.name  # `revision` may move between two requests
    try:
        names = [file.rfilename for file in HfApi().model_info(repo, revision=commit).siblings or []]
        snapshot_download(repo, revision=commit, allow_patterns=_needed(names))
    except Exception as error:
        cached = f"is in the local cache without its {' and '.join(missing)}"
        raise hub_error("base model", repo, revision, error, cached=cached) from error
    missing = _missing(folder)
    if missing:
        raise BaseModelError(
            f"base model {repo} of the hub has no .safetensors weights or no files for {' and '.join(missing)}; "
            "name a model that has them, pickles are never loaded"
        )
    return folder


def _needed(names: list[str]) -> list[str]:
    """The files of a repository to fetch: one variant of the weights of each component, and the small files."""
    needed = [_INDEX]
    parts = {part: [n.removeprefix(f"{part}/") for n in names if n.startswith(f"{part}/")] for part in weighted()}
    variant = _variant(map(_variants, parts.values())) or ""
    for part, files in parts.items():
        wanted = variant if variant in _variants(files) else ""
        for file in files:
            match = _WEIGHTS.fullmatch(file)
            if match and (match[1] or match[4] or "") == wanted:
                needed.append(f"{part}/{file}")
    small = re.compile(rf"(?:{'|'.join(weighted() + _plain())})/[^/]+\.(?:json|txt)")
    return needed + [name for name in names if small.fullmatch(name) and not name.endswith(".bin.index.json")]


def _missing(folder: Path) -> list[str]:
    """The components that ``model_index.json`` names and that are not complete in the folder."""
    try:
        index: Any = json.loads((folder / _INDEX).read_text("utf-8"))
        parts = [part for part in (*weighted(), *_plain()) if (index.get(part) or [None])[0]]
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise BaseModelError(f"base model {folder} has an unreadable {_INDEX}: {error}") from error
    missing = []
    for part in parts:
        names = [path.name for path in _files(folder / part)]
        if not (names if part in _plain() else _variants(names) & {"", "fp16"} and "config.json" in names):
            missing.append(part)
    return missing
