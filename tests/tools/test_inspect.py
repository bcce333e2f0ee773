"""`inspect_adapter`: facts of a file, right to the number, without a base model."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_weights import weights_of
from typer.testing import CliRunner

from sd_lora import AdapterError, inspect_adapter
from sd_lora.adapters.writing import write_adapter
from sd_lora.commands.app import app
from sd_lora.lora.weights import Weights

METADATA = {"sdlora.base": "tiny", "sdlora.family": "sd", "sdlora.trigger": "zwq", "ss_seed": "3"}
DOWN, UP = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "unet.up_blocks.1.resnets.0.conv1"
MIDDLE = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_v"


def weights(alpha: float = 2.0) -> dict[str, Weights]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    return {
        DOWN: weights_of(draw(4, 6), draw(5, 4), alpha),
        MIDDLE: weights_of(draw(2, 6), draw(6, 2), alpha),
        UP: weights_of(draw(4, 3, 3, 3), draw(5, 4, 1, 1), alpha),
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_adapter(tmp_path / "a.safetensors", weights(), METADATA, "float32")
    return tmp_path / "a.safetensors"


def test_the_report_is_right(file: Path) -> None:
    report = inspect_adapter(file)
    assert (report.path, report.bytes) == (str(file), file.stat().st_size)
    assert (report.base, report.family, report.trigger) == ("tiny", "sd", "zwq")
    assert report.modules == 3
    assert report.parameters == 4 * 6 + 5 * 4 + 2 * 6 + 6 * 2 + 4 * 27 + 5 * 4
    assert report.targets == {"unet attn": 2, "unet conv": 1}
    assert report.ranks == {2: 1, 4: 2}
    assert report.alphas == {2.0: 3}
    assert report.metadata["ss_seed"] == "3"


def test_norms_are_those_of_the_whole_update(file: Path) -> None:
    norms = inspect_adapter(file).norms
    expected = {}
    for name, block in ((DOWN, "unet.down.block_0"), (MIDDLE, "unet.mid"), (UP, "unet.up.block_1")):
        w = weights()[name]
        delta = w.alpha / w.rank * w.tensors["up"].flatten(1).double() @ w.tensors["down"].flatten(1).double()
        expected[block] = delta.norm().item()
    assert norms == pytest.approx(expected, rel=1e-5)


def test_norms_of_one_block_add_up_as_squares(tmp_path: Path) -> None:
    twice = weights()
    twice[DOWN.replace("to_q", "to_k")] = weights()[DOWN]
    write_adapter(tmp_path / "b.safetensors", twice, {}, "float32")
    write_adapter(tmp_path / "a.safetensors", weights(), {}, "float32")
    one, two = (inspect_adapter(tmp_path / f"{name}.safetensors").norms["unet.down.block_0"] for name in "ab")
    assert two == pytest.approx(one * 2**0.5, rel=1e-5)


def test_the_report_is_json(file: Path) -> None:
    report = json.loads(json.dumps(inspect_adapter(file).to_json()))
    assert report["trigger"] == "zwq"
    assert report["ranks"] == {"2": 1, "4": 2}


def test_the_lines_say_it_for_people(file: Path) -> None:
    lines = dict(inspect_adapter(file).lines())
    assert lines["base model"] == "tiny"
    assert lines["trigger word"] == "zwq"
    assert lines["rank"] == "2 (× 1), 4 (× 2)"
    assert lines["modules"].startswith("3 ")
    assert "norm of unet.mid" in lines


def test_a_file_that_says_nothing_of_itself(tmp_path: Path) -> None:
    write_adapter(tmp_path / "a.safetensors", weights(), {}, "float16")
    report = inspect_adapter(tmp_path / "a.safetensors")
    lines = dict(report.lines())
    assert (report.base, report.trigger) == ("", "")
    assert lines["base model"] == "not recorded"
    assert lines["trigger word"] == "none"


def test_the_base_another_trainer_recorded_is_shown(tmp_path: Path) -> None:
    write_adapter(tmp_path / "a.safetensors", weights(), {"ss_sd_model_name": "v1-5.ckpt"}, "float16")
    assert inspect_adapter(tmp_path / "a.safetensors").base == "v1-5.ckpt"


def test_a_value_beyond_float32_is_refused_without_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    write_adapter(file, weights(), {}, "float32")
    tensors = {key: tensor.double() for key, tensor in load_file(file).items()}
    next(tensor for key, tensor in tensors.items() if "lora_up" in key).view(-1)[0] = 1e300
    save_file(tensors, file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AdapterError, match="NaN or infinite"):
            inspect_adapter(file)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickled", b"{}" * 20])
def test_what_is_no_adapter_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(AdapterError, match=r"a\.safetensors"):
        inspect_adapter(tmp_path / "a.safetensors")
    with pytest.raises(AdapterError, match="cannot be read"):
        inspect_adapter(tmp_path / "none.safetensors")


def test_the_command_shows_the_facts(file: Path) -> None:
    result = CliRunner().invoke(app, ["inspect", str(file)])
    assert (result.exit_code, result.stderr) == (0, "")
    for said in ("tiny", "zwq", "4 (× 2)", "norm of unet.mid"):
        assert said in result.stdout


def test_the_command_prints_json(file: Path) -> None:
    result = CliRunner().invoke(app, ["inspect", str(file), "--json"])
    assert json.loads(result.stdout) == json.loads(json.dumps(inspect_adapter(file).to_json()))
