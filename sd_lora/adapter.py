"""`Adapter`: LoRA weights that can be created for a base model, injected into it, saved and loaded.

Loading needs no base model; whether an adapter fits one wholly is decided, and refused if not, when it is injected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from sd_lora.adapter_file import Weights, read_adapter, write_adapter
from sd_lora.errors import AdapterError, some
from sd_lora.layouts import name_of_module
from sd_lora.lora import VARIANTS, LoraLayer, Strength, Target, eject, fuse, inject, new_layer, set_strength
from sd_lora.tinybase import tiny_base_path

COMPONENTS = ("unet", "text_encoder")


class Adapter:
    """LoRA layers by module name (``unet.….to_q``) and the metadata of the file they came from or will go to.

    >>> with Adapter.load("my-style.safetensors").injected(pipe, strength=0.8):
    ...     pipe("a lighthouse at dusk").images[0]
    """

    def __init__(self, weights: Mapping[str, Weights], metadata: Mapping[str, str], label: str = "adapter") -> None:
        self._weights = dict(weights)
        self._layers: dict[str, LoraLayer] = {}
        self._attached: list[tuple[str, dict[str, nn.Module]]] = []
        self._strength: Strength = 1.0
        self.metadata = dict(metadata)
        self.label = label

    @classmethod
    def create(cls, targets: Sequence[Target], metadata: Mapping[str, str] | None = None, *, seed: int = 0) -> Self:
        """A fresh adapter for `targets`: it changes nothing until trained. The same seed gives the same start."""
        adapter = cls({}, metadata or {}, "new adapter")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            for target in targets:
                name = name_of_module(*target.name.split(".", 1))
                adapter._layers[name] = new_layer(target.module, target.rank, target.alpha)
        return adapter

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a ``.safetensors`` adapter; AdapterError for a damaged, non-finite or foreign file."""
        weights, metadata = read_adapter(path)
        return cls(weights, metadata, str(path))

    def save(self, path: str | Path, *, dtype: str = "float16") -> Path:
        """Write the default file (docs/file-format.md), then read it back to prove it is whole."""
        path = Path(path)
        weights = self.weights
        write_adapter(path, weights, self.metadata, dtype)
        lost = set(weights) ^ set(read_adapter(path)[0])
        if lost:
            raise AdapterError(f"{path} did not keep {len(lost)} of {len(weights)} modules ({some(sorted(lost), 2)})")
        return path

    @property
    def weights(self) -> dict[str, Weights]:
        """The current weights by module name."""
        if not self._layers:
            return dict(self._weights)
        return {
            n: Weights(layer.tensors()["down"], layer.tensors()["up"], layer.alpha) for n, layer in self._layers.items()
        }

    @property
    def trigger(self) -> str:
        """The trigger word it was trained with, or an empty string."""
        return self.metadata.get("sdlora.trigger", "")

    @property
    def base(self) -> str:
        """The name of the base model it was trained on, or an empty string."""
        return self.metadata.get("sdlora.base", "")

    @property
    def is_injected(self) -> bool:
        return bool(self._attached)

    def parameters(self) -> list[nn.Parameter]:
        """All trainable weights, float32, in a fixed order."""
        return [p for layer in self._layers.values() for p in layer.parameters()]

    @property
    def strength(self) -> Strength:
        return self._strength

    @strength.setter
    def strength(self, value: Strength) -> None:
        set_strength(self._layers.values(), value)
        self._strength = value

    def inject(self, pipe: Any, strength: Strength = 1.0, *, name: str = "default") -> Self:
        """Attach to the components of a diffusers pipeline. `strength` is one number, or a tensor with one per sample.

        Raises AdapterError, with nothing attached, unless every module of the adapter exists in the base with the same
        shape.
        """
        modules = self._fitting_modules(pipe)
        occupied = {id(module) for _, there in self._attached for module in there.values()}
        if any(id(module) in occupied for module in modules.values()):
            raise AdapterError(f"{self.label} is already injected into {base_name(pipe)}; eject it first")
        if not self._layers:
            self._layers = {n: _layer_of(w, modules[n]) for n, w in self._weights.items()}
        for key, layer in self._layers.items():
            layer.to(modules[key].weight.device)  # type: ignore[arg-type]
        before = self._strength
        self.strength = strength
        try:
            inject(self._layers, modules, name)
        except AdapterError:
            self.strength = before
            raise
        self._attached.append((name, modules))
        return self

    def eject(self) -> None:
        """Take it off every pipeline it was injected into; each is again what it was, bit for bit."""
        for name, modules in self._attached:
            eject(modules.values(), name)
        self._attached.clear()

    @contextmanager
    def injected(self, pipe: Any, strength: Strength = 1.0, *, name: str = "default") -> Iterator[Self]:
        """Inject for the length of a ``with`` block."""
        self.inject(pipe, strength, name=name)
        mine = self._attached[-1]
        try:
            yield self
        finally:
            if any(entry is mine for entry in self._attached):
                self._attached = [entry for entry in self._attached if entry is not mine]
                eject(mine[1].values(), mine[0])

    def fuse(self, pipe: Any, strength: float = 1.0) -> None:
        """Add the adapter to the weights of `pipe` for good."""
        modules = self._fitting_modules(pipe)
        if self._attached:
            raise AdapterError(f"{self.label} is injected; eject it before fusing, or its effect would double")
        layers = self._layers or {n: _layer_of(w, modules[n]) for n, w in self._weights.items()}
        fuse(layers, modules, strength)

    def _fitting_modules(self, pipe: Any) -> dict[str, nn.Module]:
        modules = modules_of(pipe)
        weights = self.weights
        missing = [name for name in weights if name not in modules]
        wrong = [name for name, w in weights.items() if name in modules and not _fits(w, modules[name])]
        problems = []
        if missing:
            problems.append(f"{len(missing)} of its {len(weights)} modules do not exist there ({some(missing, 2)})")
        if wrong:
            problems.append(f"{len(wrong)} of its {len(weights)} modules have another shape ({some(wrong, 2)})")
        if problems:
            trained = f" (trained on {self.base})" if self.base else ""
            raise AdapterError(
                f"{self.label}{trained} does not fit base model {base_name(pipe)}: {'; '.join(problems)}"
            )
        return {name: modules[name] for name in weights}


def modules_of(pipe: Any) -> dict[str, nn.Module]:
    """Modules of a pipeline that can carry a layer, by name; refuses fused attention projections."""
    found: dict[str, nn.Module] = {}
    for component in COMPONENTS:
        root = getattr(pipe, component, None)
        if not isinstance(root, nn.Module):
            continue
        for path, module in root.named_modules():
            if type(getattr(module, "processor", None)).__name__.startswith("Fused"):
                raise AdapterError(
                    f"the attention projections of {component} are fused, so LoRA layers would never be called; "
                    "call pipe.unfuse_qkv_projections() first"
                )
            if type(module) in VARIANTS["lora"] and ".loras." not in f".{path}.":
                found[name_of_module(component, path)] = module
    return found


def base_name(pipe: Any) -> str:
    """What to call the base model of a pipeline in files and messages: its folder's name, never a path."""
    path = Path(str(getattr(pipe, "name_or_path", "") or ""))
    if path == tiny_base_path():
        return "tiny"
    return "tiny (not the embedded base)" if path.name == "tiny" else path.name or type(pipe).__name__


def _fits(weights: Weights, module: nn.Module) -> bool:
    shape: torch.Size = module.weight.shape  # type: ignore[union-attr, assignment]
    return weights.up.shape[0] == shape[0] and weights.down.shape[1:] == shape[1:]


def _layer_of(weights: Weights, module: nn.Module) -> LoraLayer:
    layer = new_layer(module, weights.rank, weights.alpha)
    layer.load_tensors(weights.down, weights.up)
    return layer
