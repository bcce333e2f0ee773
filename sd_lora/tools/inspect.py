"""`inspect_adapter`: what is in an adapter file, without loading a base model."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sd_lora.adapters.file import HASH_KEY, has_changed, read_adapter
from sd_lora.adapters.keys import MODULES_KEY, layout_of, understood
from sd_lora.adapters.source import open_source
from sd_lora.lora.variants import called
from sd_lora.models.kinds import family_of_adapter, family_of_kind, kind_of


@dataclass(frozen=True)
class AdapterReport:
    """Facts of an adapter file. `ranks`: rank → modules; `targets`: component and group → modules; `norms`: part →
    Frobenius norm of its ΔW at strength 1 (of a DoRA, without its magnitudes); `strength`: the recommended one, if one
    was measured."""

    path: str
    bytes: int
    base: str
    family: str
    trigger: str
    strength: str
    layout: str
    variant: str
    dtypes: tuple[str, ...]
    modules: int
    targets: dict[str, int]
    parameters: int
    ranks: dict[int, int]
    alphas: dict[float, int]
    norms: dict[str, float]
    metadata: dict[str, str]
    embeddings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Label and value of each fact, for a table."""
        return [
            ("file", f"{self.path} ({self.bytes / 1024:,.0f} kB)"),
            ("base model", self.base or "not recorded"),
            ("family", self.family or "not recorded"),
            ("trigger word", self.trigger or "none"),
            ("recommended strength", self.strength or "not measured"),
            ("layout", f"{self.layout}, {', '.join(self.dtypes)}"),
            ("variant", self.variant),
            ("modules", f"{self.modules} ({self.parameters:,} parameters)"),
            ("targets", ", ".join(f"{group} ({count})" for group, count in self.targets.items())),
            ("rank", ", ".join(f"{rank} (× {count})" for rank, count in self.ranks.items())),
            ("alpha", ", ".join(f"{alpha:g} (× {count})" for alpha, count in self.alphas.items())),
            *((f"norm of {block}", f"{norm:.3f}") for block, norm in self.norms.items()),
            *([("embeddings", ", ".join(self.embeddings))] if self.embeddings else []),
            *(("note", note) for note in self.notes),
        ]


def inspect_adapter(path: str | Path) -> AdapterReport:
    """Read an adapter and report on it. Raises AdapterError for a file that is not a complete adapter."""
    weights, metadata = read_adapter(path, "numpy")
    source = open_source(path)
    shapes = {name: w.shape for name, w in weights.items()}
    kind, family = kind_of(shapes, metadata), family_of_adapter(shapes, metadata)
    # ``unet.….attn2.to_k`` → ``unet attn``
    targets = [f"{name.partition('.')[0]} {family.group_of(name) or 'other'}" for name in weights]
    norms: dict[str, float] = {}
    for name, w in weights.items():
        part = ".".join(family.part_of(name)[0])
        norms[part] = norms.get(part, 0.0) + w.squared_norm
    return AdapterReport(
        path=str(path),
        bytes=source.bytes,
        base=metadata.get("sdlora.base") or metadata.get("ss_sd_model_name", ""),
        family=metadata.get("sdlora.family") or (family_of_kind(kind).name if kind else ""),
        trigger=metadata.get("sdlora.trigger") or metadata.get("modelspec.trigger_phrase", ""),
        strength=metadata.get("sdlora.strength", ""),
        layout=layout_of(understood(source.header)[0].values()),
        variant=called(w.variant for w in weights.values()),
        dtypes=tuple(sorted({info.dtype for key, info in source.header.items() if not key.endswith(".alpha")})),
        modules=len(weights),
        targets=dict(sorted(Counter(targets).items())),
        parameters=sum(math.prod(shape) for w in weights.values() for shape in w.shapes.values()),
        ranks=dict(sorted(Counter(w.rank for w in weights.values()).items())),
        alphas=dict(sorted(Counter(w.alpha for w in weights.values()).items())),
        norms={block: value**0.5 for block, value in sorted(norms.items())},
        metadata={key: value for key, value in sorted(metadata.items()) if key != MODULES_KEY},
        embeddings=tuple(sorted(source.embeddings)),
        notes=(f"its values are not those whose hash it records ({HASH_KEY})",) if has_changed(source) else (),
    )
