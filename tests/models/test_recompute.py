"""Activations that are computed again: less is kept, gradients stay, and the model is itself again afterwards."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from small_bases import write_base

from sd_lora.check import cost
from sd_lora.config.schema import ModelConfig
from sd_lora.models.opening import OpenBase, open_base
from sd_lora.models.recompute import STEPS_DOWN, Recomputed, leaner, recompute


def gradients(base: OpenBase) -> dict[str, torch.Tensor]:
    unet, generator = base.pipe.unet, torch.Generator().manual_seed(1)
    unet.requires_grad_(True).zero_grad()
    noisy = torch.randn(1, 4, 16, 16, generator=generator)
    states = torch.randn(1, 7, unet.config.cross_attention_dim, generator=generator)
    unet(noisy, torch.tensor([500]), states).sample.square().mean().backward()
    return {name: p.grad.clone() for name, p in unet.named_parameters() if p.grad is not None}


def test_each_step_down_keeps_less_and_gives_the_same_gradients(tmp_path: Path) -> None:
    base = open_base(ModelConfig(base=str(write_base("sd1", tmp_path / "base")), device="cpu"))
    view, plain = cost.View((128, 128)), gradients(base)
    kept = []
    for what in STEPS_DOWN:
        kept.append(cost._step(base.family, base.pipe, base.device, view, 1, what))
        recompute(base.pipe.unet, what)
        found = gradients(base)
        assert found.keys() == plain.keys()
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, plain[name], rtol=1e-5, atol=1e-7)
    assert kept[0] > kept[1] > kept[2]


@pytest.mark.parametrize("what", STEPS_DOWN)
def test_a_model_is_itself_again(what: Recomputed, tmp_path: Path) -> None:
    unet = open_base(ModelConfig(base=str(write_base("sd1", tmp_path / "base")), device="cpu")).pipe.unet
    recompute(unet, what)
    twin = copy.deepcopy(unet)
    recompute(unet, False)
    assert not unet.is_gradient_checkpointing
    assert not [name for name, module in unet.named_modules() if "forward" in vars(module)]
    assert twin.is_gradient_checkpointing is (what is True)


def test_the_leaner_of_two() -> None:
    assert [leaner(one, other) for one in STEPS_DOWN for other in STEPS_DOWN] == [
        False, "ff", True, "ff", "ff", True, True, True, True,
    ]  # fmt: skip
