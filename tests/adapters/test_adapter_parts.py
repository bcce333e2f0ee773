"""`Adapter` by its parts: variants, the parameters of a component, strengths of components and blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sd_lora.adapters.adapter import Adapter
from sd_lora.errors import AdapterError
from sd_lora.lora.dora import DoraLinear
from sd_lora.lora.layers import LoraLinear
from sd_lora.lora.targets import plan_targets
from sd_lora.lora.weights import Weights
from sd_lora.models.families import FAMILIES

GROUPS = FAMILIES["sd"].target_groups
ATTENTION = ["attn", "*.self_attn.*_proj"]
BLOCKS = {"text_encoder": 0.5, "unet": {"down": 0.25, "up": {"block_1": [0.0, 2.0]}}}


def fresh(pipe: Any, variant: str = "", targets: Sequence[str] = ATTENTION, **metadata: str) -> Adapter:
    components = {"unet": pipe.unet, "text_encoder": pipe.text_encoder}
    plan = plan_targets(components, GROUPS, targets, (4, 2.0))
    return Adapter.create(plan, metadata, seed=1, variant=variant)


def trained(pipe: Any, variant: str = "lora", targets: Sequence[str] = ATTENTION) -> Adapter:
    adapter, generator = fresh(pipe, variant, targets), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in adapter.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    return adapter


def predict(pipe: Any) -> torch.Tensor:
    """The prediction of the UNet for what the text encoder makes of a few tokens."""
    noisy = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = pipe.text_encoder(torch.arange(16)[None])[0]
        return pipe.unet(noisy, 500, states, return_dict=False)[0]


def untouched(pipe: Any) -> bool:
    parts = [*pipe.unet.modules(), *pipe.text_encoder.modules()]
    return not any(hasattr(module, "loras") or module._forward_hooks for module in parts)


def strengths(adapter: Adapter) -> dict[str, Any]:
    return {name: layer.strength for name, layer in adapter._layers.items()}


@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_a_variant_starts_as_the_base_and_comes_off_without_a_trace(random_sd: Any, variant: str) -> None:
    base, adapter = predict(random_sd), fresh(random_sd, variant)
    assert adapter.variant == adapter.metadata["sdlora.variant"] == variant
    with adapter.injected(random_sd):
        assert torch.equal(predict(random_sd), base)
    changed = trained(random_sd, variant)
    with changed.injected(random_sd):
        assert not torch.allclose(predict(random_sd), base, atol=1e-3)
        changed.strength = 0.0
        assert torch.equal(predict(random_sd), base)
    assert untouched(random_sd)
    assert torch.equal(predict(random_sd), base)


def test_the_variant_is_that_of_the_metadata_unless_it_is_given(random_sd: Any) -> None:
    assert fresh(random_sd).variant == "lora"
    assert fresh(random_sd, **{"sdlora.variant": "dora"}).variant == "dora"
    overruled = fresh(random_sd, "lora", **{"sdlora.variant": "dora"})
    assert overruled.variant == overruled.metadata["sdlora.variant"] == "lora"
    with pytest.raises(AdapterError, match='no variant "doro"; did you mean "dora"'):
        fresh(random_sd, "doro")


def test_both_variants_start_from_the_same_down_weights(random_sd: Any) -> None:
    plain, dora = fresh(random_sd, "lora").weights, fresh(random_sd, "dora").weights
    assert all(torch.equal(plain[name].tensors["down"], dora[name].tensors["down"]) for name in plain)
    assert all(dora[name].tensors["magnitude"].shape == (len(dora[name].tensors["up"]),) for name in plain)  # type: ignore[union-attr]


@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_a_saved_variant_is_loaded_as_what_it_is(random_sd: Any, tmp_path: Path, variant: str) -> None:
    adapter = trained(random_sd, variant)
    loaded = Adapter.load(adapter.save(tmp_path / "style.safetensors", dtype="float32"))
    assert (loaded.variant, loaded.metadata["sdlora.variant"]) == (variant, variant)
    outputs = []
    for each in (adapter, loaded):
        with each.injected(random_sd, 0.7):
            outputs.append(predict(random_sd))
    assert torch.equal(*outputs)
    loaded.fuse(random_sd, 0.7)
    torch.testing.assert_close(predict(random_sd), outputs[0], rtol=0, atol=1e-5)


def test_a_file_may_hold_both_variants(random_sd: Any, tmp_path: Path) -> None:
    plain, dora = trained(random_sd, "lora", ["*.to_q"]), trained(random_sd, "dora", ["*.to_k"])
    both = Adapter({**plain.weights, **dora.weights}, {})
    assert both.variant == "dora"
    loaded = Adapter.load(both.save(tmp_path / "both.safetensors", dtype="float32"))
    with plain.injected(random_sd, name="plain"), dora.injected(random_sd, name="dora"):
        expected = predict(random_sd)
    with loaded.injected(random_sd):
        kinds = {name.rsplit(".", 1)[1]: type(layer) for name, layer in loaded._layers.items()}
        assert kinds == {"to_q": LoraLinear, "to_k": DoraLinear}
        assert torch.equal(predict(random_sd), expected)


def test_parameters_of_components_are_those_of_all_in_the_same_order(random_sd: Any) -> None:
    """A second learning rate needs them apart."""
    adapter = fresh(random_sd)
    unet, text = adapter.parameters("unet"), adapter.parameters("text_encoder")
    ids = [id(p) for p in adapter.parameters()]
    assert [id(p) for p in (*unet, *text)] == ids == [id(p) for p in adapter.parameters("unet", "text_encoder")]
    assert len(text) == 2 * len([name for name in adapter.weights if name.startswith("text_encoder.")]) > 0
    assert adapter.parameters("text_encoder_2") == []
    with pytest.raises(AdapterError, match='"text_encoders"; did you mean "text_encoder"'):
        adapter.parameters("text_encoders")


def test_the_strength_that_was_set_is_given_back_and_is_no_more_linked_to_it(random_sd: Any) -> None:
    adapter, value = trained(random_sd), {"unet": {"up": 0.5}}
    with adapter.injected(random_sd, value):
        value["unet"]["up"] = 9.0
        assert adapter.strength == {"unet": {"up": 0.5}}
        assert {s for name, s in strengths(adapter).items() if ".up_blocks." in name} == {0.5}
        adapter.strength = 0.1
        assert (adapter.strength, set(strengths(adapter).values())) == (0.1, {0.1})


def test_strengths_of_parts_act_on_these_parts(random_sd: Any) -> None:
    """Each component alone gives what an adapter of that component gives."""
    adapter = trained(random_sd)
    for component, other in (("unet", "text_encoder"), ("text_encoder", "unet")):
        alone = Adapter({n: w for n, w in adapter.weights.items() if n.startswith(f"{component}.")}, {})
        with alone.injected(random_sd, 0.6):
            expected = predict(random_sd)
        with adapter.injected(random_sd, {component: 0.6, other: 0.0}):
            assert torch.equal(predict(random_sd), expected)


@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_fused_by_parts_equals_injected_by_parts(random_sd: Any, variant: str) -> None:
    adapter = trained(random_sd, variant)
    with adapter.injected(random_sd, BLOCKS):
        assert adapter.strength == BLOCKS
        expected = predict(random_sd)
        adapter.strength = 1.0
        assert not torch.allclose(predict(random_sd), expected, atol=1e-3)
    adapter.fuse(random_sd, BLOCKS)
    torch.testing.assert_close(predict(random_sd), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "bad",
    [{"unet": 0.5, "vae": 0.5}, {"text_encoder": 0.5, "unet": {"mid": [0.5, 0.5]}}, {"text_encoder": math.nan},
     {"unet": {"down": 0.1, "up": {"block_1": [0.1]}, "left": 0.1}}, {"unet": {"up": {"block_1": [0.1, 0.2, 0.3]}}}],
    ids=str,
)  # fmt: skip
def test_strengths_that_do_not_fit_change_nothing(random_sd: Any, bad: Any) -> None:
    adapter, base = trained(random_sd), predict(random_sd)
    with pytest.raises(AdapterError):
        adapter.inject(random_sd, bad)
    with pytest.raises(AdapterError):
        adapter.fuse(random_sd, bad)
    assert untouched(random_sd)
    assert torch.equal(predict(random_sd), base)
    with adapter.injected(random_sd, BLOCKS):
        before = strengths(adapter)
        with pytest.raises(AdapterError):
            adapter.strength = bad
        assert (adapter.strength, strengths(adapter)) == (BLOCKS, before)


def test_a_block_of_one_trained_layer_takes_the_list_of_the_whole_block(random_sd: Any) -> None:
    """Only the base knows how many layers there are: the adapter of one attention has strengths for both."""
    adapter = trained(random_sd, targets=["unet.up_blocks.1.attentions.0.*.to_q"])
    with adapter.injected(random_sd, {"unet": {"up": {"block_1": [0.3, 0.9]}}}):
        assert set(strengths(adapter).values()) == {0.3}
        with pytest.raises(AdapterError, match="has 2 layers, but 3 numbers"):
            adapter.strength = {"unet": {"up": {"block_1": [0.3, 0.9, 1.0]}}}


def test_parts_may_have_a_strength_per_sample_until_they_are_fused(random_sd: Any) -> None:
    adapter, value = trained(random_sd), {"unet": torch.tensor([0.0, 1.0])}
    adapter.inject(random_sd, value).eject()
    with pytest.raises(AdapterError, match="one strength"):
        adapter.fuse(random_sd, value)


def test_a_refused_injection_keeps_the_strengths_of_the_first(random_sd: Any) -> None:
    one, two = trained(random_sd), trained(random_sd)
    with one.injected(random_sd, name="style"):
        with pytest.raises(AdapterError, match="already injected"):
            two.inject(random_sd, BLOCKS, name="style")
        assert (two.strength, set(strengths(two).values())) == (1.0, {1.0})


def test_weights_alone_are_enough_for_an_adapter_of_either_variant(random_sd: Any, tmp_path: Path) -> None:
    made = trained(random_sd, "dora").weights
    copies: dict[str, Weights] = dict(made)
    adapter = Adapter(copies, {})
    assert adapter.variant == "dora"
    assert all(torch.equal(adapter.weights[n].tensors["magnitude"], w.tensors["magnitude"]) for n, w in made.items())  # type: ignore[arg-type]


@pytest.mark.parametrize("targets", [["attn"], ["attn", "ff", "proj", "conv"]], ids="+".join)
def test_diffusers_predicts_the_same_from_the_export_of_a_dora_adapter(
    random_sd: Any, random_sd_folder: Path, tmp_path: Path, targets: list[str]
) -> None:
    from diffusers import DiffusionPipeline

    adapter, base = trained(random_sd, "dora", targets), predict(random_sd)
    path = adapter.save(tmp_path / "style.safetensors", dtype="float32", layout="diffusers")
    with adapter.injected(random_sd):
        expected = predict(random_sd)
    assert not torch.allclose(expected, base, atol=1e-2)
    plain = DiffusionPipeline.from_pretrained(random_sd_folder, safety_checker=None)
    plain.load_lora_weights(tmp_path, weight_name=path.name)
    torch.testing.assert_close(predict(plain), expected, rtol=0, atol=1e-4)
