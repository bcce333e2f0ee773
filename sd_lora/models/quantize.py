"""A frozen model whose linear layers hold fewer bits: int8, fp8 or nf4, through torchao; for CUDA devices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sd_lora.errors import ConfigError

_BLOCK = 64  # weights that share a scale in NF4 (arXiv 2305.14314)
_SCALES = 256  # scales that share one, at most


def check_quantize(kind: str, device: torch.device) -> None:
    """ConfigError if weights cannot be held as `kind` on `device`."""
    if device.type != "cuda":
        raise ConfigError(f"model.quantize={kind} needs a CUDA device, not {device.type}; leave it out")
    _torchao(kind)


def quantize(model: nn.Module, kind: str, kept: tuple[str, ...] = ()) -> int:
    """Hold the weights of `model`'s linear layers as `kind`, "int8", "fp8" (a scale for each output) or "nf4" (a scale
    for each 64 weights, in scales of 8 bits). They still compute in the precision of their input; modules whose
    paths begin with one of `kept` stay. Returns how many there are.
    """
    torchao, count = _torchao(kind), 0
    for path, module in model.named_modules():
        if type(module) is not nn.Linear or path.startswith(kept):
            continue
        if kind != "nf4":
            config = torchao.Int8WeightOnlyConfig() if kind == "int8" else torchao.Float8WeightOnlyConfig()
            torchao.quantize_(module, config)
        elif module.weight.numel() % _BLOCK == 0:
            scales = module.weight.numel() // _BLOCK
            together = next(size for size in (_SCALES >> n for n in range(9)) if scales % size == 0)
            module.weight = nn.Parameter(torchao.to_nf4(module.weight.data, _BLOCK, together))
        else:
            continue
        module.weight.requires_grad_(False)
        count += 1
    return count


def is_quantized(weight: Any) -> bool:
    """Whether `weight` holds fewer bits than it computes with."""
    return type(weight).__module__.startswith("torchao.")


def plain_weight(weight: Tensor) -> Tensor:
    """`weight` itself, or the values that a quantized one stores."""
    quantized: Any = weight
    if not is_quantized(weight):
        return weight
    return quantized.get_original_weight() if hasattr(weight, "get_original_weight") else quantized.dequantize()


def _torchao(kind: str) -> Any:
    try:
        from torchao import quantization
    except ImportError as error:
        raise ConfigError(
            f"model.quantize={kind} needs torchao, which cannot be imported ({error}); "
            'run pip install "sd-lora[cuda]", or leave it out'
        ) from error
    return quantization
