"""Every combination of objective, loss, weights and noise teaches a small network."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sd_lora.config.schema import TrainingConfig
from sd_lora.models.losses import LOSSES, WEIGHTINGS
from sd_lora.models.noise import draw_noise
from sd_lora.models.objectives import Denoising, FlowMatching, Noised, Objective

ALPHAS = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2, dim=0)
OBJECTIVES: dict[str, Denoising] = {
    "epsilon": Objective(ALPHAS, "epsilon"),
    "v_prediction": Objective(ALPHAS, "v_prediction"),
    "zero_terminal": Objective(ALPHAS, "v_prediction", zero_terminal_snr=True),
    "flow": FlowMatching(),
}
NOISES: list[dict[str, Any]] = [{}, {"noise_offset": 0.1}, {"multires_noise": 0.5}, {"input_perturbation": 0.1}]
PICTURE = torch.stack(
    [torch.linspace(-2, 2, 64).view(8, 8), torch.eye(8), torch.ones(8, 8), torch.linspace(1, -1, 64).view(8, 8).T]
)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(5, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 4, 3, padding=1))

    def forward(self, noised: Noised) -> Tensor:
        share = noised.share.view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
        return self.layers(torch.cat([noised.latents, share], dim=1))


def step(objective: Denoising, config: TrainingConfig, count: int, seed: int) -> Noised:
    generator = torch.Generator().manual_seed(seed)
    noise = draw_noise(count, PICTURE.shape, config, generator)
    timesteps = objective.sample_timesteps(count, config, generator)
    return objective.noised(PICTURE.expand(count, -1, -1, -1), noise, timesteps, config, generator)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", list(OBJECTIVES))
def test_every_combination_learns(kind: str, loss: str) -> None:
    objective = OBJECTIVES[kind]
    for weighting, noises in itertools.product(WEIGHTINGS, NOISES):
        config = TrainingConfig(loss=loss, weighting=weighting, **noises)  # type: ignore[arg-type]
        torch.manual_seed(0)
        network, unseen = Network(), step(objective, config, 64, 12345)
        with torch.no_grad():
            before = objective.loss(network(unseen), unseen, config)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
        for seed in range(40):
            noised = step(objective, config, 8, seed)
            optimizer.zero_grad()
            objective.loss(network(noised), noised, config).backward()
            assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
            optimizer.step()
        with torch.no_grad():
            after = objective.loss(network(unseen), unseen, config)
        assert after < 0.75 * before, (weighting, noises, before.item(), after.item())
