"""`Adapter`: LoRA weights that can be created for a base model, injected into it, saved and loaded.

Loading needs no base model. When it is injected, an adapter that does not fit the base completely is refused.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from sd_lora.adapters.file import read_adapter
from sd_lora.adapters.fit import base_name, layer_of, modules_of, other_kind
from sd_lora.adapters.keys import name_of_module
from sd_lora.adapters.strengths import Strengths, strengths_by_module
from sd_lora.adapters.writing import write_adapter
from sd_lora.errors import AdapterError, nearest, some
from sd_lora.lora.inject import eject, fuse, inject
from sd_lora.lora.layers import Layer, checked_strength
from sd_lora.lora.targets import Target
from sd_lora.lora.variants import VARIANTS, called, new_layer
from sd_lora.lora.weights import Weights
from sd_lora.models import families
from sd_lora.models.families import ModelFamily
from sd_lora.models.kinds import family_of_adapter
from sd_lora.models.quantize import is_quantized


@dataclass(frozen=True, eq=False)
class _Attachment:
    """One injection: the name, the modules of the adapter, and the names of all modules of the base."""

    name: str
    modules: dict[str, nn.Module]
    base: Collection[str]


class Adapter:
    """LoRA layers by module name (``unet.….to_q``) and the metadata of the file they came from or will go to.

    >>> with Adapter.load("my-style.safetensors").injected(pipe, strength=0.8):
    ...     pipe("a lighthouse at dusk").images[0]
    """

    def __init__(self, weights: Mapping[str, Weights], metadata: Mapping[str, str], label: str = "adapter") -> None:
        self._weights = dict(weights)
        self._layers: dict[str, Layer] = {}
        self._attached: list[_Attachment] = []
        self._strength: Strengths = 1.0
        self.metadata = dict(metadata)
        self.label = label

    @classmethod
    def create(
        cls,
        targets: Sequence[Target],
        metadata: Mapping[str, str] | None = None,
        *,
        seed: int = 0,
        variant: str = "",
        factor: int = 0,
    ) -> Self:
        """A fresh adapter for `targets`: it changes nothing until trained. The same seed gives the same start.

        `variant` is one of `VARIANTS` that are trained; without one it is what `metadata` says, or "lora". `factor`:
        that of LoKr.
        """
        variant = variant or (metadata or {}).get("sdlora.variant", "lora")
        adapter = cls({}, {**(metadata or {}), "sdlora.variant": variant}, "new adapter")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            for target in targets:
                name = name_of_module(*target.name.split(".", 1))
                adapter._layers[name] = new_layer(target.module, target.rank, target.alpha, variant, factor)
        return adapter

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a ``.safetensors`` adapter; AdapterError for a damaged, non-finite or foreign file."""
        weights, metadata = read_adapter(path)
        return cls(weights, metadata, str(path))

    def save(self, path: str | Path, *, dtype: str = "float16", layout: str = "") -> Path:
        """Write the file and check it: in "kohya"'s keys, or in those of "diffusers"; by default in those that most
        programs read for its family (docs/file-format.md)."""
        path = Path(path)
        write_adapter(path, self.weights, {**self.metadata, "sdlora.variant": self.variant}, dtype, layout)
        return path

    def __repr__(self) -> str:
        """``Adapter(tiny, rank 16, trigger 'xlora', 114 modules)``."""
        weights = self.weights
        ranks = sorted({w.rank for w in weights.values()})
        facts = [
            self.base or "base model unknown",
            f"rank {ranks[0]}" + (f" to {ranks[-1]}" if len(ranks) > 1 else "") if ranks else "",
            "" if self.variant == "lora" else VARIANTS[self.variant].title,
            f"trigger {self.trigger!r}" if self.trigger else "",
            f"{len(weights)} module{'' if len(weights) == 1 else 's'}",
        ]
        return f"Adapter({', '.join(filter(None, facts))})"

    @property
    def weights(self) -> dict[str, Weights]:
        """The current weights by module name."""
        if not self._layers:
            return dict(self._weights)
        return {name: Weights(layer.variant, layer.tensors(), layer.alpha) for name, layer in self._layers.items()}

    @property
    def variant(self) -> str:
        """The variant of its modules; of several, the last in `VARIANTS`."""
        return called(w.variant for w in self.weights.values()) or "lora"

    @property
    def trigger(self) -> str:
        """The trigger word it was trained with, or an empty string."""
        return self.metadata.get("sdlora.trigger", "")

    @property
    def base(self) -> str:
        """The name of the base model it was trained on, or an empty string."""
        return self.metadata.get("sdlora.base", "")

    @property
    def guidance(self) -> float | None:
        """The guidance that a base model with distilled guidance got in its training; None if no number is recorded."""
        try:
            return float(self.metadata["sdlora.guidance"])
        except (KeyError, ValueError):
            return None

    @property
    def is_injected(self) -> bool:
        return bool(self._attached)

    @property
    def layers(self) -> dict[str, Layer]:
        """The layers by module name; a loaded adapter has none until it is injected."""
        return dict(self._layers)

    @property
    def targets(self) -> dict[str, nn.Module]:
        """The modules of the base that the layers are injected into, by name."""
        return dict(self._attached[-1].modules) if self._attached else {}

    def parameters(self, *components: str) -> list[nn.Parameter]:
        """All trainable weights, float32, in a fixed order; or only those in `components`, e.g. ``"unet"``."""
        known = families.components()
        for component in components:
            if component not in known:
                raise AdapterError(f'no component is called "{component}"; {nearest(component, known)}')
        chosen = components or known
        return [p for name, layer in self._layers.items() if name.split(".")[0] in chosen for p in layer.parameters()]

    @property
    def family(self) -> ModelFamily:
        """The family of the base model it is for."""
        return family_of_adapter({name: w.shape for name, w in self.weights.items()}, self.metadata)

    @property
    def strength(self) -> Strengths:
        """What was set: a number, a tensor with one per sample of a batch, or strengths by component and block as
        `strengths_by_module` takes them. Setting what does not fit raises AdapterError and changes nothing."""
        return self._strength

    @strength.setter
    def strength(self, value: Strengths) -> None:
        self._set_strength(value, self._attached[-1].base if self._attached else None)

    def scale(self, factor: float | Tensor) -> None:
        """Apply every module with `factor` (a number, or a tensor with one per sample of a batch) times its strength,
        which `strength` still returns."""
        strengths = self._by_module(self._strength, self._attached[-1].base if self._attached else None)
        for name, layer in self._layers.items():
            layer.strength = checked_strength(strengths[name] * factor)

    def inject(self, pipe: Any, strength: Strengths = 1.0, *, name: str = "default") -> Self:
        """Attach to the components of a diffusers pipeline, with a strength as the property of that name takes it.

        Raises AdapterError, with nothing attached, unless every module of the adapter exists in the base with the same
        shape, and the base is of the kind that the adapter was trained on.
        """
        modules, base = self._fitting_modules(pipe)
        occupied = {id(module) for attachment in self._attached for module in attachment.modules.values()}
        if any(id(module) in occupied for module in modules.values()):
            raise AdapterError(f"{self.label} is already injected into {base_name(pipe)}; eject it first")
        if not self._layers:
            self._layers = {n: layer_of(w, modules[n]) for n, w in self._weights.items()}
        for key, layer in self._layers.items():
            layer.to(modules[key].weight.device)  # type: ignore[arg-type]
        before = self._strength
        self._set_strength(strength, base)
        try:
            inject(self._layers, modules, name)
        except AdapterError:
            self._set_strength(before)
            raise
        self._attached.append(_Attachment(name, modules, base))
        return self

    def eject(self) -> None:
        """Remove it from every pipeline it was injected into; each is again what it was, bit for bit."""
        for attachment in self._attached:
            eject(attachment.modules.values(), attachment.name)
        self._attached.clear()

    @contextmanager
    def injected(self, pipe: Any, strength: Strengths = 1.0, *, name: str = "default") -> Iterator[Self]:
        """Inject for the length of a ``with`` block."""
        self.inject(pipe, strength, name=name)
        attachment = self._attached[-1]
        try:
            yield self
        finally:
            if attachment in self._attached:
                self._attached.remove(attachment)
                eject(attachment.modules.values(), attachment.name)

    def fuse(self, pipe: Any, strength: Strengths = 1.0) -> None:
        """Add the adapter to the weights of `pipe` permanently. There is no strength per sample here."""
        modules, base = self._fitting_modules(pipe)
        if self._attached:
            raise AdapterError(f"{self.label} is injected; eject it before fusing, or its effect would double")
        layers = self._layers or {n: layer_of(w, modules[n]) for n, w in self._weights.items()}
        fuse(layers, modules, self._by_module(strength, base))

    def _set_strength(self, value: Strengths, base: Collection[str] | None = None) -> None:
        strengths = self._by_module(value, base)
        for name, layer in self._layers.items():
            layer.strength = strengths[name]
        self._strength = copy.deepcopy(value) if isinstance(value, Mapping) else value

    def _by_module(self, value: Strengths, base: Collection[str] | None) -> dict[str, float | Tensor]:
        return strengths_by_module(self._layers or self._weights, value, self.family, base)

    def misfits(self, pipe: Any, modules: Mapping[str, nn.Module] | None = None) -> list[str]:
        """Why it does not fit `pipe`, a clause each; empty if it fits. `modules`: those of `pipe`, if known."""
        modules = modules_of(pipe) if modules is None else modules
        weights, problems = self.weights, other_kind(self.metadata, pipe)
        count = f"of its {len(weights)} modules"
        for component in families.components():
            names = [name for name in weights if name.split(".")[0] == component]
            if names and getattr(pipe, component, pipe) is None:
                problems.append(f"{len(names)} {count} are for {component}, which this pipeline was loaded without")
                weights = {name: w for name, w in weights.items() if name not in names}
        missing = [name for name in weights if name not in modules]
        wrong = [
            name
            for name, w in weights.items()
            if name in modules and not w.row.fits(w.shapes, tuple(modules[name].weight.shape))  # type: ignore[arg-type]
        ]
        if missing:
            problems.append(f"{len(missing)} {count} do not exist in it ({some(missing, 2)})")
        if wrong:
            problems.append(f"{len(wrong)} {count} have another shape ({some(wrong, 2)})")
        return problems

    def _fitting_modules(self, pipe: Any) -> tuple[dict[str, nn.Module], Collection[str]]:
        """The modules of the layers, and the names of all modules of the base. AdapterError if they do not fit."""
        modules = modules_of(pipe)
        if problems := self.misfits(pipe, modules):
            trained = f" (trained on {self.base})" if self.base else ""
            raise AdapterError(
                f"{self.label}{trained} does not fit base model {base_name(pipe)}: {'; '.join(problems)}"
            )
        targets = {name: modules[name] for name in self.weights}
        row = next((w.row for w in self.weights.values() if w.row.needs_base), None)
        if row is not None and any(is_quantized(module.weight) for module in targets.values()):
            raise AdapterError(
                f"{self.label} holds {row.title}, which needs an unquantized base; leave model.quantize out"
            )
        if any(module.weight.is_meta for module in targets.values()):
            raise AdapterError(
                f"the weights of {base_name(pipe)} are offloaded module by module, which layers do not support; "
                "use pipe.enable_model_cpu_offload() instead"
            )
        return targets, modules.keys()
