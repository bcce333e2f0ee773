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
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sd_lora.adapters.file import read_adapter
from sd_lora.adapters.writing import write_adapter
from sd_lora.errors import AdapterError
from sd_lora.lora.inject import eject, fuse, inject, set_strength
from sd_lora.lora.layers import LoraLayer
from sd_lora.lora.variants import VARIANTS, new_layer
from sd_lora.lora.weights import Weights

MODULES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(6, 10),
    "linear-no-bias": lambda: nn.Linear(6, 10, bias=False),
    "conv1x1": lambda: nn.Conv2d(6, 10, 1),
    "conv3x3": lambda: nn.Conv2d(6, 10, 3, padding=1),
    "conv-stride2": lambda: nn.Conv2d(6, 10, 3, stride=2, padding=1),
    "conv-reflect": lambda: nn.Conv2d(6, 10, (3, 1), padding=(2, 0), dilation=(2, 1), padding_mode="reflect"),
}
CLOSE = {"rtol": 0.0, "atol": 1e-5}


@dataclass(frozen=True)
class Case:
    """One variant on one kind of module."""

    variant: str
    kind: str

    def module(self) -> nn.Module:
        torch.manual_seed(0)
        return MODULES[self.kind]().requires_grad_(False)

    def fresh(self, module: nn.Module, seed: int = 1) -> LoraLayer:
        torch.manual_seed(seed)
        return new_layer(module, 3, 1.5, self.variant)

    def trained(self, module: nn.Module, seed: int = 1) -> LoraLayer:
        layer = self.fresh(module, seed)
        with torch.no_grad():
            for weight in layer.parameters():
                weight.normal_(0, 0.5)
        return layer

    def inputs(self, count: int = 3) -> Tensor:
        shape = (count, 5, 6) if self.kind.startswith("linear") else (count, 6, 8, 8)
        return torch.randn(shape, generator=torch.Generator().manual_seed(2))


CASES = [Case(variant, kind) for variant in VARIANTS for kind in MODULES]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.variant}-{case.kind}")


def attach(layer: LoraLayer, module: nn.Module, name: str = "default") -> None:
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


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_module_type_of_a_variant_is_tested(variant: str) -> None:
    assert {type(make()) for make in MODULES.values()} == set(VARIANTS[variant].layers())


@every_case
def test_the_output_at_init_is_the_base_bit_for_bit(case: Case) -> None:
    module, x = case.module(), case.inputs()
    base = module(x)
    attach(case.fresh(module), module)
    assert torch.equal(module(x), base)


@every_case
def test_training_starts_with_a_gradient(case: Case) -> None:
    module = case.module()
    attach(case.fresh(module), module)
    module(case.inputs()).square().sum().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in module.loras.parameters())


@every_case
def test_strength_0_is_the_base_bit_for_bit(case: Case) -> None:
    module, x = case.module(), case.inputs()
    base, layer = module(x), case.trained(module)
    attach(layer, module)
    assert not torch.allclose(module(x), base, **CLOSE)
    set_strength([layer], 0.0)
    assert torch.equal(module(x), base)


@every_case
def test_a_zero_among_the_strengths_of_a_batch_is_the_base(case: Case) -> None:
    module, x = case.module(), case.inputs(2)
    base, layer = module(x), case.trained(module)
    attach(layer, module)
    set_strength([layer], torch.tensor([0.0, 1.0]))
    assert torch.equal(module(x)[0], base[0])


@every_case
@pytest.mark.parametrize("copies", [1, 2])
def test_a_strength_per_sample_equals_runs_of_one_strength(case: Case, copies: int) -> None:
    """Under guidance the batch holds the n samples twice; each copy has the same n strengths."""
    module, x = case.module(), case.inputs(3 * copies)
    layer, strengths = case.trained(module), (0.0, 0.5, 1.0)
    attach(layer, module)
    apart = []
    for i in range(3 * copies):
        set_strength([layer], strengths[i % 3])
        apart.append(module(x[i : i + 1]))
    set_strength([layer], torch.tensor(strengths))
    torch.testing.assert_close(module(x), torch.cat(apart), **CLOSE)


@every_case
def test_strengths_that_do_not_divide_the_batch_raise(case: Case) -> None:
    module = case.module()
    layer = case.trained(module)
    attach(layer, module)
    set_strength([layer], torch.tensor([0.0, 1.0]))
    with pytest.raises(AdapterError, match=r"2 strengths .* 3 samples"):
        module(case.inputs(3))


@every_case
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, torch.tensor([1.0, math.nan])], ids=str)
def test_a_strength_that_is_no_finite_number_raises(case: Case, bad: float | Tensor) -> None:
    module = case.module()
    layer = case.trained(module)
    set_strength([layer], 0.25)
    with pytest.raises(AdapterError, match="finite"):
        set_strength([layer], bad)
    with pytest.raises(AdapterError, match="finite"):
        layer.strength = bad
    assert layer.strength == 0.25


@every_case
def test_the_change_is_linear_in_the_strength(case: Case) -> None:
    module, x = case.module(), case.inputs()
    base, layer = module(x), case.trained(module)
    attach(layer, module)
    whole = module(x) - base
    set_strength([layer], -0.4)
    torch.testing.assert_close(module(x) - base, -0.4 * whole, **CLOSE)


@every_case
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


@every_case
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


@every_case
@pytest.mark.parametrize("strength", [1.0, 0.7, 0.0])
def test_fused_equals_injected(case: Case, strength: float) -> None:
    module, x = case.module(), case.inputs()
    fused, layer = copy.deepcopy(module), case.trained(module)
    attach(layer, module)
    set_strength([layer], strength)
    fuse({"m": layer}, {"m": fused}, strength)
    assert is_bare(fused)
    torch.testing.assert_close(fused(x), module(x), **CLOSE)


@every_case
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
    set_strength([layer], 0.0)
    assert torch.equal(module(x), base)


@every_case
def test_under_autocast_the_output_is_near_that_of_float32(case: Case) -> None:
    module, x = case.module(), case.inputs()
    base_error = (_in_autocast(module, x) - module(x)).abs().max()
    attach(case.trained(module), module)
    error = (_in_autocast(module, x) - module(x)).abs().max()
    assert error < 30 * base_error


@every_case
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


@every_case
def test_only_the_layer_gets_gradients(case: Case) -> None:
    module = case.module()
    layer = case.trained(module)
    attach(layer, module)
    module(case.inputs()).square().sum().backward()
    with_gradient = {id(p) for p in module.parameters() if p.grad is not None}
    assert with_gradient == {id(p) for p in layer.parameters()}
    assert all(p.dtype == torch.float32 for p in layer.parameters())


@every_case
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


@every_case
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
def test_a_copy_of_an_injected_module_lives_on_its_own(case: Case, duplicate: Callable) -> None:
    module, x = case.module(), case.inputs()
    base = module(x)
    attach(case.trained(module), module)
    output, twin = module(x), duplicate(module)
    assert torch.equal(twin(x), output)
    set_strength(twin.loras.values(), 0.0)
    assert torch.equal(twin(x), base)
    assert torch.equal(module(x), output)
    assert eject(twin.modules()) == 1
    assert is_bare(twin)
    assert torch.equal(twin(x), base)
    assert torch.equal(module(x), output)  # the original keeps its own


@every_case
def test_saved_and_loaded_weights_are_bit_equal(case: Case, tmp_path: Path) -> None:
    module, x, name = case.module(), case.inputs(), "unet.mid_block.resnets.0.conv1"
    layer, loaded = case.trained(module), case.fresh(module, seed=9)
    weights = Weights(case.variant, layer.tensors(), layer.alpha)
    write_adapter(tmp_path / "a.safetensors", {name: weights}, {}, "float32")
    weights = read_adapter(tmp_path / "a.safetensors")[0][name]
    assert (weights.rank, weights.alpha) == (layer.rank, layer.alpha)
    loaded.load_tensors(weights.tensors)
    output = module(x)
    assert torch.equal(loaded(x, module, output), layer(x, module, output))
    assert same_bits(loaded.tensors(), layer.tensors())
