"""Matrix products of oneDNN, torch's library for processors, where torch itself would ask another library.

In float32 torch asks MKL, which computes half as fast on some processors (AMD Zen 5: 90 and 230 billion operations per
second on a core). torch has oneDNN's product only as an operator for compiled models.
"""

from __future__ import annotations

import torch
from torch import Tensor


def has_onednn() -> bool:
    """Whether this build of torch has the operator, and the processor is of a kind that oneDNN has kernels for."""
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def onednn_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x` (…, in) times `weight` (out, in), plus `bias`: (…, out). The weight must be contiguous, or the transpose of
    what is: for any other order in memory oneDNN is a thousand times slower."""
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()
    return torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], "")
