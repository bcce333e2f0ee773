"""The fast path in whole runs: used where the gate lets it, the same on resume, and named where it is not used."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_runs import body_of, config_of, go, interrupted, resumed, write_images

import sd_lora
from sd_lora.models.fast import attention, convolution, linear, ways
from sd_lora.storage import measured as kept
from sd_lora.training import fast_path
from sd_lora.training.checkpoints import Checkpoints
from sd_lora.training.gate import Gate, Technique, Verdict
from sd_lora.training.run import RunNote

PRODUCTS, ONEDNN = "convolutions as matrix products", "linear layers by oneDNN"
KEPT = "attention that keeps its probabilities"
Start = Callable[..., Path]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("fast") / "images")


@pytest.fixture(autouse=True)
def _a_machine_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is known of the machine, small layers count, and the plain way is the slowest."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(kept, "user_cache_path", lambda name: tmp_path / "caches" / name)
    monkeypatch.setattr(convolution, "LEAST_WEIGHTS", 1)
    monkeypatch.setattr(linear, "LEAST_WORK", 1)
    monkeypatch.setattr(linear, "LEAST_WEIGHTS", 1)
    monkeypatch.setattr(attention, "LEAST_CHANNELS", 1)
    monkeypatch.setattr(ways, "fastest", lambda offered: list(offered)[-1])


@pytest.fixture
def start(random_sd_folder: Path, images: Path, tmp_path: Path) -> Start:
    """Run with settings in a folder of a name, and give that folder."""

    def run(name: str, *overrides: str, **how: Any) -> Path:
        out = tmp_path / name
        config = config_of(random_sd_folder, images, out, "training.checkpoint_every=1", *overrides)
        assert interrupted(lambda: go(config, **how)) == bool(how)
        return out

    return run


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> list[Gate]:
    """The gates that were asked."""
    asked: list[Gate] = []

    def made(*arguments: Any, **options: Any) -> Gate:
        asked.append(Gate(*arguments, **options))
        return asked[-1]

    monkeypatch.setattr(fast_path, "Gate", made)
    return asked


def used(run: Path) -> list[str]:
    state = Checkpoints(run / "checkpoints", 2).newest()
    assert state is not None
    return state.facts["fast"]["used"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter.safetensors")


def refusals(random_sd_folder: Path, images: Path, out: Path, *overrides: str) -> list[str]:
    """Train, and give the notes on what is not used."""
    config = config_of(random_sd_folder, images, out, *overrides)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sd_lora.train(config)
    said = [str(warning.message) for warning in caught if isinstance(warning.message, RunNote)]
    return [note for note in said if ": not used, because" in note]


@pytest.mark.parametrize(
    "targets", ["attn,ff,conv", *(pytest.param(some, marks=pytest.mark.slow) for some in ("attn", "attn,text"))]
)
def test_it_trains_what_the_plain_path_trains(targets: str, start: Start) -> None:
    fast = start("fast", f"lora.targets={targets}", "training.steps=2")
    plain = start("plain", f"lora.targets={targets}", "training.steps=2", "training.fast=off")
    assert used(fast) == [PRODUCTS, ONEDNN, KEPT]
    assert used(plain) == []
    for name, expected in weights(plain).items():
        torch.testing.assert_close(weights(fast)[name], expected, rtol=0, atol=2e-4)


@pytest.mark.slow
def test_the_same_run_is_checked_once_on_a_machine(start: Start, gates: list[Gate], tmp_path: Path) -> None:
    first, second = start("first"), start("second")
    assert len(gates) == 1
    assert body_of(first / "adapter.safetensors") == body_of(second / "adapter.safetensors")
    start("other", "lora.targets=attn,ff")
    assert len(gates) == 2
    for file in (tmp_path / "caches" / "sd-lora").iterdir():
        file.write_text("{", "utf-8")
    start("lost")
    assert len(gates) == 3


def test_what_the_gate_found_good_stays_on(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    choose = Gate.choose

    def chosen_for_good(gate: Gate, techniques: list[Technique]) -> Verdict:
        verdict = choose(gate, techniques)
        techniques[:] = [Technique(t.name, switched, switched) for t in techniques]
        return verdict

    def switched() -> None:
        raise AssertionError("weights would be put into another order, and back")

    monkeypatch.setattr(Gate, "choose", chosen_for_good)
    assert PRODUCTS in used(start("run", "training.steps=1"))


def test_a_resumed_run_computes_as_before_whatever_is_measured_now(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = start("whole"), start("stopped", stop_after=3)
    monkeypatch.setattr(ways, "fastest", lambda _: ways.PLAIN)
    shapes = tmp_path / "caches" / "sd-lora" / "ways.json"
    known = json.loads(shapes.read_text("utf-8"))
    assert any(way != ways.PLAIN for some in known.values() for way in some.values())
    shapes.write_text(json.dumps({place: dict.fromkeys(some, ways.PLAIN) for place, some in known.items()}), "utf-8")
    resumed(stopped)
    assert body_of(stopped / "adapter.safetensors") == body_of(whole / "adapter.safetensors")


@pytest.mark.slow
def test_a_run_that_began_plainly_is_resumed_plainly(start: Start, gates: list[Gate]) -> None:
    whole, stopped = (start(name, "training.fast=off", **how) for name, how in (("a", {}), ("b", {"stop_after": 3})))
    config = stopped / "config.toml"
    config.write_text(config.read_text("utf-8").replace('fast = "off"', 'fast = "auto"'), "utf-8")
    resumed(stopped)
    assert not gates
    assert body_of(stopped / "adapter.safetensors") == body_of(whole / "adapter.safetensors")


def shifted(right: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel of the backward pass whose (first) gradient is shifted by a place."""

    def wrong(*arguments: Any) -> Any:
        result = right(*arguments)
        return (result[0].roll(1, 2), *result[1:]) if isinstance(result, tuple) else result.roll(1, 3)

    return wrong


WRONG = {PRODUCTS: (convolution, "gradient_by_product"), KEPT: (attention, "attention_gradients")}


@pytest.mark.parametrize("technique", [PRODUCTS, pytest.param(KEPT, marks=pytest.mark.slow)])
def test_a_wrong_kernel_is_not_used_and_named(
    technique: str, random_sd_folder: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, kernel = WRONG[technique]
    monkeypatch.setattr(module, kernel, shifted(getattr(module, kernel)))
    out = tmp_path / "wrong"
    (note,) = refusals(random_sd_folder, images, out, "training.checkpoint_every=1")
    assert note.startswith(f"{technique}: not used, because the gradient of ")
    assert "times as far off as rounding goes" in note
    assert used(out) == [name for name in (PRODUCTS, ONEDNN, KEPT) if name != technique]


@pytest.mark.slow
def test_where_nothing_passes_the_run_is_the_plain_one(
    random_sd_folder: Path, images: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = start("plain", "training.fast=off")
    for module, kernel in WRONG.values():
        monkeypatch.setattr(module, kernel, shifted(getattr(module, kernel)))
    monkeypatch.setattr(linear, "onednn_product", lambda *_: 1 / 0)
    out = tmp_path / "wrong"
    notes = refusals(random_sd_folder, images, out)
    assert [note.partition(":")[0] for note in notes] == [PRODUCTS, ONEDNN, KEPT]
    assert "it failed with ZeroDivisionError" in notes[1]
    assert body_of(out / "adapter.safetensors") == body_of(plain / "adapter.safetensors")


@pytest.mark.slow
def test_a_compiled_model_with_a_wrong_sign_is_not_used_and_named(
    random_sd_folder: Path, images: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import UNet2DConditionModel

    class Wrong(torch.autograd.Function):
        """The identity, whose gradient has the wrong sign."""

        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:  # noqa: ARG004
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]  # noqa: ARG004
            return -gradient

    def compile_wrongly(unet: UNet2DConditionModel) -> None:
        block = unet.mid_block

        def call(*arguments: Any, **options: Any) -> torch.Tensor:
            return Wrong.apply(block.forward(*arguments, **options))

        def compiled(*arguments: Any, **options: Any) -> Any:
            block._compiled_call_impl = call
            try:
                return unet._call_impl(*arguments, **options)
            finally:
                block._compiled_call_impl = None

        unet._compiled_call_impl = compiled  # type: ignore[assignment]

    plain = start("plain", "training.fast=off")
    monkeypatch.setattr(UNet2DConditionModel, "compile", compile_wrongly)
    out = tmp_path / "wrong"
    (note,) = refusals(random_sd_folder, images, out, "training.compile=true", "training.fast=off")
    assert note.startswith("training.compile: not used, because the gradient of unet.")
    assert body_of(out / "adapter.safetensors") == body_of(plain / "adapter.safetensors")


@pytest.mark.slow
def test_a_base_in_bfloat16_is_sped_up_too(start: Start) -> None:
    assert used(start("run", "model.dtype=bfloat16")) == [PRODUCTS, KEPT]


@pytest.mark.slow
def test_checkpointed_activations_and_micro_batches_are_sped_up_too(start: Start) -> None:
    lean = ("training.gradient_checkpointing=true", "training.micro_batch=1", "training.steps=2")
    fast, plain = start("fast", *lean), start("plain", *lean, "training.fast=off")
    assert used(fast) == [PRODUCTS, ONEDNN, KEPT]
    for name, expected in weights(plain).items():
        torch.testing.assert_close(weights(fast)[name], expected, rtol=0, atol=2e-4)
