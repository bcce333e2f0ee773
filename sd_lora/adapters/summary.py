"""What adapter files say about themselves, from their headers alone: fast enough for a list of many."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from sd_lora.adapters.file import shapes_of
from sd_lora.adapters.foreign import not_read
from sd_lora.adapters.keys import DIFFUSERS_KEY, MODULES_KEY, Key, layout_of, understood
from sd_lora.adapters.source import open_source
from sd_lora.errors import AdapterError, printable
from sd_lora.lora.variants import VARIANTS, called, variant_of
from sd_lora.lora.variants.variant import Variant
from sd_lora.models.families import FAMILIES, ModelFamily
from sd_lora.models.kinds import family_of_adapter, family_of_kind, kind_of
from sd_lora.storage.safetensors_header import TensorInfo

_MOST_TEXT, _MOST_RANK = 200, 4096
_STRONGEST = 10.0
_PICTURES = (".png", ".preview.png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class AdapterSummary:
    """Facts of an adapter file, of any program that writes them; empty or None where nothing is recorded.

    `kind`: the name of a `families.kinds`; `rank`, `alpha`: a number or a range, as text; `trigger`: the trigger word;
    `phrase`: what calls the style in a prompt; `strength`: the recommended one; `parts`: where its modules are, as
    ``text_encoder``, ``unet.down.block_0``, ``unet.mid``, and ``unet`` for those outside of the blocks; `beyond`: the
    blocks among them that diffusers' strengths by block do not reach completely, since they have modules that belong to
    no attention; `problem`: why it cannot be used, as far as the header shows.
    """

    path: Path
    bytes: int = 0
    base: str = ""
    family: str = ""
    kind: str = ""
    rank: str = ""
    alpha: str = ""
    variant: str = ""
    steps: int | None = None
    images: int | None = None
    trigger: str = ""
    phrase: str = ""
    strength: float | None = None
    layout: str = ""
    parts: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    thumbnail: Path | None = None
    problem: str = ""

    @property
    def title(self) -> str:
        """What people call its variant."""
        return VARIANTS[self.variant].title if self.variant else ""

    @property
    def needs_export(self) -> bool:
        """Whether diffusers reads it from its own layout only."""
        return bool(self.variant) and not VARIANTS[self.variant].diffusers_reads_kohya


def read_summary(path: str | Path) -> AdapterSummary:
    """The summary of the file at `path`; raises nothing, but says in `problem` what is wrong with it.

    Only the header is read: NaN values and incomplete modules are found when the file is loaded.
    """
    path = Path(path)
    picture = _thumbnail(path)
    try:
        source = open_source(path)
    except AdapterError as error:
        return AdapterSummary(path, _size(path), thumbnail=picture, problem=local(str(error), path))
    header, metadata = source.header, source.metadata
    keys, unknown = understood(header)
    shapes = shapes_of(header, keys)
    kind = kind_of(shapes, metadata)
    rank = _range([rank for rank in _ranks(header, keys) if 0 < rank <= _MOST_RANK])
    parts, beyond = _parts({key.name for key in keys.values()}, family_of_adapter(shapes, metadata))
    texts = {key: _short(value) for key, value in metadata.items()}
    trigger = texts.get("sdlora.trigger") or texts.get("modelspec.trigger_phrase", "")
    family, strength = texts.get("sdlora.family", ""), _number(texts.get("sdlora.strength", ""))
    return AdapterSummary(
        path,
        _size(path),
        base=_base(texts),
        kind=kind,
        rank=rank,
        family=family if family in FAMILIES else family_of_kind(kind).name if kind else "",
        alpha=_alpha(metadata, rank, any(key.role == "alpha" for key in keys.values())),
        variant=called(row.name for row, _ in _roles(header, keys)),
        steps=_count(texts.get("sdlora.steps", "")) or _count(texts.get("ss_steps", "")),
        images=_images(metadata) or _count(texts.get("ss_num_train_images", "")),
        trigger=trigger,
        phrase=texts.get("modelspec.trigger_phrase") or trigger,
        strength=strength if strength is not None and abs(strength) <= _STRONGEST else None,
        layout=layout_of(keys.values()),
        parts=parts,
        beyond=beyond,
        metadata={key: value for key, value in sorted(metadata.items()) if key != MODULES_KEY},
        thumbnail=picture,
        problem=printable(not_read(path.name, unknown, len(header), metadata)),
    )


def _roles(header: Mapping[str, TensorInfo], keys: Mapping[str, Key]) -> Iterator[tuple[Variant, dict[str, Any]]]:
    """Of each module its variant, and the shapes by role."""
    modules: dict[str, dict[str, tuple[int, ...]]] = {}
    for text, key in keys.items():
        if key.role != "alpha":
            modules.setdefault(key.name, {})[key.role] = header[text].shape
    for shapes in modules.values():
        if (row := variant_of(shapes)) is not None:
            yield row, shapes


def _ranks(header: Mapping[str, TensorInfo], keys: Mapping[str, Key]) -> Iterator[int]:
    for row, shapes in _roles(header, keys):
        if not row.missing(shapes) and row.is_scaled(shapes) and not row.problem(shapes, "kohya"):
            yield row.rank(shapes)


def _parts(names: Collection[str], family: ModelFamily) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The parts that modules are in, in the order of the base, and those that diffusers does not reach completely."""
    parts = sorted({family.part_of(name)[0] for name in names}, key=_in_order)
    beyond = family.beyond_diffusers(names)
    return tuple(map(".".join, parts)), tuple(".".join(part) for part in parts if part in beyond)


def _in_order(part: tuple[str, ...]) -> tuple[bool, list[tuple[int, str]]]:
    pieces = re.split(r"(\d+)", ".".join(part))
    return len(part) > 1, [(int(piece) if piece.isdecimal() else -1, piece) for piece in pieces]


def _base(texts: Mapping[str, str]) -> str:
    """The name of the base model; of a path on somebody's machine, the last part."""
    if texts.get("sdlora.base"):
        return texts["sdlora.base"]
    name = texts.get("ss_sd_model_name", "")
    if name == "None":
        return ""
    if "\\" in name or name.count("/") > 1 or name.startswith((".", "/", "~")):
        name = PureWindowsPath(name).name
    return re.sub(r"\.(?:safetensors|ckpt|pt)$", "", name)


def _alpha(metadata: Mapping[str, str], rank: str, has_alphas: bool) -> str:
    """The alpha that is recorded; without any, alpha is the rank."""
    if has_alphas:
        number = _number(metadata.get("ss_network_alpha", ""))
        return "" if number is None else f"{number:g}"
    if DIFFUSERS_KEY not in metadata:
        return rank
    record = _json(metadata[DIFFUSERS_KEY])
    alphas = [_number(str(value)) for key, value in record.items() if key.endswith(".lora_alpha")]
    return _range([alpha for alpha in alphas if alpha is not None])


def _images(metadata: Mapping[str, str]) -> int | None:
    """The number of images; the one that kohya's scripts record counts repeats."""
    folders = _json(metadata.get("ss_dataset_dirs", "")).values()
    counts = [folder.get("img_count") for folder in folders if isinstance(folder, dict)]
    valid = [count for count in counts if type(count) is int and 0 <= count < 10**9]
    return sum(valid) if valid and len(valid) == len(counts) else None


def _json(text: str) -> dict[str, object]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _range(numbers: Sequence[float]) -> str:
    if not numbers:
        return ""
    low, high = min(numbers), max(numbers)
    return f"{low:g}" if low == high else f"{low:g}–{high:g}"


def _short(text: str) -> str:
    shown = printable(text[: _MOST_TEXT + 1])
    return shown if len(shown) <= _MOST_TEXT else shown[: _MOST_TEXT - 1] + "…"


def local(text: str, path: Path) -> str:
    """`text` without the folder that the file is in."""
    return printable(text.replace(str(path), path.name))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


# ---- pictures


def _thumbnail(path: Path) -> Path | None:
    """The picture of the adapter at `path`, beside it or in its run's folder; links that lead elsewhere are not
    followed."""
    for folder, picture in _candidates(path):
        try:
            if picture.is_file() and picture.resolve().is_relative_to(folder.resolve()):
                return picture
        except (OSError, RuntimeError):
            continue
    return None


def _candidates(path: Path) -> Iterator[tuple[Path, Path]]:
    for ending in _PICTURES:
        yield path.parent, path.with_name(path.stem + ending)
    run = path.parent.parent if path.parent.name in ("adapters", "diffusers") else path.parent
    try:
        if not (run / "config.toml").is_file():
            return
        samples = sorted((run / "samples").glob("*.png"), reverse=True)
    except OSError:
        return
    yield run, run / "samples" / f"{path.stem}.png"
    yield run, run / "adapter.png"
    for sample in samples[:1]:
        yield run, sample
