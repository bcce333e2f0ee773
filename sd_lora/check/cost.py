"""What a step of a base model costs on this machine, in seconds and bytes; kept, so that it is measured once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from sd_lora.data.exposures import Schedule
from sd_lora.data.pictures.views import View
from sd_lora.models.opening import ModelFamily, OpenBase, is_empty
from sd_lora.models.quantize import is_quantized
from sd_lora.models.recompute import Recomputed, recompute
from sd_lora.storage.measured import keep_measured, measured, processor

#: multiply-adds (weights × latent places × pictures) that a CPU is asked for in a probe; more is probed smaller
_PROBE = 2.5e11
#: and those of a step that takes no time worth saving
_CHEAP = 1e10
#: cheap steps are timed more than once, up to these many and these seconds: on a busy machine any one may be slow
_TRIES, _TRY_SECONDS = 5, 0.5
_TOPIC = "costs"


@dataclass(frozen=True)
class Cost:
    """What a step costs on a device: its `seconds`, if they are known, the bytes that are `resident` beside it, the
    bytes that its `activations` take for the backward pass, and what the figures are based on."""

    seconds: float | None
    resident: int
    activations: int
    basis: str

    def of(self, steps: int) -> tuple[float | None, int, str]:
        """Seconds and bytes of a run of `steps` steps, and their basis."""
        seconds = None if self.seconds is None else self.seconds * steps
        return seconds, self.resident + self.activations, self.basis


def cost_key(base: OpenBase, schedule: Schedule, *, recomputed: Recomputed = False, **more: Any) -> str:
    """What the cost of a step of a run with this `schedule` depends on, and `more` that JSON can hold, as a hash."""
    denoiser, device = getattr(base.pipe, base.family.denoiser), base.device
    config = {key: str(fact) for key, fact in getattr(denoiser, "config", {}).items() if not key.startswith("_")}
    facts = {
        "machine": [torch.cuda.get_device_name(device) if device.type == "cuda" else processor(), device.type],
        "threads": torch.get_num_threads(),
        "versions": [torch.__version__, version("diffusers"), version("transformers")],
        "model": [type(denoiser).__name__, str(base.dtype), config],
        "sizes": sorted({view.size for image in schedule.images for views in image.views for view in views}),
        "batch": schedule.batch_size,
        "recomputed": recomputed,
        **more,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def kept_cost(key: str, base: OpenBase) -> Cost | None:
    """The cost that was kept under `key`, beside what is resident now."""
    known = measured(_TOPIC).get(key)
    if not isinstance(known, dict) or not isinstance(known.get("activations"), int):
        return None
    seconds = known.get("seconds")
    seconds = float(seconds) if isinstance(seconds, int | float) and seconds > 0 else None
    return Cost(seconds, _resident(base.family, base.pipe, base.device), known["activations"], str(known.get("basis")))


def keep_cost(key: str, cost: Cost) -> Cost:
    """Keep `cost` under `key` for later runs on this machine."""
    keep_measured(_TOPIC, {key: {"seconds": cost.seconds, "activations": cost.activations, "basis": cost.basis}})
    return cost


def keep_seconds(key: str, seconds: float) -> None:
    """Keep how long the steps of a run really took, beside what is known of them."""
    known = measured(_TOPIC).get(key)
    if isinstance(known, Mapping):
        keep_measured(_TOPIC, {key: {**known, "seconds": seconds, "basis": "the steps of an earlier run like this"}})


def expect(base: OpenBase, schedule: Schedule, key: str, recomputed: Recomputed, *, timed: bool) -> Cost:
    """What a step will cost, from what is kept under `key` as far as possible.

    While the denoiser has no weights, its activations are counted without computing anything. Steps are only `timed`
    if that is asked for, or cheap: the run itself then shows what they take.
    """
    family, pipe, cost = base.family, base.pipe, kept_cost(key, base)
    if cost is None and is_empty(getattr(pipe, family.denoiser)):
        largest, device = _largest(schedule), torch.device("meta")
        count = _step(family, pipe, device, largest, schedule.batch_size, recomputed)
        cost = Cost(None, _resident(family, pipe, base.device), count, "the sizes of its tensors")
        keep_cost(key, cost)
    cheap = family.work(pipe, _largest(schedule).size) * schedule.batch_size <= _CHEAP
    if cost is None or (cost.seconds is None and (timed or cheap)):
        base.fill(family.denoiser)
        timing = measure(family, pipe, base.device, schedule, recomputed)
        cost = keep_cost(key, replace(cost, seconds=timing.seconds, basis=timing.basis) if cost else timing)
    return cost


def measure(
    family: ModelFamily, pipe: Any, device: torch.device, schedule: Schedule, recomputed: Recomputed = False
) -> Cost:
    """What a step of the base model costs on `device`, by timing one that computes `recomputed` again.

    A base that is large for a CPU is tried on fewer pixels and one picture, and the figures scaled: a rough estimate.
    """
    largest = _largest(schedule)
    probe, batch = largest, schedule.batch_size
    grain = family.grain(pipe)
    if device.type == "cpu" and family.work(pipe, probe.size) * batch > _PROBE:
        batch = 1
        while family.work(pipe, probe.size) > _PROBE and min(probe.size) > grain:
            width, height = (max(grain, int(0.8 * side) // grain * grain) for side in probe.size)
            probe = View((width, height))
    scale = largest.size[0] * largest.size[1] * schedule.batch_size / (probe.size[0] * probe.size[1] * batch)
    slower = family.work(pipe, largest.size) * schedule.batch_size / (family.work(pipe, probe.size) * batch)
    for part in family.parts(pipe):
        part.to(device)
    began, saved, seconds = time.perf_counter(), 0, list[float]()
    while not seconds or (len(seconds) < _TRIES and time.perf_counter() - began < _TRY_SECONDS):
        started = time.perf_counter()
        saved = _step(family, pipe, device, probe, batch, recomputed)
        seconds.append(time.perf_counter() - started)
    how = "a step of the base model, timed here"
    how += f" at {probe.size[0]} × {probe.size[1]} px and scaled by {scale:.0f}" if scale > 1 else ""
    return Cost(min(seconds) * slower, _resident(family, pipe, device), int(saved * scale), how)


def _largest(schedule: Schedule) -> View:
    views = (view for image in schedule.images for views in image.views for view in views)
    return max(views, key=lambda view: view.size[0] * view.size[1])


def _resident(family: ModelFamily, pipe: Any, device: torch.device) -> int:
    """Bytes in use on `device` once the base model is there."""
    if device.type == "cuda":
        here, missing = torch.cuda.memory_allocated(), family.parts(pipe)
        missing = [part for part in missing if next(part.parameters()).device.type != "cuda"]
    else:
        here, missing = psutil.Process().memory_info().rss, [p for p in family.parts(pipe) if is_empty(p)]
    return int(here + sum(parameter.nbytes for part in missing for parameter in part.parameters()))


def _step(family: ModelFamily, pipe: Any, device: torch.device, view: View, batch: int, what: Recomputed) -> int:
    """One forward and, but for a denoiser without weights, backward pass, as in a step, without layers; the bytes that
    autograd kept for the latter."""
    denoiser, kept = getattr(pipe, family.denoiser), dict[int, Any]()
    own = {p.untyped_storage()._cdata for p in denoiser.parameters() if not is_quantized(p)}  # and views of them
    with torch.no_grad():
        conditioning = {
            key: states.to(device).expand(batch, *states.shape[1:])
            for key, states in family.encode_captions(pipe, [""]).items()
        }
    framing = [view.framing(*view.size)] * batch
    conditioning |= {key: rows.to(device) for key, rows in family.encode_framing(framing).items()}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter) and tensor.untyped_storage()._cdata not in own:
            kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    noisy = torch.cat([family.noise(pipe, view.size, 0)] * batch).requires_grad_()
    timesteps = torch.zeros(batch, dtype=torch.long, device=device)
    recompute(denoiser, what)
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), _FusedAttention():
            prediction = family.denoise(denoiser, noisy, timesteps, conditioning)
        saved = sum(storage.nbytes() for storage in kept.values())
        kept.clear()
        if device.type != "meta":
            prediction.float().square().mean().backward()
    finally:
        recompute(denoiser, False)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return saved


class _FusedAttention(TorchFunctionMode):
    """On tensors without storage, where torch computes attention in its plain form, what the fused forms of real
    devices keep for the backward pass."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            query, key, value = (*args, *(kwargs[name] for name in ("query", "key", "value")[len(args) :]))[:3]
            if query.is_meta:
                return _Attention.apply(query, key, value)
        return func(*args, **(kwargs or {}))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        ctx.save_for_backward(query, key, value, out)
        return out
