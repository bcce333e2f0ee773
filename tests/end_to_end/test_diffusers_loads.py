"""A saved adapter in plain diffusers + PEFT: the pictures are those of our own injection, and no module is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from small_weights import weights_of

import sd_lora
from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.fit import modules_of

tuners = pytest.importorskip("peft.tuners.tuners_utils")

STRENGTHS = (0.5, 1.0)


@pytest.fixture(scope="module", params=["random", pytest.param("tiny", marks=pytest.mark.slow)])
def folder(request: pytest.FixtureRequest, random_sd_folder: Path) -> Path:
    return random_sd_folder if request.param == "random" else sd_lora.tiny_base_path()


@pytest.fixture
def plain(folder: Path) -> Any:
    """The base as any user of diffusers loads it."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def ours(folder: Path) -> Any:
    return sd_lora.load_base(folder)[0]


def draw(pipe: Any, **arguments: Any) -> np.ndarray:
    """Four steps from the same latents, as float pictures in 0..1."""
    side = pipe.unet.config.sample_size
    latents = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0))
    prompt = "a small blue boat on the sea"
    return pipe(prompt, latents=latents, num_inference_steps=4, output_type="np", **arguments).images


def layers_in(model: torch.nn.Module) -> int:
    return sum(isinstance(module, tuners.BaseTunerLayer) for module in model.modules())


def ours_drawn(path: Path, pipe: Any) -> dict[float, np.ndarray]:
    """Our own pictures by strength; 0 is the base. An adapter that hardly shows would prove nothing."""
    pictures = {0.0: draw(pipe)}
    for strength in STRENGTHS:
        with Adapter.load(path).injected(pipe, strength):
            pictures[strength] = draw(pipe)
    assert np.abs(pictures[0.5] - pictures[0.0]).max() > 0.01
    assert np.abs(pictures[1.0] - pictures[0.5]).max() > 0.01
    return pictures


def assert_same_pictures(pipe: Any, expected: dict[float, np.ndarray], name: str) -> None:
    """At strengths 1 and 0.5, given as cross-attention scale and as adapter weight, and without the adapter."""
    np.testing.assert_allclose(draw(pipe), expected[1.0], rtol=0, atol=1e-4)
    scaled = draw(pipe, cross_attention_kwargs={"scale": 0.5})
    np.testing.assert_allclose(scaled, expected[0.5], rtol=0, atol=1e-4)
    pipe.set_adapters(name, 0.5)
    np.testing.assert_allclose(draw(pipe), expected[0.5], rtol=0, atol=1e-4)
    pipe.unload_lora_weights()
    np.testing.assert_allclose(draw(pipe), expected[0.0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("targets", "dtype"),
    [
        pytest.param("attn", "float32", marks=pytest.mark.slow),
        pytest.param("attn+ff", "float16", marks=pytest.mark.slow),
        ("attn+ff+conv", "float16"),
    ],
)
def test_diffusers_draws_the_same_pictures(
    plain: Any, ours: Any, trained_adapter: Callable[..., Adapter], tmp_path: Path, targets: str, dtype: str
) -> None:
    adapter = trained_adapter(ours, *targets.split("+"), alpha=3.0, std=0.1)
    path = adapter.save(tmp_path / "style.safetensors", dtype=dtype)
    expected = ours_drawn(path, ours)
    plain.load_lora_weights(tmp_path, weight_name=path.name, adapter_name="style")
    assert layers_in(plain.unet) == len(adapter.weights)
    assert layers_in(plain.text_encoder) == 0
    assert_same_pictures(plain, expected, "style")


def test_mixed_ranks_and_alphas_arrive_unchanged(plain: Any, ours: Any, tmp_path: Path) -> None:
    """diffusers mis-scales a minority alpha; the file must not let it."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for i, (name, module) in enumerate(m for m in modules_of(ours).items() if ".attn" in m[0]):
        rank, (out, into) = 2 + i % 3, module.weight.shape
        down, up = (torch.randn(shape, generator=generator) for shape in ((rank, into), (out, rank)))
        weights[name] = weights_of(down * into**-0.5, up * 0.1, (3.0, 3.0, 9.0)[i % 3])
    path = Adapter(weights, {}).save(tmp_path / "mixed.safetensors", dtype="float32")
    with Adapter(weights, {}).injected(ours):
        expected = draw(ours)
    plain.load_lora_weights(tmp_path, weight_name=path.name)
    assert layers_in(plain.unet) == len(weights)
    np.testing.assert_allclose(draw(plain), expected, rtol=0, atol=1e-4)


def test_text_encoder_layers_load_too(plain: Any, ours: Any, tmp_path: Path) -> None:
    """Keys of the text encoder have the text_model level, whatever the installed transformers calls its modules."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, module in modules_of(ours).items():
        if ".self_attn." in name or name == "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k":
            out, into = module.weight.shape
            down, up = (torch.randn(shape, generator=generator) for shape in ((2, into), (out, 2)))
            weights[name] = weights_of(down * into**-0.5, up * 0.3, 2.0)
    path = Adapter(weights, {}).save(tmp_path / "text.safetensors", dtype="float32")
    expected = ours_drawn(path, ours)
    plain.load_lora_weights(tmp_path, weight_name=path.name, adapter_name="text")
    assert (layers_in(plain.unet), layers_in(plain.text_encoder)) == (1, len(weights) - 1)
    assert_same_pictures(plain, expected, "text")


def test_peft_layers_of_diffusers_and_ours_share_a_pipeline(
    plain: Any, trained_adapter: Callable[..., Adapter], tmp_path: Path
) -> None:
    """diffusers may load its LoRA while ours is injected; when ours is ejected, its own stays."""
    ours, theirs = trained_adapter(plain, std=0.1, seed=1), trained_adapter(plain, std=0.1, seed=2)
    path = theirs.save(tmp_path / "theirs.safetensors", dtype="float32")
    with theirs.injected(plain):
        expected_theirs = draw(plain)
        with ours.injected(plain, name="ours"):
            expected_both = draw(plain)
    ours.inject(plain)
    plain.load_lora_weights(tmp_path, weight_name=path.name)
    np.testing.assert_allclose(draw(plain), expected_both, rtol=0, atol=1e-4)
    ours.eject()
    np.testing.assert_allclose(draw(plain), expected_theirs, rtol=0, atol=1e-4)
