"""What LyCORIS writes changes a base as LyCORIS does: every kind of adapter that people's files hold."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from lycoris.modules.boft import ButterflyOFTModule
from lycoris.modules.diag_oft import DiagOFTModule
from lycoris.modules.full import FullModule
from lycoris.modules.glora import GLoRAModule
from lycoris.modules.ia3 import IA3Module
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from lycoris.modules.norms import NormModule
from safetensors.torch import save_file
from torch import Tensor, nn

from sd_lora.adapters.file import read_adapter
from sd_lora.lora.inject import fuse, inject
from sd_lora.lora.layers import Layer
from sd_lora.lora.variants import VARIANTS

LINEAR, CONV, POINT = "linear", "conv", "point"
MAKE: dict[str, Callable[[], nn.Module]] = {
    LINEAR: lambda: nn.Linear(12, 16),
    CONV: lambda: nn.Conv2d(12, 16, 3, padding=1),
    POINT: lambda: nn.Conv2d(12, 16, 1),
    "layernorm": lambda: nn.LayerNorm(12),
    "groupnorm": lambda: nn.GroupNorm(4, 12),
}
NAMES = {
    LINEAR: "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    CONV: "unet.down_blocks.0.resnets.0.conv1",
    POINT: "unet.down_blocks.0.attentions.0.proj_in",
    "layernorm": "unet.down_blocks.0.attentions.0.transformer_blocks.0.norm1",
    "groupnorm": "unet.down_blocks.0.attentions.0.norm",
}


@dataclass(frozen=True)
class Case:
    """A module of LyCORIS on modules of these `kinds`, with its options, and the variant it is read as."""

    variant: str
    made: Any
    kinds: tuple[str, ...] = (LINEAR, CONV, POINT)
    options: dict[str, Any] = field(default_factory=dict)


CASES = {
    "lora": Case("lora", LoConModule),
    "locon-core": Case("lora", LoConModule, (CONV,), {"use_tucker": True}),
    "dora-rows": Case("dora", LoConModule, options={"weight_decompose": True, "wd_on_out": True}),
    "dora-columns": Case("dora", LoConModule, options={"weight_decompose": True, "wd_on_out": False}),
    "loha": Case("loha", LohaModule),
    "loha-core": Case("loha", LohaModule, (CONV,), {"use_tucker": True}),
    "loha-rows": Case("loha-dora", LohaModule, options={"weight_decompose": True, "wd_on_out": True}),
    "loha-columns": Case("loha-dora", LohaModule, options={"weight_decompose": True, "wd_on_out": False}),
    "lokr": Case("lokr", LokrModule, options={"factor": 2}),
    "lokr-whole": Case("lokr", LokrModule, options={"full_matrix": True}),
    "lokr-both": Case("lokr", LokrModule, options={"factor": 8, "decompose_both": True, "lora_dim": 1}),
    "lokr-core": Case("lokr", LokrModule, (CONV,), {"factor": 2, "use_tucker": True, "lora_dim": 2}),
    "lokr-rows": Case("lokr-dora", LokrModule, options={"factor": 2, "weight_decompose": True}),
    "full": Case("full", FullModule),
    "norm": Case("norm", NormModule, ("layernorm", "groupnorm")),
    "ia3-outputs": Case("ia3", IA3Module, options={"train_on_input": False}),
    "ia3-inputs": Case("ia3", IA3Module, options={"train_on_input": True}),
    "glora": Case("glora", GLoRAModule),
    "oft": Case("oft", DiagOFTModule, options={"lora_dim": 4}),
    "oft-limited": Case("oft", DiagOFTModule, options={"lora_dim": 4, "constraint": 0.01, "rescaled": True}),
    "boft": Case("oft", ButterflyOFTModule, options={"lora_dim": 4, "rescaled": True}),
}
ROWS = [pytest.param(case, kind, id=f"{name}-{kind}") for name, case in CASES.items() for kind in case.kinds]


def target_of(kind: str) -> nn.Module:
    torch.manual_seed(0)
    module = MAKE[kind]().requires_grad_(False)
    for tensor in module.parameters():  # a fresh norm's are ones and zeros
        tensor.add_(torch.randn(tensor.shape) * 0.3)
    return module


def trained(case: Case, module: nn.Module) -> Any:
    made = case.made("m", module, **{"multiplier": 1.0, "lora_dim": 3, "alpha": 1.5, **case.options})
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    return made


def file_of(made: Any, name: str, path: Path) -> Path:
    stem = "lora_unet_" + name.removeprefix("unet.").replace(".", "_")
    if isinstance(made, FullModule):  # its own method expects a module that is already applied
        both = {"diff": made.weight, "diff_b": made.bias}
        tensors = {key: tensor for key, tensor in both.items() if tensor is not None}
    else:
        tensors = made.custom_state_dict() or made.state_dict()
    save_file({f"{stem}.{key}": tensor.detach().contiguous() for key, tensor in tensors.items()}, path)
    return path


def inputs(kind: str) -> Tensor:
    shape = (2, 5, 12) if kind in (LINEAR, "layernorm") else (2, 12, 6, 6)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("case", "kind"), ROWS)
def test_a_file_of_it_acts_as_it_does(case: Case, kind: str, tmp_path: Path) -> None:
    module, x, name = target_of(kind), inputs(kind), NAMES[kind]
    made = trained(case, module)
    weights = read_adapter(file_of(made, name, tmp_path / "a.safetensors"))[0][name]
    assert weights.variant == case.variant
    assert weights.row.fits(weights.shapes, tuple(module.weight.shape))
    layer = Layer.holding(weights.variant, weights.tensors, weights.alpha)
    base, fused = module(x), copy.deepcopy(module)
    inject({"m": layer}, {"m": module})
    ours = module(x)
    fuse({"m": layer}, {"m": fused})
    plain = target_of(kind)
    theirs = trained(case, plain)
    theirs.apply_to()
    expected = plain(x)
    assert not torch.allclose(expected, base, atol=1e-3)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fused(x), expected, rtol=1e-5, atol=1e-5)


def test_every_variant_is_compared() -> None:
    assert {case.variant for case in CASES.values()} == set(VARIANTS)
