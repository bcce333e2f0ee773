"""`LoraLayer`: how it is made, what it computes and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from sd_lora.errors import AdapterError
from sd_lora.lora.inject import inject
from sd_lora.lora.layers import LoraConv2d, LoraLayer, LoraLinear, checked_strength
from sd_lora.lora.variants import VARIANTS, new_layer


def trained(module: nn.Module, rank: int = 2, alpha: float = 3.0) -> LoraLayer:
    torch.manual_seed(0)
    layer = new_layer(module, rank, alpha)
    nn.init.normal_(layer.up.weight)
    return layer


def added(layer: LoraLayer, module: nn.Module, x: Tensor) -> Tensor:
    """What `layer` adds to `module`'s output for `x`."""
    return layer(x, module, module(x))


def test_the_table_gives_each_module_type_its_layer() -> None:
    assert type(new_layer(nn.Linear(2, 3), 1, 1.0)) is LoraLinear
    assert type(new_layer(nn.Conv2d(2, 3, 1), 1, 1.0)) is LoraConv2d
    assert "lora" in VARIANTS


def test_scaling_is_alpha_over_rank() -> None:
    x, module = torch.ones(1, 4), nn.Linear(4, 4)
    quiet, loud = trained(module, alpha=1.0), trained(module, alpha=6.0)
    assert (quiet.scaling, loud.scaling) == (0.5, 3.0)
    torch.testing.assert_close(added(loud, module, x), 6 * added(quiet, module, x))


def test_a_fresh_layer_has_kaiming_down_and_zero_up() -> None:
    torch.manual_seed(0)
    layer = new_layer(nn.Linear(400, 7), 16, 16.0)
    assert not layer.up.weight.any()
    bound = 1 / math.sqrt(400)  # Kaiming with a = √5
    assert 0.95 * bound < float(layer.down.weight.detach().abs().max()) <= bound


def test_weights_are_float32_and_on_the_device_of_the_target() -> None:
    layer = new_layer(nn.Linear(4, 4, dtype=torch.bfloat16), 2, 2.0)
    assert {p.dtype for p in layer.parameters()} == {torch.float32}
    empty = nn.Linear(4, 4, device="meta")  # as a denoiser is until all is encoded
    assert {p.device.type for p in new_layer(empty, 2, 2.0).parameters()} == {"cpu"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_target_keeps_its_output_dtype(dtype: torch.dtype) -> None:
    module = nn.Linear(8, 8).to(dtype)
    layer, x = trained(module), torch.ones(1, 8, dtype=dtype)
    base = module(x)
    inject({"m": layer}, {"m": module})
    assert module(x).dtype == dtype
    torch.testing.assert_close(module(x) - base, layer(x, module, base).to(dtype), rtol=0.02, atol=0.02)


def test_under_autocast_the_layer_computes_in_the_autocast_dtype() -> None:
    module, x = nn.Linear(8, 8), torch.ones(1, 8)
    layer = trained(module)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = added(layer, module, x)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), added(layer, module, x), rtol=0.03, atol=0.03)


@pytest.mark.parametrize(
    ("module", "shapes"),
    [
        (nn.Linear(6, 10), ((2, 6), (10, 2))),
        (nn.Conv2d(6, 10, 1), ((2, 6, 1, 1), (10, 2, 1, 1))),
        (nn.Conv2d(6, 10, (3, 5), stride=2), ((2, 6, 3, 5), (10, 2, 1, 1))),
    ],
    ids=["linear", "conv1x1", "conv3x5"],
)
def test_shapes_are_those_of_the_file_format(module: nn.Module, shapes: tuple[tuple[int, ...], ...]) -> None:
    layer = trained(module)
    tensors = layer.tensors()
    assert (tuple(tensors["down"].shape), tuple(tensors["up"].shape)) == shapes
    assert layer.delta_weight(module.weight).shape == module.weight.shape


def test_delta_weight_of_a_conv_gives_the_layers_own_output() -> None:
    module = nn.Conv2d(3, 5, 3, stride=2, padding=1)
    layer, x = trained(module), torch.randn(2, 3, 8, 8)
    fused = functional.conv2d(x, layer.delta_weight(module.weight), stride=2, padding=1)
    torch.testing.assert_close(fused, added(layer, module, x), rtol=0, atol=1e-5)


def test_a_conv_with_groups_is_refused() -> None:
    with pytest.raises(AdapterError, match="2 groups"):
        new_layer(nn.Conv2d(4, 4, 3, groups=2), 2, 2.0)


def test_tensors_carry_no_gradient_and_load_back() -> None:
    module = nn.Linear(4, 4)
    source, copy = trained(module), new_layer(module, 2, 3.0)
    assert not any(t.requires_grad for t in source.tensors().values())
    copy.load_tensors(source.tensors())
    assert torch.equal(copy.delta_weight(module.weight), source.delta_weight(module.weight))
    assert copy.up.weight.requires_grad


def test_a_variant_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(AdapterError, match='no variant "dorra"; did you mean "dora"'):
        new_layer(nn.Linear(4, 4), 2, 2.0, "dorra")


@pytest.mark.parametrize(("variant", "roles"), [("lora", "down up magnitude"), ("dora", "down up")])
def test_only_the_roles_of_the_variant_are_loaded(variant: str, roles: str) -> None:
    layer = new_layer(nn.Linear(4, 4), 2, 2.0, variant)
    before = {role: tensor.clone() for role, tensor in layer.tensors().items()}
    tensors = {"down": torch.ones(2, 4), "up": torch.ones(4, 2), "magnitude": torch.ones(4)}
    with pytest.raises(ValueError, match="magnitude"):
        layer.load_tensors({role: tensors[role] for role in roles.split()})
    assert all(torch.equal(tensor, before[role]) for role, tensor in layer.tensors().items())


def test_tensors_of_another_shape_do_not_load() -> None:
    layer = trained(nn.Linear(4, 4))
    with pytest.raises(RuntimeError):
        layer.load_tensors({"down": torch.zeros(3, 4), "up": torch.zeros(4, 3)})


@pytest.mark.parametrize(("value", "expected"), [(1, 1.0), (0.5, 0.5), (-2, -2.0), (torch.tensor(0.25), 0.25)], ids=str)
def test_one_number_is_kept_as_a_float(value: float | Tensor, expected: float) -> None:
    kept = checked_strength(value)
    assert type(kept) is float
    assert kept == expected


def test_strengths_are_a_vector_at_most() -> None:
    assert isinstance(checked_strength(torch.tensor([1.0])), Tensor)
    with pytest.raises(AdapterError, match=r"shape \(1, 2\)"):
        checked_strength(torch.ones(1, 2))


def test_no_strengths_at_all_are_refused() -> None:
    with pytest.raises(AdapterError):
        checked_strength(torch.tensor([]))


@pytest.mark.parametrize("value", [0.0, -0.0, torch.tensor(0.0)], ids=["0", "-0", "tensor"])
def test_only_the_strength_zero_switches_a_layer_off(value: float | Tensor) -> None:
    layer = trained(nn.Linear(4, 4))
    assert not layer.is_off
    layer.strength = value
    assert layer.is_off
    layer.strength = 1e-6
    assert not layer.is_off


def test_whole_number_strengths_work_too() -> None:
    module, x = nn.Linear(4, 4), torch.ones(2, 4)
    layer = trained(module)
    expected = torch.stack([torch.zeros(4), 2 * added(layer, module, x)[1]])
    layer.strength = torch.tensor([0, 2])
    torch.testing.assert_close(added(layer, module, x), expected)


def test_the_layer_says_its_rank_and_alpha() -> None:
    assert "rank=2, alpha=3" in repr(trained(nn.Linear(4, 4)))
