"""Adapters for transformers in the names of the original code, whose matrices hold several modules of diffusers'."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rows import every_row
from safetensors.torch import save_file
from torch import Tensor

from sd_lora.adapters.file import read_adapter
from sd_lora.adapters.summary import read_summary
from sd_lora.errors import AdapterError
from sd_lora.models.families import FAMILIES
from sd_lora.tools.convert import convert_adapter
from sd_lora.tools.verify import verify_adapter

FLOWS = ("sd3", "flux", "z-image")
RANK, ALPHA, INPUTS, ROWS = 2, 3.0, 4, 42
#: what stands before the path of a module, whether the path has underscores, and the endings
SPELLINGS = {
    "kohya": ("lora_unet_", True, (".lora_down.weight", ".lora_up.weight")),
    "comfyui": ("diffusion_model.", False, (".lora_A.weight", ".lora_B.weight")),
    "comfyui, kohya's endings": ("diffusion_model.", False, (".lora_down.weight", ".lora_up.weight")),
    "transformer": ("transformer.", False, (".lora_A.weight", ".lora_B.weight")),
    "bare": ("", False, (".lora_A.weight", ".lora_B.weight")),
}


def written(path: Path, family: str, spelling: str, alpha: float | None) -> dict[str, Tensor]:
    """Write a file of all modules of the second block; the change of each of diffusers' modules, by the formula."""
    prefix, flat, endings = SPELLINGS[spelling]
    tensors, changes = {}, {}
    torch.manual_seed(0)
    for original, natives in FAMILIES[family].originals.items():
        if spelling != "kohya" and family == "z-image" and "attention.to_" in original:
            continue  # one of its names in diffusers
        if family == "z-image" and spelling == "kohya" and original.endswith((".qkv", ".out")):
            continue  # the others are of the same modules
        inner = original.replace("#", "1")
        stem = prefix + (inner.replace(".", "_") if flat else inner)
        down, up = torch.randn(RANK, INPUTS), torch.randn(ROWS, RANK)
        tensors |= {stem + endings[0]: down, stem + endings[1]: up}
        if alpha is not None:
            tensors[f"{stem}.alpha"] = torch.tensor(alpha)
        change = up.double() @ down.double() * ((alpha or RANK) / RANK)
        total, start = sum(share for _, share in natives), 0
        for native, share in natives:
            rows = ROWS * share // total
            changes["transformer." + native.replace("#", "1")] = change[start : start + rows]
            start += rows
    save_file(tensors, path)
    return changes


CASES = [(family, spelling, alpha) for family in FLOWS for spelling in SPELLINGS for alpha in (None, ALPHA)]


@every_row("case", CASES)
def test_each_module_gets_its_rows(case: tuple[str, str, float | None], tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    changes = written(path, *case)
    weights, _ = read_adapter(path)
    assert set(weights) == set(changes)
    for name, w in weights.items():
        change = w.row.product({role: tensor.double() for role, tensor in w.tensors.items()}) * w.scaling
        assert float((change - changes[name]).norm() / changes[name].norm()) <= 1e-6, name
    arrays, _ = read_adapter(path, "numpy")
    assert {name: w.shape for name, w in arrays.items()} == {name: w.shape for name, w in weights.items()}


@pytest.mark.parametrize("family", FLOWS)
def test_it_is_converted_recognised_and_judged_no_further(family: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    changes = written(path, family, "kohya", ALPHA)
    assert read_summary(path).problem == ""
    verification = verify_adapter(path)
    assert verification.is_whole
    assert any("not judged" in note for answer in verification.clients for note in answer.unjudged)
    kind = "sd3.5-medium" if family == "sd3" else FAMILIES[family].kinds[0].name
    converted, _ = read_adapter(convert_adapter(path, tmp_path / "b.safetensors", dtype="float32", kind=kind))
    for name, w in converted.items():
        change = w.row.product({role: tensor.double() for role, tensor in w.tensors.items()}) * w.scaling
        assert float((change - changes[name]).norm() / changes[name].norm()) <= 1e-6, name


def test_what_cannot_be_split_is_refused(tmp_path: Path) -> None:
    path, stem = tmp_path / "a.safetensors", "lora_unet_double_blocks_0_img_attn_qkv"
    for tensors in (
        {f"{stem}.lora_down.weight": torch.ones(RANK, 4), f"{stem}.lora_up.weight": torch.ones(7, RANK)},
        {f"{stem}.hada_w1_a": torch.ones(6, RANK), f"{stem}.hada_w1_b": torch.ones(RANK, 4)},
    ):
        save_file(tensors, path)
        with pytest.raises(AdapterError, match=r"cannot be divided among the 3 modules|no layout that sd_lora reads"):
            read_adapter(path)
