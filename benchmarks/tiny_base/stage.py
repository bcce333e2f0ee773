"""One stage of the rebuild: a seeded, resumable training loop with a moving average and a checkpoint of tensors.

Shared by the VAE, the text encoder, the UNet and the classifier. Every random choice is a function of (seed, step), so
a stage that is interrupted and started again ends where an uninterrupted one would. With several processes each takes
its share of the step's batch and gradients are averaged: the batch, not the number of processes, defines the run.

A stage can also leave a snapshot in the repository: its averaged weights in float16. Where the work folder has nothing,
a stage goes on from its snapshot; the optimizer then starts anew, with a short warm-up.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, distributed, nn

SNAPSHOTS = Path(__file__).parent / "snapshots"
_WARM_UP = 200  # steps after a snapshot


def step_generator(seed: int, step: int) -> torch.Generator:
    """A generator that depends on nothing but `seed` and `step`."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step * 7919) % 2**62)


def cosine(peak: float, steps: int, least: float = 1e-6) -> Callable[[int], float]:
    """A learning rate by step: 100 steps of warm-up to `peak`, and a cosine over all `steps` down to `least`."""
    return lambda step: peak * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * step / steps)) + least


def picture_pool(file: Path, picture: Callable[[int], NDArray[np.uint8]], count: int) -> Tensor:
    """Pictures 0 to `count` - 1 (n, 3, side, side) uint8, drawn once and kept in `file`."""
    if not file.exists():
        with Pool() as workers:
            np.save(file, np.stack(workers.map(picture, range(count), chunksize=100)).transpose(0, 3, 1, 2))
    return torch.from_numpy(np.load(file))


def my_share(count: int) -> slice:
    """This process's part of a batch of `count`; all of it where processes do not share."""
    if not distributed.is_initialized():
        return slice(0, count)
    rank, world = distributed.get_rank(), distributed.get_world_size()
    return slice(rank * count // world, (rank + 1) * count // world)


def together(build: Callable[[Path], object], work: Path, processes: int) -> None:
    """Call ``build(work)`` in `processes` processes that share every batch; in this one if it is alone."""
    if processes > 1:
        torch.multiprocessing.spawn(_process, (build, work, processes), nprocs=processes)
    else:
        torch.set_num_threads(1)
        build(work)


def _process(rank: int, build: Callable[[Path], object], work: Path, world: int) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{work.resolve()}/rendezvous-{os.getppid()}-{build.__module__}"
    distributed.init_process_group("gloo", meeting, rank=rank, world_size=world)
    build(work)
    distributed.destroy_process_group()


def has_snapshot(name: str) -> bool:
    """Whether the stage `name` would go on from a snapshot in an empty work folder."""
    return (SNAPSHOTS / f"{name}.safetensors").exists()


class Stage:
    """Trains `model` for `steps` steps with AdamW, keeps an average of its weights, and saves itself to resume.

    `rate` maps a step to a learning rate; `ema` is the decay of the average; `snapshot_every` steps, and at the end,
    the average is also written to `SNAPSHOTS`.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        work: Path,
        steps: int,
        rate: Callable[[int], float],
        *,
        ema: float = 0.998,
        betas: tuple[float, float] = (0.9, 0.999),
        snapshot_every: int = 0,
    ) -> None:
        self.name, self.model, self.steps, self.rate, self.ema_decay = name, model, steps, rate, ema
        self.file = work / f"{name}.safetensors"
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=rate(0), betas=betas, weight_decay=1e-4, fused=True)
        self.ema = {key: value.detach().clone() for key, value in model.state_dict().items()}
        self.step, self._fresh_since = 0, -_WARM_UP
        self.losses: list[float] = []
        self.snapshot_every, self.snapshot = snapshot_every, SNAPSHOTS / f"{name}.safetensors"
        if self.file.exists():
            self._restore()
        elif snapshot_every and self.snapshot.exists():
            self._restore_snapshot()

    def run(self, loss_of_step: Callable[[int], Tensor], *, save_every: int = 500) -> None:
        """Take the remaining steps; `loss_of_step(step)` returns the scalar loss of that step's own batch."""
        started, first = time.monotonic(), self.step
        parameters = list(self.model.parameters())
        while self.step < self.steps:
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate(self.step) * min(1, (self.step - self._fresh_since + 1) / _WARM_UP)
            loss = loss_of_step(self.step)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._share_gradients(parameters)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            self.optimizer.step()
            self.step += 1
            self._average()
            self.losses.append(loss.item())
            if self.step % 50 == 0 and self.leads:
                pace = (time.monotonic() - started) / (self.step - first)
                recent = sum(self.losses[-50:]) / len(self.losses[-50:])
                left = pace * (self.steps - self.step) / 60
                print(
                    f"{self.name} {self.step}/{self.steps}  loss {recent:.4f}  {1 / pace:.2f} steps/s  "
                    f"{left:.1f} min left",
                    flush=True,
                )
            if self.leads and (self.step % save_every == 0 or self.step == self.steps):
                self.save()
            if self.leads and self.snapshot_every and self.step % self.snapshot_every == 0:
                self.save_snapshot()
        if self.leads and self.snapshot_every and self.step % self.snapshot_every:
            self.save_snapshot()

    @property
    def leads(self) -> bool:
        """True in the process that prints and saves."""
        return not distributed.is_initialized() or distributed.get_rank() == 0

    @staticmethod
    def _share_gradients(parameters: list[nn.Parameter]) -> None:
        if not distributed.is_initialized():
            return
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([grad.flatten() for grad in grads])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        for parameter, piece in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = piece.view_as(parameter)

    def use_average(self) -> None:
        """Put the averaged weights into the model."""
        self.model.load_state_dict(self.ema)

    def save(self) -> None:
        tensors = {f"ema.{key}": value for key, value in self.ema.items()}
        tensors |= {f"model.{key}": value for key, value in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
        partial = self.file.with_suffix(".partial")
        meta = {"step": str(self.step), "losses": json.dumps([round(loss, 5) for loss in self.losses[-1000:]])}
        save_file({key: value.contiguous() for key, value in tensors.items()}, partial, metadata=meta)
        os.replace(partial, self.file)

    def save_snapshot(self) -> None:
        """Write the averaged weights as float16, with the step."""
        self.snapshot.parent.mkdir(exist_ok=True)
        half = {key: value.half().contiguous() for key, value in self.ema.items()}
        save_file(half, self.snapshot.with_suffix(".partial"), metadata={"step": str(self.step)})
        os.replace(self.snapshot.with_suffix(".partial"), self.snapshot)

    def _restore_snapshot(self) -> None:
        with safe_open(str(self.snapshot), framework="pt") as file:
            self.step = self._fresh_since = int(file.metadata()["step"])
            self.ema = {key: file.get_tensor(key).to(self.ema[key].dtype) for key in self.ema}
        self.model.load_state_dict(self.ema)
        self.ema = {key: value.clone() for key, value in self.ema.items()}

    def _average(self) -> None:
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        floats = [(self.ema[k], v) for k, v in self.model.state_dict().items() if v.is_floating_point()]
        torch._foreach_lerp_([average for average, _ in floats], [value for _, value in floats], 1 - decay)

    def _restore(self) -> None:
        with safe_open(str(self.file), framework="pt") as file:
            meta = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        self.step, self.losses = int(meta["step"]), json.loads(meta["losses"])
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        self.ema = {k[4:]: v for k, v in tensors.items() if k.startswith("ema.")}
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".", 2)
                state.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
