"""The loop on a toy denoiser: its schedule, its reports, its repeatability, and when it stops."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sd_lora.config.reading import parse_config
from sd_lora.config.schema import OptimizerConfig, RunConfig
from sd_lora.data.encoded import Batch
from sd_lora.data.exposures import Group, Schedule, Seen
from sd_lora.data.pictures.views import View
from sd_lora.data.planning import default_steps
from sd_lora.data.seeds import generator_for
from sd_lora.errors import TrainingStopped
from sd_lora.models.objectives import Objective
from sd_lora.runs.reports import StepReport
from sd_lora.training.loop import Trained, Trainer
from sd_lora.training.optimizers import ParameterGroup, rate_share
from sd_lora.training.run import accelerator_for
from sd_lora.training.step import Material

ALPHAS = torch.cumprod(1 - torch.linspace(1e-3, 2e-2, 1000), dim=0)


class ToyFamily:
    """Predicts noise with one convolution; remembers what it was shown."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []

    def denoise(
        self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]
    ) -> Tensor:
        self.seen.append((noisy.clone(), timesteps.clone()))
        return denoiser(noisy) + 0 * conditioning["states"].mean()


class ToySet:
    """Three encoded examples in memory, the last of another size if `mixed`."""

    def __init__(self, settings: RunConfig, *, mixed: bool = False, weights: float | None = None) -> None:
        self.sizes = [(16, 16), (16, 16), (24, 16) if mixed else (16, 16)]
        seen = [Seen(((View(size),),), flips=2) for size in self.sizes]
        self.schedule = Schedule(seen, settings.training.batch_size, settings.training.seed)
        generator = torch.Generator().manual_seed(5)
        self.latents = [torch.randn(2, *self.shape(size), generator=generator) for size in self.sizes]
        self.weights = weights

    def shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        return 4, size[1] // 4, size[0] // 4

    def batch(self, group: Group, *rest: Any) -> Batch:
        mine = [e for place, e in zip(group.places, group.exposures, strict=True) if place in rest[-1]]
        latents = torch.stack([self.latents[e.image][e.mirrored] for e in mine])
        weights = None if self.weights is None else torch.full((len(mine), 1, *latents.shape[2:]), self.weights)
        names = [f"{'abc'[e.image]}.png" for e in mine]
        return Batch(latents, {"states": torch.ones(len(mine), 2, 2)}, names, names, weights)


def config(*overrides: str) -> RunConfig:
    return parse_config([], ["training.steps=6", "training.batch_size=2", "optimizer.learning_rate=1e-2", *overrides])


def trained(
    settings: RunConfig, family: Any = None, denoiser: nn.Module | None = None, data: Any = None
) -> tuple[list[StepReport], Tensor]:
    if denoiser is None:
        torch.manual_seed(0)
        denoiser = nn.Conv2d(4, 4, 3, padding=1)
    material = Material(data or ToySet(settings), Objective(ALPHAS, "epsilon"))
    with accelerator_for(torch.device("cpu"), torch.float32) as accelerator:
        named = dict(denoiser.named_parameters())
        learnt = Trained(named, [ParameterGroup(list(named.values()), settings.optimizer.learning_rate)])
        trainer = Trainer(accelerator, family or ToyFamily(), denoiser, learnt, material, settings)
        reports = list(trainer.run())
    return reports, torch.cat([p.detach().flatten() for p in denoiser.parameters()])


# ---- the schedule


def rates(steps: int, **settings: float) -> list[float]:
    config = OptimizerConfig(learning_rate=2.0, **settings)
    return [config.learning_rate * rate_share(step, steps, config) for step in range(steps)]


def test_the_rate_rises_linearly_peaks_and_falls_to_the_final_share() -> None:
    values = rates(100, warmup=0.05, final=0.1)
    assert values[:5] == pytest.approx([2 * i / 6 for i in range(1, 6)])
    assert values[5] == max(values) == pytest.approx(2.0)
    assert values[-1] == pytest.approx(0.2)
    assert all(a > b for a, b in pairwise(values[5:]))
    assert values[52] == pytest.approx(1.1, abs=0.02)  # half-way down, half-way between


def test_the_rate_without_warm_up_starts_at_its_peak() -> None:
    assert rates(50, warmup=0.0, final=0.0)[0] == pytest.approx(2.0)
    assert rates(50, warmup=0.0, final=0.0)[-1] == pytest.approx(0.0)
    assert rates(50, warmup=0.0, final=1.0) == pytest.approx([2.0] * 50)


@pytest.mark.parametrize("steps", [1, 2, 3, 19])
def test_short_runs_train_at_a_rate_above_zero(steps: int) -> None:
    assert all(0 < rate <= 2.0 for rate in rates(steps))


@pytest.mark.parametrize(
    ("images", "batch", "steps"),
    [(1, 1, 1200), (10, 1, 1200), (20, 1, 2400), (100, 1, 4000), (20, 4, 600), (1, 5000, 1)],
)
def test_steps_follow_from_the_number_of_images(images: int, batch: int, steps: int) -> None:
    assert default_steps(images, batch) == steps


# ---- the steps


def test_every_step_is_reported() -> None:
    reports, _ = trained(config("optimizer.warmup=0.5"))
    assert [report.step for report in reports] == [1, 2, 3, 4, 5, 6]
    assert {report.steps for report in reports} == {6}
    expected = [1e-2 * rate_share(i, 6, config("optimizer.warmup=0.5").optimizer) for i in range(6)]
    assert [report.learning_rate for report in reports] == expected
    assert all(report.loss > 0 and report.seconds > 0 for report in reports)


def test_a_run_is_repeated_exactly_and_another_seed_is_another_run() -> None:
    reports, weights = trained(config())
    torch.rand(11)  # the global generator plays no part
    again, same_weights = trained(config())
    other, other_weights = trained(config("training.seed=1"))
    assert [r.loss for r in again] == [r.loss for r in reports]
    assert torch.equal(weights, same_weights)
    assert [r.loss for r in other] != [r.loss for r in reports]
    assert not torch.equal(weights, other_weights)


def test_steps_see_different_noise_at_stratified_timesteps() -> None:
    family = ToyFamily()
    trained(config("training.steps=8"), family)
    noisy = [latents for latents, _ in family.seen]
    assert all(not torch.equal(a, b) for i, a in enumerate(noisy) for b in noisy[:i])
    for _, timesteps in family.seen:
        assert sorted((timesteps // 500).tolist()) == [0, 1]


def test_training_learns() -> None:
    reports, _ = trained(config("training.steps=150", "optimizer.learning_rate=3e-2"))
    losses = [report.loss for report in reports]
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])


def test_the_rate_is_what_the_optimizer_uses() -> None:
    torch.manual_seed(0)
    start = torch.cat([p.detach().flatten() for p in nn.Conv2d(4, 4, 3, padding=1).parameters()])
    _, small = trained(config("training.steps=1", "optimizer.learning_rate=1e-3", "optimizer.weight_decay=0"))
    _, large = trained(config("training.steps=1", "optimizer.learning_rate=1e-1", "optimizer.weight_decay=0"))
    assert (small - start).abs().max().item() == pytest.approx(1e-3, rel=0.01)  # AdamW's first step is the rate itself
    assert (large - start).abs().max().item() == pytest.approx(1e-1, rel=0.01)


def test_gradients_are_clipped_to_the_norm() -> None:
    norms: list[float] = []
    denoiser = nn.Conv2d(4, 4, 3, padding=1)
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        norms.append(torch.cat([p.grad.flatten() for p in denoiser.parameters()]).norm().item())
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", watched)
        trained(config("training.steps=3", "optimizer.clip_norm=1e-3"), denoiser=denoiser)
    assert norms == pytest.approx([1e-3] * 3, rel=0.01)


def test_a_step_of_several_sizes_weighs_every_image_alike() -> None:
    """Its loss is the mean over its images, and its gradient that of this mean, though it is run in parts."""
    settings = config(
        "training.steps=1", "training.batch_size=3", "optimizer.weight_decay=0", "optimizer.clip_norm=1e9"
    )
    toy = ToySet(settings, mixed=True)
    assert len(toy.schedule.groups(0)) == 2
    family, gradients = ToyFamily(), []
    torch.manual_seed(0)
    denoiser = nn.Conv2d(4, 4, 3, padding=1)
    start = [p.detach().clone() for p in denoiser.parameters()]
    losses: list[Tensor] = []
    plain, step = Objective.losses, torch.optim.AdamW.step

    def watched(self: Objective, prediction: Tensor, noised: Any, *rest: Any) -> Tensor:
        losses.extend((prediction.detach() - noised.target).square().mean(dim=(1, 2, 3)))
        return plain(self, prediction, noised, *rest)

    def remembered(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        gradients.extend(p.grad.clone() for p in denoiser.parameters())
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Objective, "losses", watched)
        patch.setattr(torch.optim.AdamW, "step", remembered)
        reports, _ = trained(settings, family, denoiser, toy)
    assert len(losses) == 3
    assert reports[0].loss == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    assert [len(noisy) for noisy, _ in family.seen] in ([1, 2], [2, 1])
    with torch.no_grad():
        for p, value in zip(denoiser.parameters(), start, strict=True):
            p.copy_(value)
    groups = toy.schedule.groups(0)
    generator = generator_for(0, 0, "noise")
    noises = [torch.randn(len(g.places), *toy.shape(g.size), generator=generator) for g in groups]
    total = torch.zeros(())
    for (noisy, _), noise in zip(family.seen, noises, strict=True):
        total = total + (denoiser(noisy) - noise).square().mean(dim=(1, 2, 3)).sum() / 3
    denoiser.zero_grad()
    total.backward()
    for found, p in zip(gradients, denoiser.parameters(), strict=True):
        torch.testing.assert_close(found, p.grad)


def test_places_of_weight_zero_teach_nothing() -> None:
    settings = config("training.steps=2", "optimizer.weight_decay=0")
    full, _ = trained(settings, data=ToySet(settings))
    half, _ = trained(settings, data=ToySet(settings, weights=0.5))
    none, weights = trained(settings, data=ToySet(settings, weights=0.0))
    torch.manual_seed(0)
    start = torch.cat([p.detach().flatten() for p in nn.Conv2d(4, 4, 3, padding=1).parameters()])
    assert half[0].loss == pytest.approx(full[0].loss / 2)
    assert none[0].loss == 0
    assert torch.equal(weights, start)


# ---- when it stops


def test_a_loss_that_is_no_number_stops_and_names_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    plain = Objective.losses

    def third_is_nan(self: Objective, *args: Any) -> Tensor:
        calls.append(1)
        return plain(self, *args) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr(Objective, "losses", third_is_nan)
    with pytest.raises(TrainingStopped) as caught:
        trained(config())
    message = str(caught.value)
    assert len(calls) == 3
    assert "step 3" in message
    assert "optimizer.learning_rate" in message
    names = {f"{'abc'[e.image]}.png" for group in ToySet(config()).schedule.groups(2) for e in group.exposures}
    assert all(name in message for name in names)
    assert caught.value.exit_code == 6


class NanGradient(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return gradient * float("nan")


def test_a_gradient_that_is_no_number_stops_before_it_reaches_the_weights() -> None:
    class Family(ToyFamily):
        def denoise(self, denoiser: nn.Module, *args: Any) -> Tensor:
            return NanGradient.apply(super().denoise(denoiser, *args))

    torch.manual_seed(0)
    denoiser = nn.Conv2d(4, 4, 3, padding=1)
    with pytest.raises(TrainingStopped) as caught:
        trained(config(), Family(), denoiser)
    assert all(bool(torch.isfinite(p).all()) for p in denoiser.parameters())
    assert "gradient" in str(caught.value)  # the loss itself is a finite number
