"""The fast path: how the steps of a run are computed faster than plainly, as far as the gradient gate lets it.

What is used is measured when a run begins and recorded in its checkpoints, so that a resumed run computes as before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from sd_lora.config.schema import TrainingConfig
from sd_lora.models.device import is_out_of_memory
from sd_lora.models.fast.allocation import keep_freed_memory
from sd_lora.models.fast.attention import keep_no_probabilities, keep_probabilities, plain_attentions
from sd_lora.models.fast.convolution import large_convolutions, slow_down_convolutions, speed_up_convolutions
from sd_lora.models.fast.linear import frozen_linears, slow_down_linears, speed_up_linears
from sd_lora.models.fast.ways import Choices
from sd_lora.storage.measured import keep_measured, measured, processor
from sd_lora.training.gate import Gate, Technique, Verdict
from sd_lora.training.loop import Trainer
from sd_lora.version import __version__

#: topics of what is kept about this machine
_WAYS, _VERDICTS = "ways", "gate"
_Switch = Callable[..., None]
#: for each technique its name, which modules it is for, and how it is switched on and off
_FASTER: list[tuple[str, Callable[[nn.Module], Sequence[nn.Module]], _Switch, _Switch]] = [
    ("convolutions as matrix products", large_convolutions, speed_up_convolutions, slow_down_convolutions),
    ("linear layers by oneDNN", frozen_linears, speed_up_linears, slow_down_linears),
    ("attention that keeps its probabilities", plain_attentions, keep_probabilities, keep_no_probabilities),
]


class FastPath:
    """Speeds up the steps of `trainer`."""

    def __init__(self, trainer: Trainer, training: TrainingConfig) -> None:
        self._trainer = trainer
        self._choices, self._verdict = Choices(), Verdict(())
        self._place = f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
        denoiser, device = trainer.computation.denoiser, trainer.computation.device
        if training.fast == "auto" and device.type == "cpu":
            keep_freed_memory()  # which changes no value
        self._techniques: list[Technique] = []
        if training.compile:
            self._techniques.append(Technique("training.compile", denoiser.compile, partial(_uncompile, denoiser)))
        elif training.fast == "auto":
            self._techniques += faster_ways(denoiser, self._choices)

    def begin(self, accelerator: Accelerator, facts: Mapping[str, Any]) -> tuple[str, ...]:
        """Choose what to use for a run from its first step; sentences on what cannot be used. `facts` are those of the
        run (`facts_of`): the same model and layers are checked once on a machine."""
        if not self._techniques:
            return ()
        self._learn()
        decided: list[Any] = [None]
        if accelerator.is_main_process:
            key = self._key(facts)
            known = _remembered(key)
            self._verdict = known or self._judge(key)  # which leaves on what it found good
            decided = [(self._verdict, self._choices.known)]
            if known is not None:
                self._switch_on()
        if accelerator.num_processes > 1:
            broadcast_object_list(decided)
            if not accelerator.is_main_process:
                self._verdict = decided[0][0]
                self._choices.known.update(decided[0][1])
                self._switch_on()
        return self._verdict.notes

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Compute as the run did whose `facts` these are."""
        self._learn()
        self._choices.known.update(facts.get("ways", {}))
        self._verdict = Verdict(tuple(facts.get("used", ())))
        self._switch_on()

    @property
    def facts(self) -> dict[str, Any]:
        """For a checkpoint: what is used, and how each shape is computed."""
        return {"used": list(self._verdict.used), "ways": dict(self._choices.known)}

    def keep(self) -> None:
        """Keep what was measured for later runs on this machine."""
        if self._choices.new:
            self._choices.new = False
            keep_measured(_WAYS, {self._place: {**measured(_WAYS).get(self._place, {}), **self._choices.known}})

    def _learn(self) -> None:
        known = measured(_WAYS).get(self._place)
        if isinstance(known, dict):
            self._choices.known.update((shape, way) for shape, way in known.items() if isinstance(way, str))

    def _switch_on(self) -> None:
        for technique in self._techniques:
            technique.off()
            if technique.name in self._verdict.used:
                technique.on()

    def _judge(self, key: str) -> Verdict:
        trainer = self._trainer
        exact = next(trainer.computation.denoiser.parameters()).dtype is torch.float32
        try:
            gate = Gate(trainer.parameters, trainer.first_loss, exact=exact)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return Verdict(())  # the loop then says so, and computes more leanly
        if not gate.is_finite:
            return Verdict(())  # the first step says so
        verdict = gate.choose(self._techniques)
        keep_measured(_VERDICTS, {key: {"used": verdict.used, "notes": verdict.notes}})
        self.keep()
        return verdict

    def _key(self, facts: Mapping[str, Any]) -> str:
        trainer = self._trainer
        sizes = sorted(group.size for group in trainer.computation.material.data.schedule.groups(0))
        which = {name: facts.get(name) for name in ("base", "text", "modules", "dtype")}
        names = [technique.name for technique in self._techniques]
        versions = [__version__, version("diffusers")]
        everything = [self._place, versions, names, which, sizes, trainer.micro_batch, trainer.recomputed]
        return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def faster_ways(denoiser: nn.Module, choices: Choices) -> list[Technique]:
    """The techniques that `denoiser` has modules for, each computing shapes as `choices` say."""
    return [
        Technique(name, partial(on, denoiser, choices), partial(off, denoiser))
        for name, modules, on, off in _FASTER
        if modules(denoiser)
    ]


def _remembered(key: str) -> Verdict | None:
    kept = measured(_VERDICTS).get(key)
    if not isinstance(kept, dict) or not all(isinstance(kept.get(part), list) for part in ("used", "notes")):
        return None
    return Verdict(tuple(kept["used"]), tuple(kept["notes"]))


def _uncompile(module: nn.Module) -> None:
    module._compiled_call_impl = None
