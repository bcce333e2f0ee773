"""The one training loop. It yields a report per step; whoever consumes them draws, saves and counts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sd_lora.config.schema import RunConfig
from sd_lora.data.seeds import generator_for
from sd_lora.errors import AdapterError
from sd_lora.lora.layers import Layer
from sd_lora.lora.norms import cap_norms
from sd_lora.models.device import give_back, is_out_of_memory
from sd_lora.models.opening import ModelFamily
from sd_lora.models.recompute import Recomputed, leaner, recompute
from sd_lora.runs.reports import StepReport
from sd_lora.training.averages import Average
from sd_lora.training.checkpoints import State
from sd_lora.training.guards import Guards, check_finite, stopped
from sd_lora.training.memory import too_large, used_memory
from sd_lora.training.optimizer_state import optimizer_state, restore_optimizer, settle
from sd_lora.training.optimizers import ParameterGroup, make_optimizer, rate_share, set_rate
from sd_lora.training.step import QUARTERS, Computation, Material

#: steps in a row that the gradient scaler of float16 may skip
_MOST_SKIPPED = 25


@dataclass(frozen=True)
class Trained:
    """What is trained: `parameters` by name, in `groups` of one rate each, and the `layers` that they belong to, with
    the base's modules (`targets`) under the same names."""

    parameters: Mapping[str, nn.Parameter]
    groups: Sequence[ParameterGroup]
    layers: Mapping[str, Layer] = field(default_factory=dict)
    targets: Mapping[str, nn.Module] = field(default_factory=dict)


class Trainer:
    """Trains the injected layers; `done` steps are behind it.

    Order, noise, timesteps, dropout and mirroring are pure functions of (seed, step); the global batch is shared out
    among the processes, and within one into micro-batches. So a restored state continues as if nothing had happened.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        family: ModelFamily,
        denoiser: nn.Module,
        trained: Trained,
        material: Material,
        config: RunConfig,
    ) -> None:
        self._accelerator, self._denoiser, self._trained, self._config = accelerator, denoiser, trained, config
        self.computation = Computation(family, denoiser, material, config.training, accelerator.device)
        self._optimizer = make_optimizer(trained.groups, config.optimizer, accelerator.device)
        self._prepared: Any = accelerator.prepare(self._optimizer)
        self._guards = Guards(trained.layers, trained.targets)
        self._skipped, self._alarms = 0, list[str]()
        #: whether the weights are those after step `done`: not if they were found to be NaN or infinite
        self.intact = True
        self.steps, self.done = config.training.steps or 0, 0
        #: the signals that asked the processes to stop, added up; 0: none
        self.stopping = 0
        share = config.training.batch_size // accelerator.num_processes
        self._share = range(accelerator.process_index * share, (accelerator.process_index + 1) * share)
        self.micro_batch = min(config.training.micro_batch or share, share)
        self.recomputed: Recomputed = False
        self._recompute(config.training.gradient_checkpointing or False)
        averages = config.training.average != "none"
        self.average = Average(trained.parameters, self.steps, config.training) if averages else None

    def run(self, stop: Callable[[], int] = lambda: 0) -> Iterator[StepReport]:
        """Train the steps that remain, a report per step. `stop` gives the signal that asks this process to stop, or 0.

        Raises TrainingStopped when a loss, gradient or weight is NaN or infinite; `intact` then says whether the
        weights are those of the last good step. Raises OutOfMemory when a step does not fit even in the leanest way.
        """
        optimizer = self._config.optimizer
        try:
            while self.done < self.steps:
                step, started = self.done, time.perf_counter()
                share = rate_share(step, self.steps, optimizer)
                set_rate(self._optimizer, share)
                gradients = self._gradients(step, stop)
                if gradients is None:
                    self._compute_leanly(step)
                    continue
                (loss, stopping, *quarters), names, norm = gradients
                loss, self.stopping = loss / self._accelerator.num_processes, int(stopping)
                self._update(step, loss, norm, names)
                alarms, self._alarms = [*self._alarms, *self._guards.look(self.done)], []
                sums, counts = quarters[:QUARTERS], quarters[QUARTERS:]
                by_noise = [s / n if n else None for s, n in zip(sums, counts, strict=True)]
                rate, memory = optimizer.learning_rate * share, used_memory(self._accelerator.device)
                seconds = time.perf_counter() - started
                yield StepReport(self.done, self.steps, loss, rate, seconds, norm, by_noise, memory, alarms)
        finally:
            self._accelerator.free_memory()

    def state(self) -> State:
        """All that the rest of the run depends on besides the config. TrainingStopped if any of it is not finite."""
        tensors, facts = optimizer_state(self._optimizer)
        weights = {name: parameter.detach() for name, parameter in self._trained.parameters.items()}
        parts = {"adapter": weights, "optimizer": tensors}
        if self.average is not None and self.average.tensors:
            parts["average"] = self.average.tensors
        for part, named in parts.items():
            check_finite(named, f"the {part} state", self.done, [])
        scaler = self._accelerator.scaler
        more = {"scaler": scaler.state_dict()} if scaler is not None else {}
        lean = {"micro_batch": self.micro_batch, "checkpointing": self.recomputed}
        return State(self.done, parts, {"optimizer": facts, "skipped": self._skipped, **lean, **more})

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Continue from `state`, of the same config. AdapterError if it is of other modules or ranks."""
        saved, parameters = state.tensors["adapter"], self._trained.parameters
        if {name: t.shape for name, t in saved.items()} != {name: p.shape for name, p in parameters.items()}:
            raise AdapterError(
                f"the checkpoint of step {state.step} is of other modules or ranks than config.toml asks for now; set "
                "them back"
            )
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])
        restore_optimizer(self._optimizer, state.tensors["optimizer"], state.facts["optimizer"])
        if self.average is not None:
            self.average.tensors = {
                name: tensor.to(self._accelerator.device) for name, tensor in state.tensors.get("average", {}).items()
            }
        if self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(state.facts["scaler"])
        self.done, self._skipped = state.step, state.facts["skipped"]
        self.micro_batch = min(self.micro_batch, state.facts["micro_batch"])
        self._recompute(leaner(self.recomputed, state.facts["checkpointing"]))

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """What is trained, by name."""
        return self._trained.parameters

    def first_loss(self) -> Tensor:
        """The loss of the first images that are computed at once, the same at each call."""
        return next(self.computation.parts(0, self._share, self.micro_batch)).loss

    def usable(self) -> AbstractContextManager[None]:
        """For the length of a ``with`` block the weights are those to use: some optimizers train at another point."""
        return settle(self._optimizer)

    def _gradients(self, step: int, stop: Callable[[], int]) -> tuple[list[float], list[str], float | None] | None:
        """Leave the gradients of `step` in the parameters, clipped; None if it does not fit into memory as it is.

        Otherwise sums over all processes (the loss, the signals to stop, the losses by noise), the images' names, and
        the norm before clipping."""
        accelerator, parameters = self._accelerator, list(self._trained.parameters.values())
        total, names = torch.zeros(2 + 2 * QUARTERS, device=accelerator.device), list[str]()
        try:
            with self._dropouts(step):
                for part in self.computation.parts(step, self._share, self.micro_batch):
                    accelerator.backward(part.loss)
                    total[0] += part.loss.detach()
                    total[2:] += part.by_noise
                    names += part.names
            total[1] = float(stop())
            summed: Any = accelerator.reduce(total, "sum")
            _average_gradients(accelerator, parameters)
            norm = accelerator.clip_grad_norm_(parameters, self._config.optimizer.clip_norm)
            read = summed if norm is None else torch.cat([summed, norm.detach().to(summed).view(1)])
            numbers = read.tolist()  # all at once: a GPU waits each time
            return numbers[: len(total)], names, None if norm is None else numbers[-1]
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if (self.micro_batch == 1 and self.recomputed is True) or accelerator.num_processes > 1:
                raise too_large(accelerator.device, step + 1, self.micro_batch, self.recomputed) from error
            return None

    def _compute_leanly(self, step: int) -> None:
        """From here on compute one image at once, with gradient checkpointing: `step` did not fit into memory."""
        self._alarms.append(
            f"step {step + 1} did not fit into memory with {self.micro_batch} images at once; from here on one at a "
            "time, with gradient checkpointing, which takes longer and changes nothing else"
        )
        self._prepared.zero_grad(set_to_none=True)
        give_back(self._accelerator.device)
        self.micro_batch = 1
        self._recompute(True)

    def _recompute(self, what: Recomputed) -> None:
        self.recomputed = what
        recompute(self._denoiser, what)

    def _update(self, step: int, loss: float, norm: float | None, names: Sequence[str]) -> None:
        """Move the weights by the gradients of `step`. TrainingStopped if `loss`, gradient or a weight is not finite.

        The scaler of float16 looks for its scale by overflowing now and then, and skips those steps; too many in a row
        are an error."""
        if not math.isfinite(loss):
            raise stopped("the loss", step + 1, names)
        finite = norm is None or math.isfinite(norm)
        self._skipped = 0 if finite else self._skipped + 1
        if not finite and (self._accelerator.scaler is None or self._skipped > _MOST_SKIPPED):
            raise stopped("a gradient", step + 1, names)
        self._prepared.step()
        self._prepared.zero_grad(set_to_none=True)
        if self._config.optimizer.max_norm:
            cap_norms(list(self._trained.layers.values()), self._config.optimizer.max_norm)
        parameters = [parameter.detach() for parameter in self._trained.parameters.values()]
        if not math.isfinite(float(torch.stack(torch._foreach_norm(parameters)).sum())):
            self.intact = False
            raise stopped("a weight", step + 1, names)
        if self.average is not None:
            self.average.update(step)
        self.done = step + 1

    @contextmanager
    def _dropouts(self, step: int) -> Iterator[None]:
        """Dropout in the layers. It draws from torch's own generators: they are seeded for the step, and put back."""
        lora = self._config.lora
        if not (lora.dropout or lora.rank_dropout):
            yield
            return
        layers = self._trained.layers.values()
        seed = generator_for(self._config.training.seed, step, f"dropout {self._share.start}").initial_seed()
        cuda = [self._accelerator.device] if self._accelerator.device.type == "cuda" else []
        with torch.random.fork_rng(cuda):
            torch.manual_seed(seed)
            for layer in layers:
                layer.dropout, layer.rank_dropout = lora.dropout, lora.rank_dropout
            try:
                yield
            finally:
                for layer in layers:
                    layer.dropout = layer.rank_dropout = 0.0


def _average_gradients(accelerator: Accelerator, parameters: Sequence[nn.Parameter]) -> None:
    """The mean of all processes' gradients, in one message: layers are small, so no model needs a wrapper for it."""
    if accelerator.num_processes == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    mean: Any = accelerator.reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
    for gradient, part in zip(gradients, mean.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))
