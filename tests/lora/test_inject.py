"""`inject`, `eject` and `fuse`: what they refuse, and that a refusal changes nothing."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import nn

from sd_lora.errors import AdapterError
from sd_lora.lora.inject import eject, fuse, inject
from sd_lora.lora.layers import LoraLayer
from sd_lora.lora.variants import new_layer


@pytest.fixture
def modules() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"first": nn.Linear(4, 4), "second": nn.Conv2d(4, 4, 3), "third": nn.Linear(4, 2)}


@pytest.fixture
def layers(modules: dict[str, nn.Module]) -> dict[str, LoraLayer]:
    return trained(modules)


def trained(modules: dict[str, nn.Module]) -> dict[str, LoraLayer]:
    made = {key: new_layer(module, 2, 2.0) for key, module in modules.items()}
    for layer in made.values():
        nn.init.normal_(layer.up.weight)
    return made


def untouched(modules: Iterable[nn.Module]) -> bool:
    return not any(hasattr(module, "loras") or module._forward_hooks for module in modules)


def test_inject_attaches_each_layer_to_the_module_of_its_key(modules: dict, layers: dict) -> None:
    inject({"first": layers["first"]}, modules, "style")
    assert modules["first"].loras["style"] is layers["first"]
    assert untouched([modules["second"], modules["third"]])


@pytest.mark.parametrize("name", ["", "a.b", "my.style"])
def test_a_malformed_name_is_refused_with_nothing_attached(modules: dict, layers: dict, name: str) -> None:
    with pytest.raises(AdapterError, match="cannot name an adapter"):
        inject(layers, modules, name)
    assert untouched(modules.values())


@pytest.mark.parametrize("name", ["handle", "keys", "values", "training", "forward"])
def test_a_name_torch_needs_itself_works_or_is_refused_with_nothing_attached(
    modules: dict, layers: dict, name: str
) -> None:
    try:
        inject(layers, modules, name)
    except AdapterError:
        assert untouched(modules.values())
    else:
        assert eject(modules.values(), name) == len(modules)


def test_a_taken_name_is_refused_with_nothing_attached(modules: dict, layers: dict) -> None:
    inject({"third": layers["third"]}, modules, "style")
    with pytest.raises(AdapterError, match='named "style" is already injected'):
        inject(trained(modules), modules, "style")
    assert untouched([modules["first"], modules["second"]])
    assert modules["third"].loras["style"] is layers["third"]


def test_a_layer_without_a_module_is_refused_with_nothing_attached(modules: dict, layers: dict) -> None:
    del modules["third"]
    with pytest.raises(AdapterError, match="third"):
        inject(layers, modules)
    assert untouched(modules.values())


def test_there_is_one_hook_however_many_adapters(modules: dict, layers: dict) -> None:
    inject(layers, modules, "one")
    inject(trained(modules), modules, "two")
    assert [len(module._forward_hooks) for module in modules.values()] == [1, 1, 1]
    eject(modules.values(), "one")
    assert [len(module._forward_hooks) for module in modules.values()] == [1, 1, 1]
    eject(modules.values(), "two")
    assert untouched(modules.values())


def test_eject_counts_and_passes_over_what_is_not_there(modules: dict, layers: dict) -> None:
    inject({"first": layers["first"], "third": layers["third"]}, modules, "style")
    assert eject(modules.values(), "another") == 0
    assert eject(modules.values(), "style") == 2
    assert eject(modules.values(), "style") == 0


def test_an_ejected_layer_can_be_injected_again(modules: dict, layers: dict) -> None:
    x = torch.ones(1, 4)
    inject(layers, modules)
    first = modules["first"](x)
    eject(modules.values())
    inject(layers, modules)
    assert torch.equal(modules["first"](x), first)


def test_eject_leaves_other_hooks_alone(modules: dict, layers: dict) -> None:
    calls = []
    modules["first"].register_forward_hook(lambda *_: calls.append(1))
    inject(layers, modules)
    eject(modules.values())
    modules["first"](torch.ones(1, 4))
    assert calls == [1]


def test_layers_are_on_the_whole_model_while_injected() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    keys = set(model.state_dict())
    layers = trained({"0": model[0], "2": model[2]})
    inject(layers, {"0": model[0], "2": model[2]}, "style")
    added = set(model.state_dict()) - keys
    assert added == {f"{i}.loras.style.{role}.weight" for i in (0, 2) for role in ("down", "up")}
    assert [type(m) for m in model] == [nn.Linear, nn.ReLU, nn.Linear]
    eject(model.modules(), "style")
    assert set(model.state_dict()) == keys


def test_fuse_takes_one_finite_strength_and_changes_nothing_otherwise(modules: dict, layers: dict) -> None:
    before = {key: module.weight.clone() for key, module in modules.items()}
    for bad in (torch.tensor([0.0, 1.0]), float("nan")):
        with pytest.raises(AdapterError):
            fuse(layers, modules, bad)
    assert all(torch.equal(modules[key].weight, before[key]) for key in modules)


def test_fuse_adds_delta_weight_times_strength(modules: dict, layers: dict) -> None:
    before = modules["second"].weight.clone()
    bias = modules["second"].bias.clone()
    fuse(layers, modules, 0.5)
    expected = before + 0.5 * layers["second"].delta_weight(before)
    torch.testing.assert_close(modules["second"].weight.data, expected.data, rtol=0, atol=1e-6)
    assert torch.equal(modules["second"].bias, bias)
    assert modules["second"].weight.requires_grad


def test_fuse_takes_a_strength_for_each_layer(modules: dict, layers: dict) -> None:
    before = {key: module.weight.detach().clone() for key, module in modules.items()}
    fuse(layers, modules, {"first": 0.0, "second": 1.0, "third": -2.0})
    assert torch.equal(modules["first"].weight, before["first"])
    for key, strength in (("second", 1.0), ("third", -2.0)):
        expected = before[key] + strength * layers[key].delta_weight(before[key])
        torch.testing.assert_close(modules[key].weight, expected, rtol=0, atol=1e-6)


def test_fuse_into_half_precision_rounds_once(modules: dict) -> None:
    module = modules["first"].to(torch.bfloat16)
    before, layer = module.weight.clone(), trained({"m": module})["m"]
    fuse({"m": layer}, {"m": module})
    assert module.weight.dtype == torch.bfloat16
    assert torch.equal(module.weight, (before.float() + layer.delta_weight(before)).to(torch.bfloat16))
