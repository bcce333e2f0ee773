"""The laws of architecture.md §5, for every variant and every type of module it has a layer for."""

from __future__ import annotations

import copy
import hashlib
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sd_lora.adapters.file import read_adapter
from sd_lora.adapters.keys import LAYOUTS, kohya_stem, split_key
from sd_lora.adapters.parts import facts_of
from sd_lora.adapters.summary import read_summary
from sd_lora.adapters.writing import write_adapter
from sd_lora.errors import AdapterError
from sd_lora.lora.inject import eject, fuse, inject
from sd_lora.lora.layers import Layer
from sd_lora.lora.norms import delta_norms
from sd_lora.lora.variants import VARIANTS, new_layer, variant_of
from sd_lora.lora.weights import Weights
from sd_lora.models.families import kinds
from sd_lora.storage.safetensors_header import read_header
from sd_lora.tools.inspect import inspect_adapter

MODULES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(24, 40),
    "linear-no-bias": lambda: nn.Linear(24, 40, bias=False),
    "conv1x1": lambda: nn.Conv2d(24, 40, 1),
    "conv3x3": lambda: nn.Conv2d(24, 40, 3, padding=1),
    "conv-stride2": lambda: nn.Conv2d(24, 40, 3, stride=2, padding=1),
    "conv-reflect": lambda: nn.Conv2d(24, 40, (3, 1), padding=(2, 0), dilation=(2, 1), padding_mode="reflect"),
}
CLOSE = {"rtol": 0.0, "atol": 1e-5}


@dataclass(frozen=True)
class Case:
    """One variant on one kind of module."""

    variant: str
    kind: str

    def __str__(self) -> str:
        return f"{self.variant}-{self.kind}"

    def module(self) -> nn.Module:
        torch.manual_seed(0)
        return MODULES[self.kind]().requires_grad_(False)

    def fresh(self, module: nn.Module, seed: int = 1) -> Layer:
        torch.manual_seed(seed)
        return new_layer(module, 3, 1.5, self.variant)

    def trained(self, module: nn.Module, seed: int = 1) -> Layer:
        layer = self.fresh(module, seed)
        with torch.no_grad():
            for weight in layer.parameters():
                weight.normal_(0, 0.5)
        return layer

    def weights(self, layer: Layer) -> Weights:
        return Weights(self.variant, layer.tensors(), layer.alpha)

    def inputs(self, count: int = 3) -> Tensor:
        shape = (count, 5, 24) if self.kind.startswith("linear") else (count, 24, 8, 8)
        return torch.randn(shape, generator=torch.Generator().manual_seed(2))


@pytest.fixture(
    params=[Case(name, kind) for name, row in VARIANTS.items() if row.is_trained for kind in MODULES], ids=str
)
def case(request: pytest.FixtureRequest) -> Case:
    """A module that collects these tests with a fixture of this name has its own cases."""
    return request.param


def attach(layer: Layer, module: nn.Module, name: str = "default") -> None:
    inject({"m": layer}, {"m": module}, name)


def same_bits(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return list(left) == list(right) and all(torch.equal(left[key], right[key]) for key in left)


def weights_hash(module: nn.Module) -> str:
    state = module.state_dict()
    own = [state[key].numpy().tobytes() for key in sorted(state) if not key.startswith("loras.")]
    return hashlib.sha256(b"".join(own)).hexdigest()


def _in_autocast(module: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = module(x)
    assert output.dtype == torch.bfloat16
    return output.float()


def is_bare(module: nn.Module) -> bool:
    return not hasattr(module, "loras") and not module._forward_hooks and not list(module.children())


def test_every_module_type_of_a_variant_is_tested(case: Case) -> None:
    assert {type(make()) for make in MODULES.values()} == set(VARIANTS[case.variant].layers())


def test_the_output_at_init_is_the_base_bit_for_bit(case: Case) -> None:
    module, x = case.module(), case.inputs()
    base = module(x)
    attach(case.fresh(module), module)
    assert torch.equal(module(x), base)


def test_training_starts_with_a_gradient(case: Case) -> None:
    module = case.module()
    attach(case.fresh(module), module)
    module(case.inputs()).square().sum().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in module.loras.parameters())


def test_strength_0_is_the_base_bit_for_bit(case: Case) -> None:
    module, x = case.module(), case.inputs()
    base, layer = module(x), case.trained(module)
    attach(layer, module)
    assert not torch.allclose(module(x), base, **CLOSE)
    layer.strength = 0.0
    assert torch.equal(module(x), base)


def test_a_zero_among_the_strengths_of_a_batch_is_the_base(case: Case) -> None:
    module, x = case.module(), case.inputs(2)
    base, layer = module(x), case.trained(module)
    attach(layer, module)
    layer.strength = torch.tensor([0.0, 1.0])
    assert torch.equal(module(x)[0], base[0])


@pytest.mark.parametrize("copies", [1, 2])
def test_a_strength_per_sample_equals_runs_of_one_strength(case: Case, copies: int) -> None:
    """Under guidance the batch holds the n samples twice; each copy has the same n strengths."""
    module, x = case.module(), case.inputs(3 * copies)
    layer, strengths = case.trained(module), (0.0, 0.5, 1.0)
    attach(layer, module)
    apart = []
    for i in range(3 * copies):
        layer.strength = strengths[i % 3]
        apart.append(module(x[i : i + 1]))
    layer.strength = torch.tensor(strengths)
    torch.testing.assert_close(module(x), torch.cat(apart), **CLOSE)


def test_strengths_that_do_not_divide_the_batch_raise(case: Case) -> None:
    module = case.module()
    layer = case.trained(module)
    attach(layer, module)
    layer.strength = torch.tensor([0.0, 1.0])
    with pytest.raises(AdapterError, match=r"2 strengths .* 3 samples"):
        module(case.inputs(3))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, torch.tensor([1.0, math.nan])], ids=str)
def test_a_strength_that_is_no_finite_number_raises(case: Case, bad: float | Tensor) -> None:
    module = case.module()
    layer = case.trained(module)
    layer.strength = 0.25
    with pytest.raises(AdapterError, match="finite"):
        layer.strength = bad
    assert layer.strength == 0.25


def test_the_change_is_linear_in_the_strength(case: Case) -> None:
    module, x = case.module(), case.inputs()
    base, layer = module(x), case.trained(module)
    attach(layer, module)
    whole = module(x) - base
    layer.strength = -0.4
    torch.testing.assert_close(module(x) - base, -0.4 * whole, **CLOSE)


def test_eject_restores_the_module_bit_for_bit(case: Case) -> None:
    module, x = case.module(), case.inputs()
    keys_and_bits, base = copy.deepcopy(module.state_dict()), module(x)
    attach(case.trained(module), module)
    assert not is_bare(module)
    assert eject([module]) == 1
    assert is_bare(module)
    assert type(module) in VARIANTS[case.variant].layers()
    assert same_bits(module.state_dict(), keys_and_bits)
    assert torch.equal(module(x), base)


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")], ids="-".join)
def test_two_adapters_add_up_and_eject_in_either_order(case: Case, order: tuple[str, str]) -> None:
    module, x = case.module(), case.inputs()
    base, alone = module(x), {}
    layers = {"one": case.trained(module, 3), "two": case.trained(module, 4)}
    for name, layer in layers.items():
        attach(layer, module, name)
        alone[name] = module(x)
        eject([module], name)
    attach(layers["one"], module, "one")
    attach(layers["two"], module, "two")
    torch.testing.assert_close(module(x) - base, alone["one"] + alone["two"] - 2 * base, **CLOSE)
    eject([module], order[0])
    assert torch.equal(module(x), alone[order[1]])
    eject([module], order[1])
    assert is_bare(module)
    assert torch.equal(module(x), base)


@pytest.mark.parametrize("strength", [1.0, 0.7, 0.0])
def test_fused_equals_injected(case: Case, strength: float) -> None:
    module, x = case.module(), case.inputs()
    fused, layer = copy.deepcopy(module), case.trained(module)
    attach(layer, module)
    layer.strength = strength
    fuse({"m": layer}, {"m": fused}, strength)
    assert is_bare(fused)
    torch.testing.assert_close(fused(x), module(x), **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_half_precision_target_keeps_its_dtype_its_start_and_its_strength_0(case: Case, dtype: torch.dtype) -> None:
    module, x = case.module().to(dtype), case.inputs().to(dtype)
    base, exact, layer = module(x), case.module(), case.fresh(module)
    exact.load_state_dict(module.state_dict())
    attach(layer, module)
    assert torch.equal(module(x), base)
    trained = case.trained(module)
    layer.load_tensors(trained.tensors())
    assert {p.dtype for p in layer.parameters()} == {torch.float32}
    assert module(x).dtype == dtype
    attach(trained, exact)
    torch.testing.assert_close(module(x).float(), exact(x.float()), rtol=0.02, atol=0.1)
    layer.strength = 0.0
    assert torch.equal(module(x), base)


def test_under_autocast_the_output_is_near_that_of_float32(case: Case) -> None:
    module, x = case.module(), case.inputs()
    base_error = (_in_autocast(module, x) - module(x)).abs().max()
    attach(case.trained(module), module)
    error = (_in_autocast(module, x) - module(x)).abs().max()
    assert error < 30 * base_error


def test_training_changes_the_layer_and_no_bit_of_the_base(case: Case) -> None:
    module, layer = case.module(), case.fresh(case.module())
    before, start = weights_hash(module), copy.deepcopy(layer.state_dict())
    attach(layer, module)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    for _ in range(2):
        module(case.inputs()).square().mean().backward()
        optimizer.step()
    assert weights_hash(module) == before
    assert not same_bits(layer.state_dict(), start)


def test_only_the_layer_gets_gradients(case: Case) -> None:
    module = case.module()
    layer = case.trained(module)
    attach(layer, module)
    module(case.inputs()).square().sum().backward()
    with_gradient = {id(p) for p in module.parameters() if p.grad is not None}
    assert with_gradient == {id(p) for p in layer.parameters()}
    assert all(p.dtype == torch.float32 for p in layer.parameters())


@pytest.mark.parametrize("reentrant", [False, True], ids=["plain", "reentrant"])
def test_gradient_checkpointing_gives_the_same_gradients(case: Case, reentrant: bool) -> None:
    module, x = case.module(), case.inputs().requires_grad_()
    layer = case.trained(module)
    attach(layer, module)
    gradients = []
    for run in (module, lambda value: checkpoint(module, value, use_reentrant=reentrant)):
        layer.zero_grad()
        run(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in layer.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert torch.equal(plain, checkpointed)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
def test_a_copy_of_an_injected_module_lives_on_its_own(case: Case, duplicate: Callable) -> None:
    module, x = case.module(), case.inputs()
    base = module(x)
    attach(case.trained(module), module)
    output, twin = module(x), duplicate(module)
    assert torch.equal(twin(x), output)
    for layer in twin.loras.values():
        layer.strength = 0.0
    assert torch.equal(twin(x), base)
    assert torch.equal(module(x), output)
    assert eject(twin.modules()) == 1
    assert is_bare(twin)
    assert torch.equal(twin(x), base)
    assert torch.equal(module(x), output)  # the original keeps its own


def test_saved_and_loaded_weights_are_bit_equal(case: Case, tmp_path: Path) -> None:
    module, x, name = case.module(), case.inputs(), "unet.mid_block.resnets.0.conv1"
    layer, loaded = case.trained(module), case.fresh(module, seed=9)
    write_adapter(tmp_path / "a.safetensors", {name: case.weights(layer)}, {}, "float32")
    weights = read_adapter(tmp_path / "a.safetensors")[0][name]
    assert (weights.rank, weights.alpha) == (layer.rank, layer.alpha)
    loaded.load_tensors(weights.tensors)
    output = module(x)
    assert torch.equal(loaded(x, module, output), layer(x, module, output))
    assert same_bits(loaded.tensors(), layer.tensors())


def test_a_layer_knows_its_variant_and_has_its_roles(case: Case) -> None:
    layer, row = case.fresh(case.module()), VARIANTS[case.variant]
    assert layer.variant == row.name == case.variant
    roles = list(layer.tensors())
    assert set(roles) <= set(row.roles)
    assert row.missing(roles) == []
    assert row.missing(roles[1:]) == [roles[0]]
    assert variant_of(roles) is row


def test_weights_say_what_they_fit(case: Case) -> None:
    module = case.module()
    weights = case.weights(case.trained(module))
    shape = tuple(module.weight.shape)
    assert (weights.rank, weights.shape[0], math.prod(weights.shape)) == (3, shape[0], math.prod(shape))
    assert weights.row.fits(weights.shapes, shape)
    assert not weights.row.fits(weights.shapes, (shape[0] + 1, *shape[1:]))
    assert weights.row.problem(weights.shapes, "diffusers") == ""
    odd = [{**weights.shapes, role: (1, *of_role[1:])} for role, of_role in weights.shapes.items()]
    assert any(weights.row.problem(shapes, "kohya") for shapes in odd)


def test_norms_are_those_of_the_product_in_numpy_and_torch_alike(case: Case) -> None:
    module = case.module()
    layers = case.trained(module), case.trained(module, 3)
    one, other = map(case.weights, layers)
    products = [w.scaling * w.row.product(w.tensors).double() for w in (one, other)]
    arrays = Weights(one.variant, {role: tensor.numpy() for role, tensor in one.tensors.items()}, one.alpha)
    for weights in (one, arrays):
        assert weights.squared_norm == pytest.approx(float(products[0].square().sum()), rel=1e-5)
    assert one.squared_difference(other) == pytest.approx(float((products[0] - products[1]).square().sum()), rel=1e-5)
    assert one.squared_difference(one) <= 1e-12 * one.squared_norm
    assert delta_norms(layers) == pytest.approx([w.squared_norm**0.5 for w in (one, other)], rel=1e-4)


def test_a_variant_whose_change_does_not_need_the_base_says_so(case: Case) -> None:
    module = case.module()
    layer = case.trained(module)
    delta, elsewhere = (layer.delta_weight(weight) for weight in (module.weight, 2 * module.weight))
    assert torch.equal(delta, elsewhere) is not VARIANTS[case.variant].needs_base


def test_another_alpha_in_the_scaled_role_is_the_same_change(case: Case) -> None:
    module = case.module()
    one = case.weights(case.trained(module))
    tensors = one.row.scaled(one.tensors, 0.5)
    assert one.squared_difference(Weights(one.variant, tensors, 2 * one.alpha)) <= 1e-12 * one.squared_norm


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_key_is_read_as_what_it_was_written(case: Case, layout: str, tmp_path: Path) -> None:
    """By the reader, by the summary and by what judges for other programs."""
    path, row, name = tmp_path / "a.safetensors", VARIANTS[case.variant], "unet.mid_block.resnets.0.conv1"
    weights = case.weights(case.trained(case.module()))
    write_adapter(path, {name: weights}, kinds()["sd1"].marks, "float32", layout)
    header, metadata = read_header(path)
    stem = kohya_stem(name) if layout == "kohya" else name
    assert {key: split_key(key).role for key in header if not key.endswith(".alpha")} == {
        f"{stem}.{row.keys[layout][role]}": role for role in weights.tensors
    }
    facts = facts_of({key: info.shape for key, info in header.items()}, metadata, {})
    assert [part.variant for part in facts.parts] == [row.name]
    assert facts.stray == ()
    assert (read_summary(path).variant, read_summary(path).title) == (row.name, row.title)
    report = inspect_adapter(path)
    assert (report.variant, report.ranks) == (row.name, {3: 1})
    assert report.norms == pytest.approx({"unet.mid": weights.squared_norm**0.5}, rel=1e-5)


def test_a_file_that_lacks_a_tensor_is_refused_by_the_name_of_its_role(case: Case, tmp_path: Path) -> None:
    path, row, name = tmp_path / "a.safetensors", VARIANTS[case.variant], "unet.mid_block.resnets.0.conv1"
    write_adapter(path, {name: case.weights(case.trained(case.module()))}, {}, "float32")
    tensors, roles = load_file(path), case.trained(case.module()).tensors()
    for role in roles:
        ending, rest = row.keys["kohya"][role], set(roles) - {role}
        other = variant_of(rest)
        if other and other.missing(rest):  # a DoRA without its magnitude is a LoRA
            save_file({key: tensor for key, tensor in tensors.items() if not key.endswith(f".{ending}")}, path)
            with pytest.raises(AdapterError, match=f"{name} has no {role}"):
                read_adapter(path)
