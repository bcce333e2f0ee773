"""Every attack is refused, in a sentence that names the file and the reason, in one line and little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_attacks import ATTACKS
from rows import every_row
from small_weights import weights_of
from torch import Tensor

from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.file import read_adapter
from sd_lora.adapters.fit import modules_of
from sd_lora.commands.app import main
from sd_lora.errors import AdapterError
from sd_lora.lora.weights import Weights

HEAVY = [name for name in ATTACKS if "header" in name or "tensors" in name or "nested" in name or "100,000" in name]


def test_there_are_at_least_seventy() -> None:
    assert len(ATTACKS) >= 70


@every_row("make, words", ATTACKS.values(), ids=list(ATTACKS))
def test_it_is_refused_by_its_reason(tmp_path: Path, make: Callable[[], bytes], words: str) -> None:
    path = tmp_path / "attack.safetensors"
    path.write_bytes(make())
    with pytest.raises(AdapterError, match=words) as refused:
        read_adapter(path)
    assert str(refused.value).isprintable()
    assert str(path) in str(refused.value)
    assert len(str(refused.value)) < 700 + len(str(path))


@pytest.mark.slow
def test_the_heavy_ones_need_little_memory(tmp_path: Path) -> None:
    """In a process of their own, whose peak is measured before and after."""
    for number, name in enumerate(HEAVY):
        (tmp_path / f"{number}.safetensors").write_bytes(ATTACKS[name][0]())
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from sd_lora.adapters.file import read_adapter\n"
        "from sd_lora.errors import AdapterError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in Path(sys.argv[1]).glob('*.safetensors'):\n"
        "    try:\n"
        "        read_adapter(path)\n"
        "    except AdapterError:\n"
        "        continue\n"
        "    sys.exit('read ' + path.name)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True, text=True)
    assert len(HEAVY) >= 6
    assert int(done.stdout) < 200 * 1024


@pytest.mark.parametrize(
    "name", ["pickle", "header of 101 MB", "NaN in up", "LoHa without a part", "down without up", "two layouts"]
)
def test_the_command_line_says_it_in_one_line(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "attack.safetensors"
    path.write_bytes(ATTACKS[name][0]())
    for command in (["inspect"], ["verify"], ["convert", "--out", str(tmp_path / "out.safetensors")]):
        monkeypatch.setattr("sys.argv", ["sd-lora", command[0], str(path), *command[1:]])
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capsys.readouterr().err.strip().splitlines()
        assert stopped.value.code == 2
        assert len(said) == 1
        assert said[0].startswith("error: ")
    assert [file.name for file in tmp_path.iterdir()] == ["attack.safetensors"]


# ---- paths that are no files


def test_a_folder_a_missing_file_and_broken_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "broken.safetensors").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.safetensors").symlink_to(tmp_path / "loop.safetensors")
    for name in ("folder", "broken", "loop", "missing"):
        why = "is a folder that holds no adapter" if name == "folder" else "cannot be read"
        with pytest.raises(AdapterError, match=f"{name}.safetensors {why}"):
            read_adapter(tmp_path / f"{name}.safetensors")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_and_a_device_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "zero.safetensors").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(AdapterError, match="cannot be read: it is not a file"):
            read_adapter(tmp_path / f"{name}.safetensors")


def test_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="cannot be read"):
        read_adapter(tmp_path / ("x" * 300 + ".safetensors"))


def test_a_name_with_a_nul_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="cannot be read"):
        read_adapter(f"{tmp_path}/a\x00b.safetensors")


# ---- whole files that do not fit


MISFITS: dict[str, Callable[[Tensor, Tensor], Weights]] = {
    "up of another height": lambda down, up: weights_of(down, torch.cat([up, up]), 1.0),
    "down of another width": lambda down, up: weights_of(torch.cat([down, down], 1), up, 1.0),
    "swapped and transposed": lambda down, up: weights_of(up.T.contiguous().repeat(1, 3), down.T.contiguous(), 1.0),
    "a conv for a linear": lambda down, up: weights_of(
        down[..., None, None].repeat(1, 1, 3, 3), up[..., None, None], 1.0
    ),
    "a magnitude of another height": lambda down, up: weights_of(down, up, 1.0, torch.ones(up.shape[0] + 1)),
}


@pytest.mark.parametrize("misfit", MISFITS.values(), ids=list(MISFITS))
def test_a_whole_file_that_does_not_fit_attaches_nothing(
    random_sd: Any, trained_adapter: Callable[..., Adapter], misfit: Callable[[Tensor, Tensor], Weights]
) -> None:
    weights = trained_adapter(random_sd).weights
    last = list(weights)[-1]
    with pytest.raises(AdapterError, match=f"1 of its {len(weights)} modules have another shape"):
        Adapter(weights | {last: misfit(**weights[last].tensors)}, {}).inject(random_sd)
    assert not any(hasattr(module, "loras") or module._forward_hooks for module in modules_of(random_sd).values())
