"""Which base models an adapter fits: all or nothing, and a refusal names both sides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_weights import weights_of
from torch import nn

from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.fit import base_facts, modules_of
from sd_lora.errors import AdapterError
from sd_lora.lora.weights import Weights

MakeAdapter = Callable[..., Adapter]


@pytest.fixture
def saved(random_sd: Any, trained_adapter: MakeAdapter, tmp_path: Path) -> Path:
    return trained_adapter(random_sd, "attn", "conv").save(tmp_path / "style.safetensors", dtype="float32")


def predict(pipe: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    noisy, states = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 32, 32, generator=generator)
    with torch.no_grad():
        return pipe.unet(noisy, 500, states, return_dict=False)[0]


def untouched(pipe: Any) -> bool:
    parts = [*pipe.unet.modules(), *(pipe.text_encoder.modules() if pipe.text_encoder else ())]
    return not any(hasattr(module, "loras") or module._forward_hooks for module in parts)


def plain(folder: Path) -> Any:
    """The base as any user of diffusers loads it."""
    from diffusers import DiffusionPipeline

    return DiffusionPipeline.from_pretrained(folder, safety_checker=None)


def weights_for(pipe: Any, *components: str) -> dict[str, Weights]:
    """Zeros for a few modules of each of `components`."""
    chosen: dict[str, Weights] = {}
    for component in components:
        mine = [(name, module) for name, module in modules_of(pipe).items()
                if name.startswith(f"{component}.") and name.endswith((".to_q", "self_attn.q_proj"))]  # fmt: skip
        for name, module in mine[:3]:
            out, into = module.weight.shape  # type: ignore[misc, union-attr]
            chosen[name] = weights_of(torch.zeros(1, into), torch.zeros(out, 1), 1.0)  # type: ignore[arg-type]
    return chosen


def refusal(adapter: Adapter, pipe: Any) -> str:
    """The one sentence with which `pipe` is refused, injected and fused alike, nothing attached."""
    messages = set()
    for use in (adapter.inject, adapter.fuse):
        with pytest.raises(AdapterError) as caught:
            use(pipe)
        messages.add(str(caught.value))
    assert untouched(pipe)
    assert not adapter.is_injected
    assert len(messages) == 1
    assert "\n" not in messages.copy().pop()
    return messages.pop()


def test_another_base_is_refused_by_both_names_with_nothing_attached(random_sd: Any, saved: Path) -> None:
    """The first module still fits: whatever is attached before all are checked would stay."""
    wide = random_sd.unet.get_submodule("up_blocks.1.attentions.1.transformer_blocks.0.attn2")
    wide.to_k = nn.Linear(48, 32)
    del random_sd.unet.down_blocks[0].downsamplers
    with pytest.raises(AdapterError) as caught:
        Adapter.load(saved).inject(random_sd)
    message = str(caught.value)
    for part in (
        str(saved),
        "trained on somewhere",
        "random-sd",
        "another shape",
        "attn2.to_k",
        "do not exist",
        "downsamp",
    ):
        assert part in message
    assert untouched(random_sd)
    with pytest.raises(AdapterError):
        Adapter.load(saved).fuse(random_sd)


def test_the_embedded_base_is_another_base(saved: Path) -> None:
    from sd_lora.models.opening import load_base

    pipe, _ = load_base("tiny")
    with pytest.raises(AdapterError, match=r"style\.safetensors .* does not fit base model tiny: .* another shape"):
        Adapter.load(saved).inject(pipe)
    assert untouched(pipe)


def test_fused_projections_are_refused_until_they_are_unfused(random_sd: Any, saved: Path) -> None:
    random_sd.fuse_qkv_projections()
    for use in (Adapter.load(saved).inject, Adapter.load(saved).fuse):
        with pytest.raises(AdapterError, match=r"unfuse_qkv_projections\(\)"):
            use(random_sd)
    assert untouched(random_sd)
    random_sd.unfuse_qkv_projections()  # what the message says to do
    with Adapter.load(saved).injected(random_sd) as adapter:
        changed = predict(random_sd)
        adapter.strength = 0.0
        assert not torch.allclose(changed, predict(random_sd), atol=1e-3)


def test_a_weight_with_a_lost_module_names_how_many(random_sd: Any) -> None:
    weights = {f"unet.nowhere.{i}": weights_of(torch.zeros(1, 2), torch.zeros(2, 1), 1.0) for i in range(3)}
    with pytest.raises(AdapterError, match=r"3 of its 3 modules do not exist in it .* and 1 more"):
        Adapter(weights, {}).inject(random_sd)


OURS = {"sdlora.version": "1", "sdlora.base": "somewhere"}


@pytest.mark.parametrize(
    ("recorded", "kind", "fits"),
    [("epsilon", "sd2", True), ("v", "sd2v", True), ("v_prediction", "sd2v", True), ("epsilon", "sd2v", False),
     ("v", "sd2", False)],
)  # fmt: skip
def test_a_base_that_predicts_something_else_is_refused(
    bases: dict[str, Path], recorded: str, kind: str, fits: bool
) -> None:
    """SD 2 base and SD 2.1 have the same shapes, as SDXL and its v-prediction models have."""
    pipe = plain(bases[kind])
    metadata = OURS | {"modelspec.prediction_type": recorded}
    adapter = Adapter(weights_for(pipe, "unet"), metadata, "style.safetensors")
    if fits:
        adapter.inject(pipe).eject()
        return
    message = refusal(adapter, pipe)
    here = pipe.scheduler.config.prediction_type
    for part in ("style.safetensors", "trained on somewhere", f"random-{kind}", f'"{recorded}"', f'"{here}"'):
        assert part in message


def test_what_other_programs_record_of_the_prediction_is_not_believed(bases: dict[str, Path]) -> None:
    pipe = plain(bases["sd2v"])
    metadata = {"modelspec.prediction_type": "epsilon"}
    with Adapter(weights_for(pipe, "unet"), metadata).injected(pipe) as adapter:
        assert adapter.is_injected


def test_the_scheduler_may_be_another_of_the_same_prediction(bases: dict[str, Path]) -> None:
    from diffusers import EulerDiscreteScheduler

    pipe = plain(bases["sd2v"])
    adapter = Adapter(weights_for(pipe, "unet"), OURS | {"modelspec.prediction_type": "v"})
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    adapter.inject(pipe).eject()


@pytest.mark.parametrize(("family", "kind"), [("sdxl", "sd1"), ("sd", "sdxl")])
def test_a_base_of_another_family_is_refused_whatever_its_shapes(
    bases: dict[str, Path], family: str, kind: str
) -> None:
    pipe = plain(bases[kind])
    fitting = weights_for(pipe, "unet")
    message = refusal(Adapter(fitting, {"sdlora.family": family}, "style.safetensors"), pipe)
    for part in ("style.safetensors", f"random-{kind}", f'"{family}"', '"sd"', '"sdxl"'):
        assert part in message
    Adapter(fitting, {"sdlora.family": "sdxl" if kind == "sdxl" else "sd"}).inject(pipe).eject()


def test_a_pipeline_of_an_unknown_class_is_judged_by_its_modules(bases: dict[str, Path]) -> None:
    class Mine:
        pass

    pipe, mine = plain(bases["sd1"]), Mine()
    mine.unet = pipe.unet  # type: ignore[attr-defined]
    Adapter(weights_for(pipe, "unet"), OURS | {"sdlora.family": "sdxl"}).inject(mine).eject()


@pytest.mark.parametrize(("kind", "gone"), [("sd1", ("text_encoder",)), ("sdxl", ("text_encoder", "text_encoder_2"))])
def test_a_text_encoder_that_was_left_out_is_named(bases: dict[str, Path], kind: str, gone: tuple[str, ...]) -> None:
    pipe = plain(bases[kind])
    adapter = Adapter(weights_for(pipe, "unet", *gone), {}, "style.safetensors")
    adapter.inject(pipe).eject()
    for component in gone:
        setattr(pipe, component, None)
    message = refusal(adapter, pipe)
    for component in gone:
        assert f"3 of its {3 + 3 * len(gone)} modules are for {component}, which this pipeline was loaded wi" in message
    assert "do not exist" not in message
    Adapter(weights_for(pipe, "unet"), {}).inject(pipe).eject()


@pytest.mark.parametrize("fingerprint", [{}, {"sdlora.base_fingerprint": "0123456789abcdef"}])
def test_an_adapter_of_another_edition_of_the_embedded_base_is_refused(
    fingerprint: dict[str, str], opened: Callable[[str], Any]
) -> None:
    pipe = opened("tiny")[0]
    adapter = Adapter(weights_for(pipe, "unet"), base_facts(pipe))
    adapter.inject(pipe).eject()
    adapter.metadata = {"sdlora.base": "tiny", **fingerprint}
    assert "another edition of the embedded base; train it again on this one" in refusal(adapter, pipe)


def test_everything_that_differs_is_said_at_once(bases: dict[str, Path]) -> None:
    pipe = plain(bases["sd2v"])
    weights = weights_for(pipe, "unet", "text_encoder")
    wide, lost = next(iter(weights)), "unet.nowhere"
    weights |= {lost: weights[wide], wide: weights_of(torch.zeros(1, 7), torch.zeros(9, 1), 1.0)}
    pipe.text_encoder = None
    recorded = {"modelspec.prediction_type": "epsilon", "sdlora.family": "sdxl"}
    message = refusal(Adapter(weights, OURS | recorded), pipe)
    for part in ('"epsilon"', '"sdxl"', "text_encoder", lost, wide, "1 of its 7 modules have another shape"):
        assert part in message


@pytest.mark.parametrize("rows", [1, 31, 33])
def test_a_magnitude_of_another_length_is_another_shape(random_sd: Any, rows: int) -> None:
    name, weights = next(iter(weights_for(random_sd, "unet").items()))
    assert len(weights.tensors["up"]) == 32
    wrong = weights_of(weights.tensors["down"], weights.tensors["up"], 1.0, torch.ones(rows))
    assert "another shape" in refusal(Adapter({name: wrong}, {}), random_sd)


def test_modules_that_are_offloaded_one_by_one_are_refused_with_what_to_do(random_sd: Any, saved: Path) -> None:
    """diffusers keeps no weights in them then."""
    weight = random_sd.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q
    weight.to("meta")
    assert "enable_model_cpu_offload()" in refusal(Adapter.load(saved), random_sd)
