"""`verify_adapter`: does a file load completely, into a base and in each program that people use?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from sd_lora.adapters.adapter import Adapter, base_name
from sd_lora.adapters.clients import ClientAnswer, answers
from sd_lora.adapters.keys import understood
from sd_lora.adapters.parts import facts_of
from sd_lora.config.schema import ModelConfig
from sd_lora.errors import AdapterError
from sd_lora.models.kinds import kind_of
from sd_lora.models.opening import load_named
from sd_lora.storage.safetensors_header import TensorInfo, read_header


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
    header, metadata = read_header(path)
    pipe, family = (None, None) if model is None else load_named(model)
    keys, _ = understood(header)
    shapes = {key.name: header[text].shape for text, key in keys.items() if key.role == "down"}
    kind = kind_of({name: shape for name, shape in shapes.items() if len(shape) > 1}, metadata)
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
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    facts = facts_of({k: info.shape for k, info in header.items()}, metadata, _alphas(path, header), kind, length)
    name = base_name(pipe) if pipe is not None else ""
    return Verification(str(path), kind, name, len(facts.parts), tuple(problems), answers(facts))


def _alphas(path: Path, header: Mapping[str, TensorInfo]) -> dict[str, float]:
    """The values of all alphas; an unreadable one is left out."""
    keys = [key for key, info in header.items() if key.endswith(".alpha") and info.shape in ((), (1,))]
    try:
        with safe_open(path, "pt") as file:
            return {key: float(file.get_tensor(key)) for key in keys}
    except (SafetensorError, OSError):
        return {}
