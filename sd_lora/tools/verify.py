"""`verify_adapter`: does a file load completely, into a base and in each program that people use?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.clients import ClientAnswer, answers
from sd_lora.adapters.file import shapes_of
from sd_lora.adapters.fit import base_name
from sd_lora.adapters.keys import understood
from sd_lora.adapters.parts import facts_of
from sd_lora.adapters.source import Source, open_source
from sd_lora.config.schema import ModelConfig
from sd_lora.errors import AdapterError
from sd_lora.models.kinds import kind_of
from sd_lora.models.opening import load_named


@dataclass(frozen=True)
class Verification:
    """`problems`: why sd_lora does not load the file completely; `clients`: what each program would load; the `kind` of
    base it is for ("" if nothing shows it) and the `base` it was tried on ("" if on none)."""

    path: str
    kind: str
    base: str
    modules: int
    problems: tuple[str, ...]
    clients: tuple[ClientAnswer, ...]

    @property
    def is_whole(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"whole": self.is_whole}


def verify_adapter(path: str | Path, model: ModelConfig | None = None) -> Verification:
    """Check the adapter at `path` by itself, on the base that `model` names if one is given, and by what
    is known of six programs' loaders.

    Raises AdapterError only for a file whose header cannot be read; everything else is reported.
    """
    path = Path(path)
    source = open_source(path)
    header, metadata = source.header, source.metadata
    pipe, family = (None, None) if model is None else load_named(model)
    keys, _ = understood(header)
    kind = kind_of(shapes_of(header, keys), metadata)
    if pipe is not None and family is not None:
        kind = family.kind(pipe).name
    problems: list[str] = []
    try:
        adapter = Adapter.load(path)
        if pipe is not None:
            with adapter.injected(pipe):
                pass
    except AdapterError as error:
        problems.append(str(error))
    with source.files[0][0].open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    shapes, bundled = {key: info.shape for key, info in source.spelled.items()}, bool(source.embeddings)
    facts = facts_of(shapes, metadata, _alphas(source), kind, length, bundled)
    name = base_name(pipe) if pipe is not None else ""
    return Verification(str(path), kind, name, len(facts.parts), tuple(problems), answers(facts))


def _alphas(source: Source) -> dict[str, float]:
    """The values of all alphas; an unreadable one is left out."""
    keys = [key for key, info in source.spelled.items() if key.endswith(".alpha") and prod(info.shape) == 1]
    try:
        with source.tensors() as tensor:
            return {key: float(tensor(key)) for key in keys}
    except (SafetensorError, OSError):
        return {}
