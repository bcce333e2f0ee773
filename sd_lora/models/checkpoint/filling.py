"""Models that are filled from a file: whether it has all of their weights and no others, and then each: copied once, or
where it is in the file if it is stored as it is used."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sd_lora.errors import BaseModelError, some
from sd_lora.models.checkpoint.keys import Place, fits
from sd_lora.models.checkpoint.scaled import is_mark, problems_of, scaled, scales_of
from sd_lora.models.contents import Header
from sd_lora.storage.safetensors_header import BASE_MODEL, TensorInfo, read_header

_FLOATS = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
#: the types whose values are used where they are in a file
_AS_STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
#: bytes that are read before a file is opened again: what was read of an open one counts as memory in use
_WINDOW = 64 * 2**20
#: of each component, where each of its parameters is
Places = Mapping[str, Mapping[str, Place]]


def problems_with(
    header: Header,
    parts: Mapping[str, nn.Module],
    where: Places,
    is_unused: Callable[[str], bool],
    keys: Collection[str] | None = None,
) -> str:
    """What keeps a file from filling `parts`: weights that are missing, do not fit or are unknown; "" if nothing does.
    `is_unused` says which other keys may be there; `keys` are those that count, all by default."""
    missing, wrong, used = [], [], set()
    for name, model in parts.items():
        for parameter, tensor in model.state_dict().items():
            place = where[name][parameter]
            used.add(place.key)
            stored, shape = header.tensors.get(place.key), tuple(tensor.shape)
            if stored is None:
                missing.append(place.key)
            elif stored.dtype not in _FLOATS:
                wrong.append(f"{place.key} is of type {stored.dtype}")
            elif not fits(place, stored.shape, shape):
                wrong.append(f"{place.key} is {list(stored.shape)} where {name} takes {list(shape)}")
    used |= {key for weight, keys in scales_of(header.tensors).items() if weight in used for key in keys}
    unknown = [
        key
        for key in (header.tensors if keys is None else keys)
        if key not in used and not is_unused(key) and not is_mark(key, header.tensors)
    ]
    problems = [
        f"{len(missing)} weights are missing ({few(missing)})" if missing else "",
        f"{len(wrong)} do not fit ({few(wrong)})" if wrong else "",
        f"{len(unknown)} are unknown ({few(unknown)})" if unknown else "",
    ]
    return ", ".join(filter(None, problems))


def check_scales(path: Path, label: str, header: Header) -> None:
    """BaseModelError if weights are scaled in a way that is not read."""
    try:
        with safe_open(path, framework="pt") as file:
            problems = problems_of(header.tensors, file.get_tensor)
    except (OSError, SafetensorError) as error:
        raise BaseModelError(f"{label} {path} cannot be read: {str(error).splitlines()[0]}") from error
    if problems:
        raise BaseModelError(
            f"{label} {path} has weights whose scales are not read: {some(problems, 2)}; name a file in float16 or "
            "bfloat16"
        )


def fill(path: Path, label: str, header: Header, model: Any, where: Mapping[str, Place], dtype: torch.dtype) -> None:
    """Give `model` its weights from the file, in `dtype`, those of float8 times their scales; `label` is for errors."""
    weights, bad, scales = {}, [], scales_of(header.tensors)
    shapes = {parameter: tuple(tensor.shape) for parameter, tensor in model.state_dict().items()}
    try:
        with reading(path) as read:
            for parameter, place in where.items():
                tensor = read(place.key)
                if place.key in scales:
                    tensor = scaled(tensor, read(scales[place.key][0]))
                stored = place.of(tensor, shapes[parameter])
                weights[parameter] = stored.to(dtype, copy=True, memory_format=torch.contiguous_format)
                if not torch.isfinite(weights[parameter]).all():
                    bad.append(place.key)
    except (OSError, SafetensorError) as error:
        raise BaseModelError(f"{label} {path} cannot be read: {str(error).splitlines()[0]}") from error
    if bad:
        raise BaseModelError(
            f"{label} {path} has {len(bad)} weights that are NaN or infinite in "
            f"{str(dtype).removeprefix('torch.')} ({few(bad)}); use another model.dtype or another file"
        )
    _assign(model, weights, f"{label} {path}")


def fill_as_named(paths: Sequence[Path], label: str, model: Any, dtype: torch.dtype) -> bool:
    """Give `model` its weights, in `dtype`, from files in diffusers' own layout; False, with nothing done, unless these
    hold exactly the weights that it has."""
    weights: dict[str, Tensor] = {}
    try:
        headers = {path: read_header(path, BASE_MODEL)[0] for path in paths}
        stored = {key: info for header in headers.values() for key, info in header.items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        known = _FLOATS.issuperset(info.dtype for info in stored.values())
        if not known or shapes != {key: info.shape for key, info in stored.items()}:
            return False
        for path, header in headers.items():
            with reading(path) as read:
                for key, info in header.items():
                    if (
                        _AS_STORED.get(info.dtype) is dtype
                        and info.start % dtype.itemsize == 0
                        and math.prod(info.shape)
                    ):
                        weights[key] = mapped(path, info)
                    else:
                        weights[key] = read(key).to(dtype, copy=True, memory_format=torch.contiguous_format)
    except (OSError, ValueError, SafetensorError, BaseModelError):
        return False  # what is wrong is found by whoever reads the files instead
    _assign(model, weights, label)
    return True


def _assign(model: Any, weights: Mapping[str, Tensor], label: str) -> None:
    """Make `weights` those of `model`, which has no storage yet."""
    model.load_state_dict(weights, strict=True, assign=True)
    for module in model.modules():  # the only buffer of these models, which no file has
        if getattr(module, "position_ids", None) is not None and module.position_ids.is_meta:
            module.position_ids = torch.arange(module.position_ids.shape[-1]).unsqueeze(0)
    empty = [key for key, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
    if empty:
        raise RuntimeError(f"{label} leaves parts that no checkpoint fills: {empty}")


def mapped(path: Path, info: TensorInfo) -> Tensor:
    """The tensor `info` of a safetensors file, without a copy: the system reads its values when they are used, and lets
    go of them when the tensor is freed. Writing to it does not change the file."""
    dtype, count = _AS_STORED[info.dtype], math.prod(info.shape)
    before = info.start % mmap.ALLOCATIONGRANULARITY
    with path.open("rb") as file:
        length = before + count * dtype.itemsize
        memory = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_COPY, offset=info.start - before)
    return torch.frombuffer(memory, dtype=dtype, count=count, offset=before).view(info.shape)


@contextmanager
def reading(path: Path) -> Iterator[Callable[[str], Tensor]]:
    """Reads tensors of a safetensors file by key, on the CPU; each is to be copied before the next is read."""
    with ExitStack() as opened:
        file, read = opened.enter_context(safe_open(path, framework="pt")), 0

        def tensor(key: str) -> Tensor:
            nonlocal file, read
            if read > _WINDOW:
                opened.close()
                file, read = opened.enter_context(safe_open(path, framework="pt")), 0
            found = file.get_tensor(key)
            read += found.nbytes
            return found

        yield tensor


def few(names: Iterable[str]) -> str:
    return some(sorted(set(names)), 2)
