"""`inspect_adapter`: what is in an adapter file, without loading a base model."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sd_lora.adapter_file import MODULES_KEY, Weights, read_adapter


@dataclass(frozen=True)
class AdapterReport:
    """Facts of an adapter file. `ranks`: rank → modules; `norms`: block → Frobenius norm of its ΔW, at strength 1."""

    path: str
    bytes: int
    base: str
    family: str
    trigger: str
    modules: int
    parameters: int
    ranks: dict[int, int]
    alphas: dict[float, int]
    norms: dict[str, float]
    metadata: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Label and value of each fact, for a table."""
        return [
            ("file", f"{self.path} ({self.bytes / 1024:,.0f} kB)"),
            ("base model", self.base or "not recorded"),
            ("family", self.family or "not recorded"),
            ("trigger word", self.trigger or "none"),
            ("modules", f"{self.modules} ({self.parameters:,} parameters)"),
            ("rank", ", ".join(f"{rank} (× {count})" for rank, count in self.ranks.items())),
            ("alpha", ", ".join(f"{alpha:g} (× {count})" for alpha, count in self.alphas.items())),
            *((f"norm of {block}", f"{norm:.3f}") for block, norm in self.norms.items()),
        ]


def inspect_adapter(path: str | Path) -> AdapterReport:
    """Read an adapter and report on it. Raises AdapterError for a file that is no whole adapter."""
    weights, metadata = read_adapter(path)
    norms: dict[str, float] = {}
    for name, w in weights.items():
        norms[_block(name)] = norms.get(_block(name), 0.0) + _squared_norm(w)
    return AdapterReport(
        path=str(path),
        bytes=Path(path).stat().st_size,
        base=metadata.get("sdlora.base") or metadata.get("ss_sd_model_name", ""),
        family=metadata.get("sdlora.family", ""),
        trigger=metadata.get("sdlora.trigger", ""),
        modules=len(weights),
        parameters=sum(w.down.numel() + w.up.numel() for w in weights.values()),
        ranks=dict(sorted(Counter(w.rank for w in weights.values()).items())),
        alphas=dict(sorted(Counter(w.alpha for w in weights.values()).items())),
        norms={block: value**0.5 for block, value in sorted(norms.items())},
        metadata={key: value for key, value in sorted(metadata.items()) if key != MODULES_KEY},
    )


def _block(name: str) -> str:
    """``unet.up_blocks.1.attentions…`` → ``unet.up_blocks.1``."""
    parts = name.split(".")
    return ".".join(parts[:3] if parts[1] in ("down_blocks", "up_blocks") else parts[:2])


def _squared_norm(w: Weights) -> float:
    """‖up @ down‖² scaled, from the small Gram matrices: no full ΔW is made."""
    down, up = w.down.flatten(1).double(), w.up.flatten(1).double()
    return float(((down @ down.T) * (up.T @ up)).sum()) * (w.alpha / w.rank) ** 2
