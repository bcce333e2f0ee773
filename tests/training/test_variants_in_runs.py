"""Whole runs of variants other than LoRA: trained, reloaded to the bit, resumed, exported, previewed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_runs import Crash, config_of, go, write_images

from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.file import read_adapter
from sd_lora.adapters.fit import modules_of
from sd_lora.lora.variants import VARIANTS
from sd_lora.runs.folder import RunFolder

OTHERS = [name for name, row in VARIANTS.items() if row.is_trained and name not in ("lora", "dora")]
SETTINGS = ("lora.targets=attn,conv", "output.dtype=float32", "training.checkpoint_every=2")


@pytest.mark.parametrize("variant", [OTHERS[0], *(pytest.param(each, marks=pytest.mark.slow) for each in OTHERS[1:])])
def test_a_run_ends_with_an_adapter_of_it_and_resumes_to_the_same_bytes(
    variant: str, random_sd_folder: Path, random_sd: Any, tmp_path: Path
) -> None:
    images = write_images(tmp_path / "images")
    whole, cut = (
        config_of(random_sd_folder, images, tmp_path / name, f"lora.variant={variant}", *SETTINGS)
        for name in ("whole", "cut")
    )
    reports = go(whole)
    with pytest.raises(Crash):
        go(cut, crash_after=3)
    go(RunFolder(tmp_path / "cut").read_config(), resumed=True)
    first, second = (load_file(tmp_path / name / "adapter.safetensors") for name in ("whole", "cut"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert reports[-1].loss != reports[0].loss
    weights, metadata = read_adapter(tmp_path / "whole" / "adapter.safetensors")
    assert {w.variant for w in weights.values()} == {variant} == {metadata["sdlora.variant"]}
    assert metadata["ss_network_module"] == "lycoris.kohya"
    assert f'"algo": "{variant}"' in metadata["ss_network_args"]
    assert any(w.squared_norm > 0 for w in weights.values())
    again = Adapter.load(tmp_path / "whole" / "adapter.safetensors").save(
        tmp_path / "again.safetensors", dtype="float32"
    )
    saved = load_file(again)
    assert all(torch.equal(saved[key], first[key]) for key in first)
    # diffusers reads neither: the export is plain LoRA of the same change
    exported, _ = read_adapter(tmp_path / "whole" / "diffusers")
    modules = modules_of(random_sd)
    for name, w in weights.items():
        shape, plain = modules[name].weight.shape, exported[name]
        change, made = ((each.row.product(each.tensors) * each.scaling).reshape(shape) for each in (w, plain))
        assert plain.variant == "lora"
        assert float((made - change).norm()) <= 0.02 * float(change.norm())


def test_loras_factor_sizes_a_lokr(random_sd: Any) -> None:
    from sd_lora.lora.targets import plan_targets

    targets = plan_targets({"unet": random_sd.unet}, {}, ["*.attn1.to_q"], (2, 2.0))
    sizes = {}
    for factor in (0, 2, 4):
        adapter = Adapter.create(targets, variant="lokr", factor=factor)
        sizes[factor] = {w.shapes["lokr_w1"] for w in adapter.weights.values()}
    assert sizes[2] == {(2, 2)}
    assert sizes[4] == {(4, 4)}
    assert sizes[0] not in (sizes[2], sizes[4]) or sizes[0] == {(4, 4)}
