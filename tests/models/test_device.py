"""What is said about the precision of a base model."""

from __future__ import annotations

import pytest
import torch

from sd_lora.config.schema import ModelConfig
from sd_lora.models import device as devices
from sd_lora.models.device import faster_dtype

CPU, SD15 = torch.device("cpu"), 860_000_000


@pytest.mark.parametrize("instructions", ["avx512_bf16", "amx_bf16"])
def test_bfloat16_is_named_where_the_processor_has_it(instructions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, instructions: True})
    assert "model.dtype=bfloat16" in faster_dtype(ModelConfig(), CPU, SD15)
    assert not faster_dtype(ModelConfig(dtype="float32"), CPU, SD15)  # asked for
    assert not faster_dtype(ModelConfig(), torch.device("cuda"), SD15)
    assert not faster_dtype(ModelConfig(), CPU, 1_000_000)
    assert devices.choose_dtype(ModelConfig(), CPU) is torch.float32


def test_nothing_is_said_of_other_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    assert not faster_dtype(ModelConfig(), CPU, SD15)
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # older versions of torch
    assert not faster_dtype(ModelConfig(), CPU, SD15)
