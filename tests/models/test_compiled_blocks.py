"""Why blocks are not compiled one by one, and that the gate would know (docs/decisions/0015-compiling.md)."""

from __future__ import annotations

import shutil

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from sd_lora.lora.inject import inject
from sd_lora.lora.variants import new_layer
from sd_lora.training.gate import Gate, Technique


@pytest.fixture
def gate_and_unet() -> tuple[Gate, UNet2DConditionModel]:
    """A narrow UNet with the blocks of SD1.5 and LoRAs on its attention; the gate for one image of it."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(32, 64, 96, 96), layers_per_block=2, cross_attention_dim=64,
        attention_head_dim=8, norm_num_groups=8, down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    ).requires_grad_(False)  # fmt: skip
    modules = {
        name: module for name, module in unet.named_modules() if name.endswith(("to_q", "to_k", "to_v", "to_out.0"))
    }
    layers = {name: new_layer(module, 4, 4.0) for name, module in modules.items()}
    inject(layers, modules)
    parameters: dict[str, nn.Parameter] = {}
    for name, layer in layers.items():
        parameters |= {f"{name}.{role}": parameter for role, parameter in layer.named_parameters()}
    latents, states = torch.randn(1, 4, 16, 16), torch.randn(1, 77, 64)

    def loss() -> Tensor:
        return unet(latents, 500, states).sample.square().mean()

    return Gate(parameters, loss, exact=True), unet


def by_blocks(unet: UNet2DConditionModel, backend: str) -> Technique:
    def off() -> None:
        for module in unet.modules():
            module._compiled_call_impl = None

    return Technique("compiling by blocks", lambda: unet.compile_repeated_blocks(backend=backend), off)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_blocks_compiled_one_by_one_have_wrong_gradients_and_the_gate_knows(
    gate_and_unet: tuple[Gate, UNet2DConditionModel],
) -> None:
    gate, unet = gate_and_unet
    verdict = gate.choose([by_blocks(unet, "inductor")])
    assert not verdict.used, "torch's fault is mended: compiling by blocks may be offered (decision 0015)"
    assert "compiling by blocks: not used, because the gradient of " in verdict.notes[0]


def test_the_same_blocks_without_generated_code_are_right(gate_and_unet: tuple[Gate, UNet2DConditionModel]) -> None:
    gate, unet = gate_and_unet
    assert gate.choose([by_blocks(unet, "eager")]).used
