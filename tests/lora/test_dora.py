"""DoRA layers: the magnitude, its norm and what they keep to (the laws are in tests/contracts)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sd_lora.lora.dora import DoraConv2d, DoraLinear
from sd_lora.lora.inject import fuse, inject
from sd_lora.lora.layers import LoraLayer
from sd_lora.lora.variants import new_layer

MODULES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(6, 10),
    "conv": lambda: nn.Conv2d(6, 10, 3, padding=1),
}
every_kind = pytest.mark.parametrize("kind", MODULES)


def layer_on(module: nn.Module, seed: int = 1) -> LoraLayer:
    """A DoRA layer whose three weights are all random, attached to `module`."""
    torch.manual_seed(seed)
    layer = new_layer(module, 3, 1.5, "dora")
    with torch.no_grad():
        for weight in layer.parameters():
            weight.normal_(0, 0.5)
    inject({"m": layer}, {"m": module})
    return layer


def inputs(kind: str) -> Tensor:
    return torch.randn((2, 6) if kind == "linear" else (2, 6, 8, 8), generator=torch.Generator().manual_seed(2))


def test_the_table_gives_each_module_type_its_layer() -> None:
    assert type(new_layer(nn.Linear(2, 3), 1, 1.0, "dora")) is DoraLinear
    assert type(new_layer(nn.Conv2d(2, 3, 1), 1, 1.0, "dora")) is DoraConv2d


@every_kind
def test_the_magnitude_starts_as_the_norms_of_the_output_rows(kind: str) -> None:
    module = MODULES[kind]().to(torch.bfloat16)
    magnitude = new_layer(module, 2, 2.0, "dora").tensors()["magnitude"]
    rows = [float(row.float().square().sum().sqrt()) for row in module.weight.detach()]
    assert magnitude.dtype == torch.float32
    torch.testing.assert_close(magnitude, torch.tensor(rows))


@every_kind
def test_down_and_up_start_as_those_of_plain_lora(kind: str) -> None:
    started = []
    for variant in ("lora", "dora"):
        torch.manual_seed(0)
        started.append(new_layer(MODULES[kind](), 2, 2.0, variant).tensors())
    assert all(torch.equal(started[0][role], started[1][role]) for role in ("down", "up"))


@every_kind
def test_a_fused_row_has_the_norm_that_its_magnitude_says(kind: str) -> None:
    module = MODULES[kind]().requires_grad_(False)
    layer = layer_on(module)
    fuse({"m": layer}, {"m": module})
    norms = module.weight.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, layer.tensors()["magnitude"].abs())


@every_kind
def test_a_row_of_zeros_stays_one_and_gives_finite_gradients(kind: str) -> None:
    module, x = MODULES[kind]().requires_grad_(False), inputs(kind)
    module.weight[4] = 0
    base, layer = module(x), new_layer(module, 2, 2.0, "dora")
    inject({"m": layer}, {"m": module})
    assert torch.equal(module(x), base)
    module(x).square().sum().backward()
    gradients = [p.grad for p in layer.parameters()]
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients)


@every_kind
def test_the_bias_is_not_scaled(kind: str) -> None:
    module = MODULES[kind]().requires_grad_(False)
    layer_on(module)
    at_zero = module(torch.zeros_like(inputs(kind)))
    bias = module.bias if kind == "linear" else module.bias.view(-1, 1, 1)
    torch.testing.assert_close(at_zero, bias.expand_as(at_zero))


def test_the_layer_follows_its_target_and_keeps_no_hold_of_it() -> None:
    """The weight is read at every call, and is not among the layer's own."""
    module, x = nn.Linear(6, 10).requires_grad_(False), inputs("linear")
    layer = layer_on(module)
    before = module(x)
    module.weight += 1
    assert not torch.allclose(module(x), before, atol=0.1)
    assert set(layer.state_dict()) == {"down.weight", "up.weight", "magnitude"}
    assert module not in list(layer.modules())


def test_the_norm_of_a_half_precision_weight_is_taken_in_float32() -> None:
    """4096 weights of 8 have the norm 512; the sum of their squares does not exist in float16."""
    module, x = nn.Linear(4096, 2, bias=False).half().requires_grad_(False), torch.ones(1, 4096).half()
    module.weight.fill_(8.0)
    layer = new_layer(module, 2, 2.0, "dora")
    assert layer.tensors()["magnitude"].tolist() == [512.0, 512.0]
    base = module(x)
    inject({"m": layer}, {"m": module})
    assert torch.equal(module(x), base)
