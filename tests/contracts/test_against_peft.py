"""Our layers against PEFT's: the same numbers from the same weights, and both on one module at once."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sd_lora.lora.inject import eject, fuse, inject
from sd_lora.lora.layers import LoraLayer
from sd_lora.lora.variants import new_layer

peft = pytest.importorskip("peft")

RANK, ALPHA = 3, 7.0
CLOSE = {"rtol": 0.0, "atol": 1e-5}
MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 10), (4, 5, 6)),
    "conv1x1": (lambda: nn.Conv2d(6, 10, 1), (4, 6, 8, 8)),
    "conv3x3": (lambda: nn.Conv2d(6, 10, 3, padding=1), (4, 6, 8, 8)),
    "conv-stride2": (lambda: nn.Conv2d(6, 10, 3, stride=2, padding=1), (4, 6, 8, 8)),
}


class Net(nn.Module):
    """One module called ``inner``."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def peft_model(net: Net, layer: LoraLayer) -> nn.Module:
    """`net` with PEFT's layer on ``inner``, its weights those of `layer`."""
    ours = layer.tensors()
    dora = "magnitude" in ours
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["inner"], lora_dropout=0.0, use_dora=dora)
    model = peft.get_peft_model(net, config)
    theirs = model.base_model.model.inner
    with torch.no_grad():
        theirs.lora_A["default"].weight.copy_(ours["down"])
        theirs.lora_B["default"].weight.copy_(ours["up"])
        if dora:
            magnitude = theirs.lora_magnitude_vector["default"].weight
            magnitude.copy_(ours["magnitude"].view_as(magnitude))
    return model.eval()


def trained(module: nn.Module, variant: str = "lora", seed: int = 1) -> LoraLayer:
    torch.manual_seed(seed)
    layer = new_layer(module, RANK, ALPHA, variant)
    nn.init.normal_(layer.up.weight, std=0.3)
    if variant == "dora":
        with torch.no_grad():
            layer.magnitude *= torch.linspace(0.5, 2.0, len(layer.magnitude))
    return layer


@pytest.fixture(params=["lora", "dora"])  # tests/contracts/test_against_lycoris.py compares the others
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=MODULES, ids=str)
def setting(variant: str, request: pytest.FixtureRequest) -> tuple[Net, LoraLayer, Tensor]:
    make, shape = MODULES[request.param]
    torch.manual_seed(0)
    net = Net(make()).requires_grad_(False)
    return net, trained(net.inner, variant), torch.randn(shape)


def test_the_same_weights_give_the_same_output(setting: tuple[Net, LoraLayer, Tensor]) -> None:
    net, layer, x = setting
    base, theirs = net(x), peft_model(copy.deepcopy(net), layer)(x)
    inject({"inner": layer}, {"inner": net.inner})
    torch.testing.assert_close(net(x), theirs, **CLOSE)
    assert not torch.allclose(base, theirs, atol=1e-2)


def test_the_same_weights_give_the_same_gradients(setting: tuple[Net, LoraLayer, Tensor]) -> None:
    net, layer, x = setting
    model = peft_model(copy.deepcopy(net), layer)
    inject({"inner": layer}, {"inner": net.inner})
    for each in (net, model):
        each(x).square().mean().backward()
    theirs = model.base_model.model.inner
    torch.testing.assert_close(layer.down.weight.grad, theirs.lora_A["default"].weight.grad, **CLOSE)
    torch.testing.assert_close(layer.up.weight.grad, theirs.lora_B["default"].weight.grad, **CLOSE)
    if "magnitude" in layer.tensors():
        magnitude = theirs.lora_magnitude_vector["default"].weight.grad
        torch.testing.assert_close(layer.magnitude.grad, magnitude.flatten(), **CLOSE)


def test_the_input_gets_the_same_gradient(setting: tuple[Net, LoraLayer, Tensor]) -> None:
    """Layers further back are trained through it."""
    net, layer, x = setting
    model = peft_model(copy.deepcopy(net), layer)
    inject({"inner": layer}, {"inner": net.inner})
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    for each, own in zip((net, model), inputs, strict=True):
        each(own).square().mean().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, **CLOSE)


@pytest.mark.parametrize("variant", ["lora"], indirect=True)
@pytest.mark.parametrize("strength", [0.5, -1.0])
def test_strength_is_pefts_scale(setting: tuple[Net, LoraLayer, Tensor], strength: float) -> None:
    net, layer, x = setting
    model = peft_model(copy.deepcopy(net), layer)
    model.base_model.model.inner.scale_layer(strength)
    inject({"inner": layer}, {"inner": net.inner})
    layer.strength = strength
    torch.testing.assert_close(net(x), model(x), **CLOSE)


@pytest.mark.parametrize("variant", ["dora"], indirect=True)
def test_strength_of_a_dora_layer_lies_between_the_base_and_peft(setting: tuple[Net, LoraLayer, Tensor]) -> None:
    """PEFT keeps the magnitude at scale 0; ours comes back to the base, and agrees with PEFT at 1."""
    net, layer, x = setting
    base, whole = net(x), peft_model(copy.deepcopy(net), layer)(x)
    inject({"inner": layer}, {"inner": net.inner})
    layer.strength = 0.5
    torch.testing.assert_close(net(x), base + 0.5 * (whole - base), **CLOSE)


def test_fused_weights_are_pefts_merged_weights(setting: tuple[Net, LoraLayer, Tensor]) -> None:
    net, layer, _ = setting
    merged = peft_model(copy.deepcopy(net), layer).merge_and_unload()
    fuse({"inner": layer}, {"inner": net.inner})
    torch.testing.assert_close(net.inner.weight, merged.inner.weight, **CLOSE)


def test_peft_stacks_on_an_injected_module(setting: tuple[Net, LoraLayer, Tensor]) -> None:
    """The output is the base plus both changes, and each comes off without the other. (Theirs is plain LoRA: a DoRA
    layer of PEFT scales what ours added along with the base.)"""
    net, ours, x = setting
    base, second = net(x), trained(net.inner, seed=2)
    theirs_alone = peft_model(copy.deepcopy(net), second)(x)
    inject({"inner": ours}, {"inner": net.inner})
    ours_alone, module = net(x), net.inner
    model = peft_model(net, second)
    torch.testing.assert_close(model(x) - base, (ours_alone - base) + (theirs_alone - base), **CLOSE)
    assert eject([module]) == 1
    torch.testing.assert_close(model(x), theirs_alone, **CLOSE)
    unloaded = model.unload()
    assert unloaded.inner is module
    assert torch.equal(unloaded(x), base)


def test_we_stack_on_pefts_base_layer(setting: tuple[Net, LoraLayer, Tensor]) -> None:
    net, ours, x = setting
    base, second, module = net(x), trained(net.inner, seed=2), net.inner
    model = peft_model(net, second)
    theirs_alone = model(x)
    inject({"inner": ours}, {"inner": module})
    torch.testing.assert_close(model(x) - theirs_alone, module(x) - base, **CLOSE)
    eject([module])
    assert torch.equal(model(x), theirs_alone)
