"""Are the gradients of the faster ways right? On a small random UNet with the blocks of Stable Diffusion 1.5, of every
LoRA matrix, against the plain way, as the gradient gate compares them.

    python benchmarks/gradients.py [--all] [--sd15 WORK]

Each technique alone and all together, whether or not it is faster here, for LoRA on attn, attn + ff and attn + ff +
conv, with a trained text encoder and without, with checkpointed activations and without. Prints the worst of each, with
`--all` each case: in float32 the distance as a share of the plain length (allowed: 1e-4), in bfloat16 1 - cosine
(allowed: 5e-3). So small a model turns its gradients in bfloat16 by more than that if its input changes by a part in
4,096, which is measured too: here a technique may turn them by three times as much. `--sd15` takes the published size
instead (random weights, which WORK keeps), LoRA on attn, two pictures of 128 px.

Two faults are planted, which the gate must refuse: a kernel that shifts gradients by a pixel, and a block whose
gradient has the wrong sign. Exit code 1 if a technique fails, or a fault passes.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from diffusers import UNet2DConditionModel
from measuring import described
from step import TARGETS, load, random_base
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from sd_lora.lora.inject import inject
from sd_lora.lora.layers import LoraConv2d, LoraLayer, LoraLinear
from sd_lora.models.fast import attention, convolution, linear, ways
from sd_lora.models.fast.ways import Choices
from sd_lora.training.fast_path import faster_ways
from sd_lora.training.gate import MOST_OFF, MOST_TURNED, Gate, Technique

WIDTHS, RANK, SIDE, BATCH = (32, 64, 96, 96), 4, 16, 2
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj")
GROUPS = {"attn": ("attn",), "attn + ff": ("attn", "ff"), "attn + ff + conv": ("attn", "ff", "conv")}
TOGETHER, ROUNDING = "all together", "plain, input changed by a part in 4,096"
SHIFTED, SIGN = "planted: a shifted kernel", "planted: a wrong sign"
#: how many times as far as rounding goes a technique may turn gradients in bfloat16
MOST_TIMES = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="print each case, not only the worst")
    parser.add_argument("--sd15", type=Path, metavar="WORK", help="the published size, one case")
    options = parser.parse_args()
    options.base, options.work = "sd15", options.sd15
    folder = random_base(options) if options.sd15 else None
    texts, groups = ((False,), ("attn",)) if folder else ((False, True), GROUPS)
    print(described("torch", "diffusers"), end="\n\n")
    worst: dict[tuple[str, torch.dtype], tuple[float, str]] = {}
    for dtype, group, text, lean in itertools.product((torch.bfloat16, torch.float32), groups, texts, texts):
        where = f"{group}{', text encoder trained' if text else ''}{', checkpointed' if lean else ''}"
        for name, off in differences(models(dtype, folder), GROUPS[group], text=text, lean=lean).items():
            if options.all:
                print(f"{dtype}, {where}: {name}: {off:.1e}", flush=True)
            # of a planted fault the least is what matters: the gate must refuse each
            if (name, dtype) not in worst or (off > worst[name, dtype][0]) != name.startswith("planted"):
                worst[name, dtype] = off, where
    print("| technique | float32 | where | bfloat16 | where |\n| --- | --- | --- | --- | --- |")
    for name in dict.fromkeys(name for name, _ in worst):
        cells = [worst.get((name, dtype)) for dtype in (torch.float32, torch.bfloat16)]
        print(f"| {name} | " + " | ".join(f"{c[0]:.1e} | {c[1]}" if c else "not used | " for c in cells) + " |")
    rounding = MOST_TIMES * worst[ROUNDING, torch.bfloat16][0]
    allowed = {torch.float32: MOST_OFF, torch.bfloat16: max(MOST_TURNED, rounding)}
    judged = {key: off for key, (off, _) in worst.items() if key[0] != ROUNDING}
    return int(any((off <= allowed[dtype]) == name.startswith("planted") for (name, dtype), off in judged.items()))


def differences(both: tuple[Any, Any], targets: Sequence[str], *, text: bool, lean: bool) -> dict[str, float]:
    """The worst gradient of each technique in one case."""
    (unet, encoder), dtype = both, both[0].dtype
    wanted = {
        name: m for name, m in unet.named_modules() if name.endswith(tuple(t for g in targets for t in TARGETS[g]))
    }
    if text:
        wanted |= {f"text.{name}": m for name, m in encoder.named_modules() if name.endswith(TEXT)}
    layers = {name: layer_for(module) for name, module in wanted.items()}
    inject(layers, wanted)
    if lean:
        unet.enable_gradient_checkpointing()
    parameters = {f"{name}.{role}": p for name, layer in layers.items() for role, p in layer.named_parameters()}
    change = [0.0]
    gate = Gate(parameters, loss_of(unet, encoder, dtype, change), exact=dtype is torch.float32)
    unit, results = MOST_OFF if dtype is torch.float32 else MOST_TURNED, dict[str, float]()

    def measure(name: str, some: Sequence[Technique]) -> None:
        for technique in some:
            technique.on()
        results[name] = gate.difference()[0] * unit
        for technique in some:
            technique.off()

    change[0] = 2**-12
    measure(ROUNDING, [])
    change[0] = 0.0
    always = patch.object(ways, "fastest", lambda offered: list(offered)[-1])
    small = [
        (convolution, "LEAST_WEIGHTS"),
        (linear, "LEAST_WEIGHTS"),
        (linear, "LEAST_WORK"),
        (attention, "LEAST_CHANNELS"),
    ]
    with always, ExitStack() as patches:
        for module, least in small:
            patches.enter_context(patch.object(module, least, 1))
        techniques = faster_ways(unet, Choices())
        for technique in techniques:
            measure(technique.name, [technique])
        measure(TOGETHER, techniques)
        with patch.object(convolution, "gradient_by_product", shifted(convolution.gradient_by_product)):
            measure(SHIFTED, techniques[:1])
    block: Any = unet.mid_block
    wrong = partial(setattr, block, "_compiled_call_impl", lambda *a, **o: _WrongSign.apply(block.forward(*a, **o)))
    measure(SIGN, [Technique(SIGN, wrong, partial(setattr, block, "_compiled_call_impl", None))])
    return results


def models(dtype: torch.dtype, folder: Path | None) -> tuple[Any, Any]:
    """A frozen UNet with the blocks of SD1.5, or that of `folder`, and a text encoder."""
    torch.manual_seed(0)
    width = 768 if folder else 32
    small = {"sample_size": SIDE, "block_out_channels": WIDTHS, "cross_attention_dim": width, "attention_head_dim": 8}
    unet = load(folder, dtype) if folder else UNet2DConditionModel(**small)
    words = CLIPTextConfig(
        vocab_size=100, hidden_size=width, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    both = unet, CLIPTextModel(words)
    return tuple(model.to(dtype).requires_grad_(False).eval() for model in both)  # type: ignore[return-value]


def layer_for(module: nn.Module) -> LoraLayer:
    layer = (LoraConv2d if isinstance(module, nn.Conv2d) else LoraLinear)(module, RANK, RANK)
    nn.init.normal_(layer.up.weight, std=0.02)
    return layer


def loss_of(unet: Any, encoder: Any, dtype: torch.dtype, change: Sequence[float]) -> Callable[[], Tensor]:
    """Computes the loss of a batch, whose noisy latents are changed by a share that can be set later."""
    generator = torch.Generator().manual_seed(1)
    noisy, noise = (torch.randn(BATCH, 4, SIDE, SIDE, generator=generator) for _ in range(2))
    tokens, times = torch.randint(0, 100, (BATCH, 77), generator=generator), torch.tensor([100, 700])

    def loss() -> Tensor:
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            states = encoder(tokens).last_hidden_state
            predicted = unet(noisy * (1 + change[0]), times, states, return_dict=False)[0]
        return (predicted.float() - noise).square().mean()

    return loss


def shifted(right: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *arguments: right(*arguments).roll(1, 3)


class _WrongSign(torch.autograd.Function):
    """The identity, whose gradient has the wrong sign."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]  # noqa: ARG004
        return -gradient


if __name__ == "__main__":
    sys.exit(main())
