"""Adapters of kinds that are only read: previewed, fused, described, and made plain LoRA of."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_against_lycoris import CASES, Case, file_of, trained
from torch import nn
from typer.testing import CliRunner

from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.fit import modules_of
from sd_lora.adapters.summary import read_summary
from sd_lora.commands.app import app
from sd_lora.config.presets import load_config
from sd_lora.config.schema import ModelConfig
from sd_lora.errors import AdapterError, ConfigError
from sd_lora.lora.variants import VARIANTS
from sd_lora.models.families import FAMILIES, kinds
from sd_lora.tools.convert import convert_adapter
from sd_lora.tools.inspect import inspect_adapter
from sd_lora.tools.merge import merge_adapters
from sd_lora.tools.resize import resize_adapter
from sd_lora.tools.verify import verify_adapter
from sd_lora.training.adapter_plan import plan_adapter

ATTENTION = "unet.down_blocks.0.attentions.0"
#: a module of each kind that LyCORIS' cases are about
PLACES = {
    "linear": f"{ATTENTION}.transformer_blocks.0.attn2.to_k",
    "conv": "unet.down_blocks.0.resnets.0.conv1",
    "point": f"{ATTENTION}.proj_in",
    "layernorm": f"{ATTENTION}.transformer_blocks.0.norm1",
    "groupnorm": f"{ATTENTION}.norm",
}


def file_for(case: Case, pipe: Any, path: Path) -> Path:
    """A file with a module of each kind of the case, for the modules of `pipe`."""
    modules, tensors = modules_of(pipe), {}
    for kind in case.kinds:
        made = trained(case, copy.deepcopy(modules[PLACES[kind]]).requires_grad_(False))
        tensors |= load_file(file_of(made, PLACES[kind], path))
    save_file(tensors, path, kinds()["sd1"].marks)
    return path


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def file(case: Case, random_sd: Any, tmp_path: Path) -> Path:
    return file_for(case, random_sd, tmp_path / "a.safetensors")


def output_of(pipe: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    latents, states = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 5, 32, generator=generator)
    with torch.no_grad():
        return pipe.unet(latents, 3, states).sample


def test_it_is_injected_and_fused_alike(file: Path, random_sd: Any) -> None:
    base = output_of(random_sd)
    with Adapter.load(file).injected(random_sd):
        injected = output_of(random_sd)
    assert torch.equal(output_of(random_sd), base)
    fused = copy.deepcopy(random_sd)
    Adapter.load(file).fuse(fused)
    assert float((injected - base).norm() / base.norm()) > 1e-3
    torch.testing.assert_close(output_of(fused), injected, rtol=1e-4, atol=1e-4)


def test_plain_lora_at_full_rank_is_the_same_change(
    file: Path, case: Case, random_sd: Any, random_sd_folder: Path, tmp_path: Path
) -> None:
    row, out = VARIANTS[case.variant], tmp_path / "plain.safetensors"
    if row.can_cut:
        return
    model = ModelConfig(base=str(random_sd_folder), dtype="float32")
    if row.needs_base:
        with pytest.raises(AdapterError, match="depends on the base model; name that with --base"):
            resize_adapter(file, out, rank=64)
    if row.name == "norm":
        with pytest.raises(AdapterError, match="only norms and biases"):
            resize_adapter(file, out, rank=64)
        return
    report = resize_adapter(file, out, rank=1000, dtype="float32", model=model if row.needs_base else None)
    assert report.error <= 1e-5
    assert {w.variant for w in Adapter.load(out).weights.values()} == {"lora"}
    for name, w in Adapter.load(file).weights.items():
        weight = modules_of(random_sd)[name].weight
        plain = Adapter.load(out).weights[name]
        change = w.row.delta(w.tensors, w.scaling, weight).reshape(weight.shape)
        made = (plain.row.product(plain.tensors) * plain.scaling).reshape(weight.shape)
        assert float((made - change).norm() / change.norm()) <= 1e-5
    has_bias = any(w.row.delta_bias(w.tensors) is not None for w in Adapter.load(file).weights.values())
    assert bool(report.left_out) == has_bias


def test_it_is_described_and_no_program_is_judged_without_a_rule(file: Path, case: Case) -> None:
    row = VARIANTS[case.variant]
    assert inspect_adapter(file).variant == read_summary(file).variant == case.variant
    assert read_summary(file).problem == ""
    for answer in verify_adapter(file).clients:
        if not row.is_judged:
            assert answer.unjudged == (f"not judged: {answer.modules} of {answer.modules} with keys of {row.title}",)
            assert (answer.loaded, answer.reasons) == (0, ())


def test_what_is_only_read_is_neither_written_nor_merged(file: Path, case: Case, tmp_path: Path) -> None:
    out = tmp_path / "b.safetensors"
    if not VARIANTS[case.variant].is_trained:
        remedy = "no LoRA can hold them" if case.variant == "norm" else "make plain LoRA of it with sd-lora resize"
        with pytest.raises(AdapterError, match=remedy):
            convert_adapter(file, out)
    if not VARIANTS[case.variant].can_add:
        with pytest.raises(AdapterError, match="only LoRAs can be merged: make one of it"):
            merge_adapters([file, file], out)
    assert VARIANTS[case.variant].is_trained or not out.exists()


def test_converting_keeps_the_change(file: Path, case: Case, random_sd: Any, tmp_path: Path) -> None:
    """Also of square weights, whose magnitudes by column have the number of those by row."""
    if not VARIANTS[case.variant].is_trained:
        return
    with Adapter.load(file).injected(random_sd):
        expected = output_of(random_sd)
    for layout in ("kohya", "diffusers"):
        if layout == "diffusers" and case is CASES["dora-columns"]:
            with pytest.raises(AdapterError, match="no place for magnitudes by input column; make plain LoRA"):
                convert_adapter(file, tmp_path / "c.safetensors", layout=layout, dtype="float32")
            continue
        made = convert_adapter(file, tmp_path / f"{layout}.safetensors", layout=layout, dtype="float32")
        with Adapter.load(made).injected(random_sd):
            torch.testing.assert_close(output_of(random_sd), expected, rtol=1e-4, atol=1e-4)


def test_what_is_only_read_is_not_trained_further(
    file: Path, case: Case, random_sd: Any, random_sd_folder: Path
) -> None:
    config = load_config("style", f"model.base={random_sd_folder}", f"lora.init={file}")
    if VARIANTS[case.variant].is_trained and case is not CASES["dora-columns"]:
        assert len(plan_adapter(config, FAMILIES["sd"], random_sd).weights) == len(case.kinds)
    else:
        with pytest.raises(ConfigError, match=r"a\.safetensors, which holds .*; that is read but not trained"):
            plan_adapter(config, FAMILIES["sd"], random_sd)


def test_the_command_says_what_no_lora_can_hold(random_sd: Any, tmp_path: Path) -> None:
    path, out = file_for(CASES["full"], random_sd, tmp_path / "a.safetensors"), tmp_path / "b.safetensors"
    done = CliRunner().invoke(app, ["resize", str(path), "--out", str(out), "--rank", "4"])
    assert done.exit_code == 0, done.output
    assert "left out, as no LoRA can hold them: changes of norms and biases in" in done.stdout


def test_kernels_of_ones_may_be_left_out(random_sd: Any, tmp_path: Path) -> None:
    """A 1 × 1 convolution as a matrix, and the reverse: injected, and merged with the other form."""
    whole = file_for(CASES["lora"], random_sd, tmp_path / "a.safetensors")
    tensors = {key: t.flatten(1) if t.shape[2:] == (1, 1) else t for key, t in load_file(whole).items()}
    tensors = {key: t[..., None, None] if t.ndim == 2 and "attn2" in key else t for key, t in tensors.items()}
    save_file(tensors, tmp_path / "flat.safetensors", kinds()["sd1"].marks)
    expected = Adapter.load(whole)
    with expected.injected(random_sd):
        output = output_of(random_sd)
    with Adapter.load(tmp_path / "flat.safetensors").injected(random_sd):
        torch.testing.assert_close(output_of(random_sd), output)
    for order in (["a", "flat"], ["flat", "a"]):
        files = [tmp_path / f"{name}.safetensors" for name in order]
        merged = merge_adapters(
            files, tmp_path / "m.safetensors", weights=[0.25, 0.75], dtype="float32", overwrite=True
        )
        with Adapter.load(merged).injected(random_sd):
            torch.testing.assert_close(output_of(random_sd), output, rtol=1e-4, atol=1e-4)


def test_merge_looks_at_every_pair(random_sd: Any, tmp_path: Path) -> None:
    """The third adapter may have a module that the first has not, in another shape than the second."""
    whole = file_for(CASES["lora"], random_sd, tmp_path / "b.safetensors")
    tensors, first = load_file(whole), "attn2"
    save_file({k: t for k, t in tensors.items() if first in k}, tmp_path / "a.safetensors", kinds()["sd1"].marks)
    odd = {k: t[:, :5] if k.endswith("conv1.lora_down.weight") else t for k, t in tensors.items()}
    save_file({k: t.contiguous() for k, t in odd.items()}, tmp_path / "c.safetensors", kinds()["sd1"].marks)
    with pytest.raises(AdapterError, match=r"c.safetensors and b.safetensors have 1 modules of different shapes"):
        merge_adapters([tmp_path / f"{n}.safetensors" for n in "abc"], tmp_path / "m.safetensors")


def test_embeddings_are_named_kept_and_dropped_when_asked(random_sd: Any, tmp_path: Path) -> None:
    path = file_for(CASES["lora"], random_sd, tmp_path / "a.safetensors")
    words = {"bundle_emb.my cat.string_to_param.*": torch.ones(2, 32), "bundle_emb.x.clip_l": torch.ones(1, 32)}
    save_file(load_file(path) | words, path, kinds()["sd1"].marks)
    with pytest.warns(UserWarning, match=r"holds 2 embeddings \(my cat, x\), which are not loaded"):
        adapter = Adapter.load(path)
    assert len(adapter.weights) == 3
    shown = CliRunner().invoke(app, ["inspect", str(path), "--json"])
    assert json.loads(shown.stdout)["embeddings"] == ["my cat", "x"]
    kept = load_file(convert_adapter(path, tmp_path / "kept.safetensors"))
    assert all(torch.equal(kept[key], tensor) for key, tensor in words.items())
    dropped = load_file(convert_adapter(path, tmp_path / "dropped.safetensors", drop_embeddings=True))
    assert not any(key.startswith("bundle_emb") for key in dropped)


def test_the_places_exist(random_sd: Any) -> None:
    assert all(isinstance(modules_of(random_sd)[name], nn.Module) for name in PLACES.values())
