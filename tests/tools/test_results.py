"""What the tools write beside the weights, and files and models made to mislead them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_weights import weights_of
from typer.testing import CliRunner

import sd_lora
from sd_lora import AdapterError, ConfigError
from sd_lora.adapters.file import read_adapter
from sd_lora.adapters.fit import modules_of
from sd_lora.adapters.writing import write_adapter
from sd_lora.commands.app import app
from sd_lora.config.schema import ModelConfig
from sd_lora.models.families import kinds
from sd_lora.storage.safetensors_header import read_header
from sd_lora.tools.convert import convert_adapter
from sd_lora.tools.extract import extract_adapter
from sd_lora.tools.fuse import fuse_adapter
from sd_lora.tools.merge import merge_adapters
from sd_lora.tools.resize import resize_adapter
from sd_lora.tools.verify import verify_adapter

NAME = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
STEM = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
Tool = Callable[[Path, Path], object]

TOOLS: dict[str, Tool] = {
    "convert": convert_adapter,
    "merge": lambda a, out: merge_adapters([a], out),
    "resize": lambda a, out: resize_adapter(a, out, rank=2),
}


@pytest.fixture(params=TOOLS)
def tool(request: pytest.FixtureRequest) -> Tool:
    return TOOLS[request.param]


def factors(width: int = 768, seed: int = 0, rank: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{NAME}.lora_A.weight": torch.randn(rank, width, generator=generator),
        f"{NAME}.lora_B.weight": torch.randn(8, rank, generator=generator),
    }


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A file in diffusers' keys without any metadata, of SD1 by its width."""
    save_file(factors(), tmp_path / "foreign.safetensors")
    return tmp_path / "foreign.safetensors"


# ---- metadata and type


def test_every_result_is_marked_for_its_base(tool: Tool, foreign: Path, tmp_path: Path) -> None:
    tool(foreign, tmp_path / "out.safetensors")
    metadata = read_adapter(tmp_path / "out.safetensors")[1]
    assert {key: metadata[key] for key in kinds()["sd1"].marks} == kinds()["sd1"].marks
    assert metadata["sdlora.family"] == "sd"


def test_without_a_base_that_anything_tells_nothing_is_written(tool: Tool, tmp_path: Path) -> None:
    save_file(factors(width=36), tmp_path / "odd.safetensors")
    with pytest.raises(AdapterError, match=r"odd\.safetensors does not say which base it is for; .*--kind sd1\|sd2"):
        tool(tmp_path / "odd.safetensors", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_a_result_is_called_by_its_own_name_where_other_programs_call_it(
    tool: Tool, foreign: Path, tmp_path: Path
) -> None:
    write_adapter(foreign, read_adapter(foreign)[0], kinds()["sd1"].marks | {"ss_output_name": "ink"}, "float32")
    tool(foreign, tmp_path / "ink, small.safetensors")
    assert read_adapter(tmp_path / "ink, small.safetensors")[1]["ss_output_name"] == "ink_ small"


@pytest.mark.parametrize(
    ("kind", "name"), [(torch.float32, "F32"), (torch.float16, "F16"), (torch.bfloat16, "BF16")], ids=str
)
def test_a_result_keeps_the_type_of_its_input(tool: Tool, tmp_path: Path, kind: torch.dtype, name: str) -> None:
    save_file({key: tensor.to(kind) for key, tensor in factors().items()}, tmp_path / "a.safetensors")
    tool(tmp_path / "a.safetensors", tmp_path / "out.safetensors")
    header = read_header(tmp_path / "out.safetensors")[0]
    assert {info.dtype for key, info in header.items() if not key.endswith(".alpha")} == {name}


def test_a_merge_of_two_types_keeps_the_finer_one(foreign: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    save_file({key: tensor.half() for key, tensor in factors(seed=1).items()}, half)
    merge_adapters([half, foreign], tmp_path / "out.safetensors")
    assert load_file(tmp_path / "out.safetensors")[f"{STEM}.lora_up.weight"].dtype is torch.float32


def test_a_merge_takes_the_first_trigger_word_there_is_and_no_recommended_strength(
    foreign: Path, tmp_path: Path
) -> None:
    weights = read_adapter(foreign)[0]
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    write_adapter(one, weights, kinds()["sd1"].marks | {"sdlora.strength": "0.7"}, "float32")
    write_adapter(two, weights, kinds()["sd1"].marks | {"sdlora.trigger": "zwq"}, "float32")
    merge_adapters([one, two], tmp_path / "out.safetensors")
    metadata = read_adapter(tmp_path / "out.safetensors")[1]
    assert metadata["sdlora.trigger"] == "zwq"
    assert "sdlora.strength" not in metadata


# ---- files made to mislead


def test_a_damaged_history_is_begun_anew(tmp_path: Path) -> None:
    for count, text in enumerate(("[" * 100_000, "{", '"x"')):
        path, out = tmp_path / f"{count}.safetensors", tmp_path / f"{count}-out.safetensors"
        save_file(factors(), path, {"sdlora.history": text})
        convert_adapter(path, out)
        assert [entry["tool"] for entry in json.loads(read_adapter(out)[1]["sdlora.history"])] == ["convert"]


def test_verify_reports_on_shapes_that_are_none(tmp_path: Path) -> None:
    save_file(
        {f"{STEM}.lora_down.weight": torch.ones(4), f"{STEM}.lora_up.weight": torch.ones(8, 4)},
        tmp_path / "a.safetensors",
    )
    found = verify_adapter(tmp_path / "a.safetensors")
    assert "which cannot be multiplied" in found.problems[0]
    assert len(found.clients) == 6


def test_verify_looks_once_for_what_invokeai_goes_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of thousands of modules must not be searched for each of them."""
    from sd_lora.adapters.clients import answers
    from sd_lora.adapters.parts import Part, facts_of

    shapes = {}
    for layer in range(300):
        stem = f"lora_te_text_model_encoder_layers_{layer}_mlp_fc1"
        shapes |= {f"{stem}.lora_down.weight": (1, 4), f"{stem}.lora_up.weight": (4, 1)}
    looks = 0
    plain = Part.is_attention

    def counted(part: Part) -> bool:
        nonlocal looks
        looks += 1
        return plain.__get__(part)

    monkeypatch.setattr(Part, "is_attention", property(counted))
    found = answers(facts_of(shapes, kinds()["sd1"].marks, {}, "sd1"))
    assert "attn2.to_k" in found[-1].reasons[0]
    assert looks < 30 * 300


def test_adapters_that_cancel_each_other_are_not_merged(foreign: Path, tmp_path: Path) -> None:
    for weights in ([1.0, -1.0], [0.0, 0.0]):
        with pytest.raises(AdapterError, match="nothing is left of"):
            merge_adapters([foreign, foreign], tmp_path / "out.safetensors", weights=weights)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_rank_that_cuts_nothing_is_refused(foreign: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--rank 4 would cut nothing: no module of .* has a rank above 4"):
        resize_adapter(foreign, tmp_path / "out.safetensors", rank=4)
    assert not (tmp_path / "out.safetensors").exists()


# ---- models


def saved(pipe: Any, folder: Path) -> ModelConfig:
    pipe.save_pretrained(folder, safe_serialization=True)
    return ModelConfig(base=str(folder))


def test_what_a_type_cannot_hold_is_not_fused(bases: dict[str, Path], tmp_path: Path) -> None:
    module = modules_of(sd_lora.load_base(bases["sd1"])[0])[NAME]
    assert isinstance(module, torch.nn.Linear)
    out, inputs = module.out_features, module.in_features
    write_adapter(
        tmp_path / "a.safetensors", {NAME: weights_of(torch.ones(1, inputs), torch.ones(out, 1), 1.0)},
        kinds()["sd1"].marks, "float32",
    )  # fmt: skip
    before = sorted(tmp_path.iterdir())
    for name in ("folder", "file.safetensors"):
        with pytest.raises(AdapterError, match="1 modules hold values that float16 cannot"):
            fuse_adapter(tmp_path / "a.safetensors", ModelConfig(base=str(bases["sd1"])), tmp_path / name, strength=1e6)
    assert sorted(tmp_path.iterdir()) == before


def test_a_copy_in_a_coarser_type_is_no_difference(bases: dict[str, Path], tmp_path: Path) -> None:
    """Only the module that was changed is extracted, though every weight of the copy is rounded."""
    base = ModelConfig(base=str(bases["sd1"]))
    pipe = sd_lora.load_base(bases["sd1"], torch.float16)[0]
    copy = saved(pipe, tmp_path / "copy")
    with pytest.raises(AdapterError, match="no module that was asked for differs"):
        extract_adapter(base, copy, tmp_path / "out.safetensors", rank=2)
    with torch.no_grad():
        modules_of(pipe)[NAME].weight.add_(0.1)  # type: ignore[operator]
    found = extract_adapter(base, saved(pipe, tmp_path / "tuned"), tmp_path / "out.safetensors", rank=2)
    assert list(found.ranks) == [NAME]
    assert found.beyond == ()


def test_differences_that_no_adapter_can_hold_are_told_by_their_sorts(bases: dict[str, Path], tmp_path: Path) -> None:
    pipe = sd_lora.load_base(bases["sd1"])[0]
    with torch.no_grad():
        modules_of(pipe)[NAME].weight.add_(0.1)  # type: ignore[operator]
        pipe.unet.conv_norm_out.weight.add_(1)
        pipe.unet.conv_norm_out.bias.add_(1)
        pipe.unet.conv_in.bias.add_(1)
        pipe.vae.decoder.conv_in.weight.add_(1)
    tuned, out = saved(pipe, tmp_path / "tuned"), tmp_path / "out.safetensors"
    run = CliRunner().invoke(
        app, ["extract", "--base", str(bases["sd1"]), "--tuned", tuned.base, "--rank", "2", "--out", str(out)]
    )
    assert run.exit_code == 0, run.output
    assert "warning: 4 weights outside --targets" in run.stderr
    assert all(sort in run.stderr for sort in ("2 norms", "1 biases", "1 VAE weights"))
    assert list(read_adapter(out)[0]) == [NAME]


def test_models_of_two_prediction_types_have_no_adapter_between_them(bases: dict[str, Path], tmp_path: Path) -> None:
    base, tuned = ModelConfig(base=str(bases["sd2"])), ModelConfig(base=str(bases["sd2v"]))
    with pytest.raises(AdapterError, match=r'predicts "v_prediction" and .* "epsilon"'):
        extract_adapter(base, tuned, tmp_path / "out.safetensors", rank=2)
    assert not (tmp_path / "out.safetensors").exists()
