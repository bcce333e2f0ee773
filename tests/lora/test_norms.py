"""The norms of ΔW by Gram matrices against the dense ones, and the cap on them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sd_lora.lora.layers import LoraLayer
from sd_lora.lora.norms import cap_norms, delta_norms
from sd_lora.lora.variants import VARIANTS, new_layer


def layers(alpha: float = 6.0, size: float = 0.3) -> list[LoraLayer]:
    torch.manual_seed(3)
    targets = nn.Linear(7, 5), nn.Conv2d(3, 4, 3), nn.Linear(4, 9)
    made = [new_layer(target, rank, alpha) for target, rank in zip(targets, (3, 2, 8), strict=True)]
    for layer in made:
        nn.init.normal_(layer.up.weight, std=size)
    return made


def product_of(layer: LoraLayer) -> torch.Tensor:
    return VARIANTS["lora"].product(layer.tensors()) * layer.scaling


def test_a_layer_above_the_cap_is_scaled_to_it_up_and_down_alike() -> None:
    made = layers()
    norms = [product_of(layer).norm().item() for layer in made]
    before = [product_of(layer).detach() for layer in made]
    ratio = made[1].up.weight.norm() / made[1].down.weight.norm()
    most = sorted(norms)[1] * 0.99
    assert cap_norms(made, most) == 2
    for layer, norm, product in zip(made, norms, before, strict=True):
        now = product_of(layer).detach()
        if norm <= most:
            assert torch.equal(now, product)
        else:
            assert most * (1 - 1e-4) < now.norm().item() <= most
            torch.testing.assert_close(now, product * (most / norm), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(made[1].up.weight.norm() / made[1].down.weight.norm(), ratio)
    assert cap_norms(made, most) == 0
    assert all(layer.up.weight.requires_grad for layer in made)


def test_nothing_is_capped_below_the_cap() -> None:
    made = layers()
    weights = [layer.up.weight.detach().clone() for layer in made]
    largest = max(product_of(layer).norm().item() for layer in made)
    assert cap_norms(made, largest * 1.0001) == 0
    assert cap_norms(made, largest * 0.9999) == 1
    assert cap_norms([], 1.0) == 0
    fresh = layers(size=0.0)
    assert cap_norms(fresh, 1e-6) == 0
    assert torch.equal(weights[0], layers()[0].up.weight)


def test_norms_are_those_of_the_products() -> None:
    made = layers()
    assert delta_norms(made) == pytest.approx([product_of(layer).norm().item() for layer in made], rel=1e-5)
    assert delta_norms([]) == []
