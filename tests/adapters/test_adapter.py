"""`Adapter`: created, injected, saved and loaded on a tiny random base."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.fit import base_name, modules_of
from sd_lora.errors import AdapterError, SdLoraError
from sd_lora.lora.targets import plan_targets
from sd_lora.models.families import FAMILIES

GROUPS = FAMILIES["sd"].target_groups
MakeAdapter = Callable[..., Adapter]


@pytest.fixture
def saved(random_sd: Any, trained_adapter: MakeAdapter, tmp_path: Path) -> Path:
    return trained_adapter(random_sd, "attn", "conv").save(tmp_path / "style.safetensors", dtype="float32")


def fresh(pipe: Any, seed: int = 0) -> Adapter:
    return Adapter.create(plan_targets({"unet": pipe.unet}, GROUPS, ["attn"], (4, 4.0)), seed=seed)


def predict(pipe: Any, count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    noisy, states = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 32, 32, generator=generator)
    with torch.no_grad():
        return pipe.unet(noisy.expand(count, -1, -1, -1), 500, states.expand(count, -1, -1), return_dict=False)[0]


def weights_hash(pipe: Any) -> str:
    digest = hashlib.sha256()
    for component in (pipe.unet, pipe.text_encoder, pipe.vae):
        for key, tensor in component.state_dict().items():
            digest.update(key.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def untouched(pipe: Any) -> bool:
    parts = [*pipe.unet.modules(), *pipe.text_encoder.modules()]
    return not any(hasattr(module, "loras") or module._forward_hooks for module in parts)


def same_bits(left: Adapter, right: Adapter) -> bool:
    a, b = left.weights, right.weights
    same = [
        torch.equal(a[n].tensors["down"], b[n].tensors["down"])
        and torch.equal(a[n].tensors["up"], b[n].tensors["up"])
        and a[n].alpha == b[n].alpha
        for n in a
    ]
    return set(a) == set(b) and all(same)


def test_the_same_seed_gives_the_same_start_and_another_another(random_sd: Any) -> None:
    assert same_bits(fresh(random_sd, 3), fresh(random_sd, 3))
    assert not same_bits(fresh(random_sd, 3), fresh(random_sd, 4))


def test_creating_does_not_disturb_the_random_numbers_of_the_caller(random_sd: Any) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fresh(random_sd)
    assert torch.equal(torch.rand(3), expected)


def test_a_fresh_adapter_changes_nothing_and_trains_float32_weights(random_sd: Any) -> None:
    base, adapter = predict(random_sd), fresh(random_sd)
    assert len(adapter.parameters()) == 2 * len(adapter.weights) > 0
    assert all(p.requires_grad and p.dtype == torch.float32 for p in adapter.parameters())
    with adapter.injected(random_sd):
        assert torch.equal(predict(random_sd), base)
        trainable = [p for p in random_sd.unet.parameters() if p.requires_grad]
    assert {id(p) for p in trainable} == {id(p) for p in adapter.parameters()}


def test_inject_and_eject_leave_the_pipeline_as_it_was(random_sd: Any, trained_adapter: MakeAdapter) -> None:
    before, base = weights_hash(random_sd), predict(random_sd)
    adapter = trained_adapter(random_sd, "attn", "ff", "conv", "proj")
    assert not adapter.is_injected
    assert adapter.inject(random_sd) is adapter
    assert adapter.is_injected
    assert not torch.allclose(predict(random_sd), base, atol=1e-3)
    adapter.eject()
    assert not adapter.is_injected
    assert untouched(random_sd)
    assert weights_hash(random_sd) == before
    assert torch.equal(predict(random_sd), base)


def test_injected_ejects_after_an_exception_too(random_sd: Any, trained_adapter: MakeAdapter) -> None:
    adapter = trained_adapter(random_sd)
    with pytest.raises(ZeroDivisionError), adapter.injected(random_sd):
        raise ZeroDivisionError
    assert not adapter.is_injected
    assert untouched(random_sd)


def test_strength_can_be_set_at_inject_and_changed_while_injected(random_sd: Any, trained_adapter: MakeAdapter) -> None:
    base, adapter, outputs = predict(random_sd), trained_adapter(random_sd), {}
    with adapter.injected(random_sd, 0.5):
        assert adapter.strength == 0.5
        outputs[0.5] = predict(random_sd)
        for strength in (0.0, 1.0):
            adapter.strength = strength
            outputs[strength] = predict(random_sd)
        adapter.strength = torch.tensor([0.0, 0.5, 1.0])
        together = predict(random_sd, 3)
    assert torch.equal(outputs[0.0], base)
    torch.testing.assert_close(together, torch.cat([outputs[s] for s in (0.0, 0.5, 1.0)]), rtol=0, atol=1e-5)
    assert not torch.allclose(outputs[0.5], outputs[1.0], atol=1e-3)


def test_a_bad_strength_is_refused_with_nothing_attached(random_sd: Any, trained_adapter: MakeAdapter) -> None:
    adapter = trained_adapter(random_sd)
    with pytest.raises(AdapterError, match="finite"):
        adapter.inject(random_sd, float("nan"))
    assert untouched(random_sd)
    with adapter.injected(random_sd, 0.5):
        with pytest.raises(AdapterError, match="finite"):
            adapter.strength = float("inf")
        assert adapter.strength == 0.5


def test_two_adapters_share_a_base_under_two_names(random_sd: Any, trained_adapter: MakeAdapter) -> None:
    base, one, two = predict(random_sd), trained_adapter(random_sd, seed=1), trained_adapter(random_sd, seed=2)
    one.inject(random_sd, 0.3, name="one")
    alone = predict(random_sd)
    with pytest.raises(AdapterError, match="already injected"):
        two.inject(random_sd, 0.7, name="one")
    assert not two.is_injected
    assert two.strength == 1.0
    two.inject(random_sd, name="two")
    one.eject()
    assert not torch.equal(predict(random_sd), alone)
    two.eject()
    assert untouched(random_sd)
    assert torch.equal(predict(random_sd), base)


def test_fuse_equals_inject_and_stays(random_sd: Any, saved: Path) -> None:
    adapter = Adapter.load(saved)
    with adapter.injected(random_sd, 0.8):
        injected = predict(random_sd)
    Adapter.load(saved).fuse(random_sd, 0.8)
    assert untouched(random_sd)
    torch.testing.assert_close(predict(random_sd), injected, rtol=0, atol=1e-5)


def test_a_loaded_adapter_is_the_saved_one(random_sd: Any, trained_adapter: MakeAdapter, tmp_path: Path) -> None:
    adapter = trained_adapter(random_sd)
    adapter.metadata |= {"sdlora.trigger": "xyz", "sdlora.base": "random-sd"}
    path = adapter.save(tmp_path / "style.safetensors", dtype="float32")
    loaded = Adapter.load(path)
    assert same_bits(loaded, adapter)
    assert (loaded.trigger, loaded.base, loaded.label) == ("xyz", "random-sd", str(path))
    outputs = []
    for each in (adapter, loaded):
        with each.injected(random_sd):
            outputs.append(predict(random_sd))
    assert torch.equal(*outputs)
    assert same_bits(loaded, adapter)


def test_metadata_is_optional(random_sd: Any) -> None:
    assert (fresh(random_sd).trigger, fresh(random_sd).base) == ("", "")


def test_saving_twice_gives_the_same_tensor_bytes(saved: Path) -> None:
    hashes = set()
    for name in ("one", "two"):
        path = Adapter.load(saved).save(saved.with_name(f"{name}.safetensors"))
        hashes.add(Adapter.load(path).metadata["sshs_model_hash"])
    assert len(hashes) == 1


def test_parameters_come_in_a_fixed_order(random_sd: Any, saved: Path) -> None:
    """Optimizer state and processes that train together rely on it."""
    orders = set()
    for _ in range(5):
        with Adapter.load(saved).injected(random_sd) as adapter:
            orders.add(tuple(float(p.detach().sum()) for p in adapter.parameters()))
    assert len(orders) == 1


def test_modules_of_sees_the_same_modules_while_injected(random_sd: Any, trained_adapter: MakeAdapter) -> None:
    before = modules_of(random_sd)
    with trained_adapter(random_sd, "attn", "conv").injected(random_sd):
        assert modules_of(random_sd) == before
    assert {name.split(".")[0] for name in before} == {"unet", "text_encoder"}
    assert all(n.startswith("text_encoder.text_model.") for n in before if n.startswith("text_encoder"))


def test_targets_in_the_text_encoder_can_be_created_and_injected(random_sd: Any) -> None:
    plan = plan_targets({"text_encoder": random_sd.text_encoder}, {}, ["*.q_proj"], (2, 2.0))
    with Adapter.create(plan).injected(random_sd) as adapter:
        assert set(adapter.weights) <= set(modules_of(random_sd))


def test_a_base_is_named_by_its_folder_never_by_a_path(random_sd: Any, random_sd_folder: Path) -> None:
    assert base_name(random_sd) == random_sd_folder.name == "random-sd"


def test_one_adapter_is_not_injected_twice_into_the_same_base(random_sd: Any, trained_adapter: MakeAdapter) -> None:
    adapter = trained_adapter(random_sd)
    with adapter.injected(random_sd):
        once = predict(random_sd)
        with pytest.raises(AdapterError, match="already injected"):
            adapter.inject(random_sd, name="again")
        assert torch.equal(predict(random_sd), once)
    assert untouched(random_sd)


def test_leaving_an_inner_block_keeps_the_outer_one(random_sd_folder: Path, trained_adapter: MakeAdapter) -> None:
    from sd_lora import load_base

    outer, inner = (load_base(random_sd_folder)[0] for _ in range(2))
    adapter = trained_adapter(outer)
    with adapter.injected(outer):
        styled = predict(outer)
        with adapter.injected(inner):
            assert torch.equal(predict(inner), styled)
        assert untouched(inner)
        assert torch.equal(predict(outer), styled)
    assert untouched(outer)


def test_a_module_called_by_keyword_gets_its_layer_too(random_sd: Any, trained_adapter: MakeAdapter) -> None:
    adapter, x = trained_adapter(random_sd), torch.randn(1, 3, 32)
    module = next(m for name, m in modules_of(random_sd).items() if name.endswith("attn1.to_q"))
    plain = module(x)
    with adapter.injected(random_sd):
        assert torch.equal(module(input=x), module(x))
        assert not torch.equal(module(x), plain)


@pytest.mark.parametrize(
    ("dtype", "folder", "words"), [("int3", "", "not saved as"), ("float16", "no/such", "written")]
)
def test_a_save_that_cannot_be_is_a_sentence(
    random_sd: Any, trained_adapter: MakeAdapter, tmp_path: Path, dtype: str, folder: str, words: str
) -> None:
    with pytest.raises(SdLoraError, match=words):
        trained_adapter(random_sd).save(tmp_path / folder / "style.safetensors", dtype=dtype)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_adapter_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="no modules"):
        Adapter({}, {}).save(tmp_path / "style.safetensors")
    assert list(tmp_path.iterdir()) == []
