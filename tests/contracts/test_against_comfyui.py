"""What a run writes, ComfyUI's own loader reads completely, and draws what we draw; needs a checkout of ComfyUI."""

from __future__ import annotations

import copy
import importlib
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_runs import config_of, go, write_images
from torch import Tensor

from sd_lora.adapters.adapter import Adapter
from sd_lora.lora.variants import VARIANTS
from sd_lora.tools.verify import verify_adapter

CHECKOUT = os.environ.get("SD_LORA_COMFYUI", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not CHECKOUT, reason="SD_LORA_COMFYUI does not name a checkout of ComfyUI (CONTRIBUTING.md, Tests)"
    ),
]

#: kind of base → our name of a text encoder → ComfyUI's
TEXT = {
    "sd1": {"text_encoder": "clip_l"},
    "sd2": {"text_encoder": "clip_h"},
    "sdxl": {"text_encoder": "clip_l", "text_encoder_2": "clip_g"},
}
TRAINED = [name for name, row in VARIANTS.items() if row.is_trained]
#: those that ComfyUI computes otherwise, as `verify` says
DISTORTED = {name for name in TRAINED for effect, programs, *_ in VARIANTS[name].clients if "ComfyUI" in programs}
CLOSE = 1e-4


@dataclass(frozen=True)
class Model:
    """What ComfyUI's loader asks of a model: the names of its weights, and the config of its UNet."""

    weights: dict[str, Tensor]
    config: dict[str, Any]

    @property
    def model_config(self) -> Any:
        return SimpleNamespace(unet_config=self.config)

    def state_dict(self) -> dict[str, Tensor]:
        return self.weights


@pytest.fixture(scope="module")
def comfy() -> Any:
    """ComfyUI's `comfy.lora`, imported as `main.py --cpu` does."""
    sys.path.append(CHECKOUT)  # last: the checkout also has modules with such names as utils
    importlib.import_module("comfy.cli_args").args.cpu = True
    return importlib.import_module("comfy.lora")


def unet_config(config: Any) -> dict[str, Any]:
    """The config of a UNet as ComfyUI knows it, of diffusers'."""
    blocks, count = config.down_block_types, config.layers_per_block
    depths = config.transformer_layers_per_block
    depths = [depths] * len(blocks) if isinstance(depths, int) else list(depths)
    used = [depth * ("CrossAttn" in block) for depth, block in zip(depths, blocks, strict=True)]
    return {
        "num_res_blocks": [count] * len(blocks), "channel_mult": list(config.block_out_channels),
        "transformer_depth": [depth for depth in used for _ in range(count)],
        "transformer_depth_middle": depths[-1],
        "transformer_depth_output": [depth for depth in used for _ in range(count + 1)],
    }  # fmt: skip


def models_of(pipe: Any, kind: str, comfy: Any) -> tuple[Model, Model]:
    """The weights of `pipe` under ComfyUI's names: the UNet's, and the text encoders'."""
    config = unet_config(pipe.unet.config)
    names = importlib.import_module("comfy.utils").unet_to_diffusers(config)
    unet = {f"diffusion_model.{names[name]}": weight for name, weight in pipe.unet.named_parameters()}
    text = {
        f"{theirs}.transformer.text_model.{name[name.index('encoder.layers') :]}": weight
        for ours, theirs in TEXT[kind].items()
        for name, weight in getattr(pipe, ours).named_parameters()
        if "encoder.layers" in name
    }
    return Model(unet, config), Model(text, {})


@torch.no_grad()
def patched(comfy: Any, pipe: Any, kind: str, file: Path) -> tuple[Any, int]:
    """A copy of `pipe` whose weights ComfyUI has changed by the adapter in `file`, and how many it has changed."""
    pipe = copy.deepcopy(pipe)
    unet, text = models_of(pipe, kind, comfy)
    keys = comfy.model_lora_keys_clip(text, comfy.model_lora_keys_unet(unet, {}))
    weights, loaded = unet.weights | text.weights, comfy.load_lora(load_file(file), keys)
    for name, patch in loaded.items():
        weights[name].copy_(comfy.calculate_weight([(1.0, patch, 1.0, None, None)], weights[name].clone(), name))
    return pipe, len(loaded)


def draw(pipe: Any) -> np.ndarray:
    """Four steps from the same latents, as float pictures in 0..1."""
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return pipe(
        "a small blue boat on the sea, in zwq style", latents=latents, height=64, width=64, num_inference_steps=4,
        output_type="np",
    ).images  # fmt: skip


@pytest.fixture(scope="module", params=TEXT)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", params=TRAINED)
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def run(kind: str, variant: str, bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a short training of every module that can be trained, at a rate that shows."""
    home = tmp_path_factory.mktemp(f"{kind}-{variant}")
    settings = (
        "lora.targets=attn,ff,proj,conv,text,text_ff", f"lora.variant={variant}", "lora.alpha=3",
        "optimizer.learning_rate=3e-2", "optimizer.warmup=0", "output.dtype=float32",
    )  # fmt: skip
    go(config_of(bases[kind], write_images(home / "images"), home / "run", *settings))
    return home / "run"


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_comfyui_draws_what_we_draw(
    comfy: Any, opened: Callable[[str], Any], kind: str, variant: str, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = run / "adapter.safetensors"
    pipe, _ = opened(kind)
    pipe.set_progress_bar_config(disable=True)
    base, adapter = draw(pipe), Adapter.load(file)
    idle = [name for name, weights in adapter.weights.items() if not weights.squared_norm]
    assert len(idle) < len(adapter.weights) / 10  # where one pixel is left to attend to; SDXL's last text layer
    caplog.clear()
    theirs, count = patched(comfy, pipe, kind, file)
    assert complaints(caplog) == []
    assert count == len(adapter.weights)
    with adapter.injected(pipe):
        ours = draw(pipe)
    assert np.abs(ours - base).max() > 0.01
    difference = np.abs(draw(theirs) - ours).max()
    assert difference > CLOSE if variant in DISTORTED else difference <= CLOSE


@pytest.mark.parametrize("variant", ["lora"], indirect=True)
def test_what_is_said_of_comfyui_is_what_it_does_with_the_export(
    comfy: Any, opened: Callable[[str], Any], kind: str, run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of diffusers' layout it drops the attention of the UNet, and says so."""
    (file,) = (run / "diffusers").glob("*.safetensors")
    said = {answer.client: answer for answer in verify_adapter(file).clients}["ComfyUI"]
    caplog.clear()
    _, count = patched(comfy, opened(kind)[0], kind, file)
    assert 0 < count == said.loaded < said.modules
    assert len(complaints(caplog)) == 2 * (said.modules - said.loaded)


@pytest.mark.parametrize("variant", ["loha"], indirect=True)
@pytest.mark.parametrize("kind", ["sd1"], indirect=True)
def test_a_key_that_comfyui_does_not_load_is_seen(
    comfy: Any, opened: Callable[[str], Any], kind: str, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Or the first test could not fail."""
    tensors = load_file(run / "adapter.safetensors")
    lost = next(key for key in tensors if "conv" in key).partition(".")[0]
    save_file({key.replace(lost, f"{lost}_9"): tensor for key, tensor in tensors.items()}, tmp_path / "a.safetensors")
    caplog.clear()
    _, count = patched(comfy, opened(kind)[0], kind, tmp_path / "a.safetensors")
    assert count == len({key.partition(".")[0] for key in tensors}) - 1
    assert len(complaints(caplog)) == sum(key.startswith(f"{lost}.") for key in tensors)
