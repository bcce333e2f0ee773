"""`read_summary`: what adapter files of several programs say of themselves, damaged and hostile ones included."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_weights import weights_of

from sd_lora import read_summary
from sd_lora.adapters.writing import write_adapter

ATTENTION = "transformer_blocks_0_attn2_to_k"
DOWN, MID = f"lora_unet_down_blocks_0_attentions_0_{ATTENTION}", f"lora_unet_mid_block_attentions_0_{ATTENTION}"
BARE, MIDDLE_RESNET = "lora_unet_up_blocks_0_resnets_1_conv1", "lora_unet_mid_block_resnets_0_conv1"
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


def raw(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def file_of(keys: dict[str, tuple[int, ...]], metadata: Any = None) -> bytes:
    """A float16 file of zeros with tensors of these shapes."""
    header, place = {"__metadata__": metadata or {}}, 0
    for key, shape in keys.items():
        size = 2
        for side in shape:
            size *= side
        header[key] = {"dtype": "F16", "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    return raw(header, bytes(place))


def modules(*stems: str, rank: int = 8, alpha: bool = True) -> dict[str, tuple[int, ...]]:
    """Kohya's keys of these modules, convolutions among them."""
    keys: dict[str, tuple[int, ...]] = {}
    for stem in stems:
        tail = (3, 3) if stem.endswith("conv1") else ()
        keys[f"{stem}.lora_down.weight"] = (rank, 768, *tail)
        keys[f"{stem}.lora_up.weight"] = (32, rank, *[1 for _ in tail])
        if alpha:
            keys[f"{stem}.alpha"] = ()
    return keys


@pytest.fixture
def summary_of(tmp_path: Path) -> Any:
    def write(content: bytes, name: str = "a.safetensors") -> Any:
        (tmp_path / name).write_bytes(content)
        return read_summary(tmp_path / name)

    return write


def test_a_file_of_ours(tmp_path: Path) -> None:
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    metadata = {
        "sdlora.base": "tiny", "sdlora.family": "sd", "sdlora.trigger": "zwq", "sdlora.steps": "400",
        "sdlora.strength": "0.8", "modelspec.trigger_phrase": "in zwq style", "ss_network_alpha": "2",
        "ss_num_train_images": "12", "modelspec.architecture": "stable-diffusion-v1/lora",
    }  # fmt: skip
    path = tmp_path / "a.safetensors"
    write_adapter(path, {name: weights_of(torch.ones(4, 6), torch.ones(5, 4), 2.0)}, metadata, "float16")
    found = read_summary(path)
    assert (found.path, found.bytes, found.problem) == (path, path.stat().st_size, "")
    assert (found.base, found.family, found.kind, found.layout, found.variant) == ("tiny", "sd", "sd1", "kohya", "lora")
    assert (found.rank, found.alpha, found.steps, found.images) == ("4", "2", 400, 12)
    assert (found.trigger, found.phrase, found.strength) == ("zwq", "in zwq style", 0.8)
    assert found.metadata["sdlora.base"] == "tiny"
    assert "sdlora.modules" not in found.metadata


def test_a_file_of_kohya(summary_of: Any) -> None:
    metadata = {
        "ss_sd_model_name": "C:\\Users\\me\\models\\anything-v3.safetensors", "ss_network_dim": "Dynamic",
        "ss_network_alpha": "4.0", "ss_steps": "1600", "ss_num_train_images": "200",
        "ss_dataset_dirs": json.dumps({"10_ink": {"n_repeats": 10, "img_count": 15}, "1_b": {"img_count": 5}}),
        "ss_base_model_version": "sd_v1",
    }  # fmt: skip
    found = summary_of(file_of({**modules(DOWN, TEXT), **modules(MID, rank=16)}, metadata))
    assert (found.base, found.kind, found.family) == ("anything-v3", "sd1", "sd")
    assert (found.rank, found.alpha, found.steps) == ("8–16", "4", 1600)
    assert found.images == 20  # images, not repeats
    assert found.parts == ("text_encoder", "unet.down.block_0", "unet.mid")
    assert (found.trigger, found.strength, found.problem) == ("", None, "")


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("runwayml/stable-diffusion-v1-5", "runwayml/stable-diffusion-v1-5"),
        ("/home/me/secret/model.ckpt", "model"), ("~/m.safetensors", "m"), ("None", ""), ("v1.5", "v1.5"),
    ],
)  # fmt: skip
def test_a_base_is_named_without_where_it_lay(summary_of: Any, name: str, base: str) -> None:
    assert summary_of(file_of(modules(MID), {"ss_sd_model_name": name})).base == base


def test_a_file_of_diffusers(summary_of: Any) -> None:
    stem = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    keys = {f"{stem}.lora_A.weight": (8, 2048), f"{stem}.lora_B.weight": (32, 8)}
    found = summary_of(file_of(keys))
    assert (found.layout, found.rank, found.alpha, found.kind) == ("diffusers", "8", "8", "sdxl")
    found = summary_of(file_of(keys, {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 3, "unet.r": 8})}))
    assert found.alpha == "3"


def test_the_kind_is_told_by_shapes_whatever_the_metadata_say(summary_of: Any) -> None:
    assert summary_of(file_of(modules(MID), {"ss_base_model_version": "sdxl_base_v1-0"})).kind == "sd1"


def test_blocks_that_diffusers_does_not_reach_wholly(summary_of: Any) -> None:
    found = summary_of(file_of(modules(DOWN, BARE, MID, MIDDLE_RESNET, "lora_unet_conv_in")))
    assert found.parts == ("unet", "unet.down.block_0", "unet.mid", "unet.up.block_0")
    assert found.beyond == ("unet.mid", "unet.up.block_0")
    assert summary_of(file_of(modules(DOWN, MID))).beyond == ()
    assert summary_of(file_of(modules(BARE))).beyond == ()  # nothing tells whether the block has attention


def test_a_dora_is_named(summary_of: Any) -> None:
    assert summary_of(file_of({**modules(MID), f"{MID}.dora_scale": (32, 1)})).variant == "dora"


HUGE = raw(b"{" + b" " * (4 * 2**20) + b"}")
DAMAGED = {
    "empty": b"",
    "pickle": b"\x80\x04\x95" * 40,
    "cut": file_of(modules(MID))[:-7],
    "huge header": HUGE,
    "header of four exabytes": struct.pack("<Q", 2**62) + b"{}",
    "no JSON": raw(b"{" + b"[" * 5000),
    "key twice": raw(b'{"a": 1, "a": 2}'),
    "nothing in it": raw({"__metadata__": {"a": "b"}}),
    "metadata no text": file_of(modules(MID), {"a": 1}),
    "20,001 tensors": raw({f"k{i}": {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]} for i in range(20_001)}),
    "a base model": file_of({"model.diffusion_model.input_blocks.0.0.weight": (4, 4)}),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGED)
def test_damage_is_told_in_one_line_without_where_the_file_lies(summary_of: Any, tmp_path: Path, what: str) -> None:
    found = summary_of(DAMAGED[what])
    assert found.problem.startswith("a.safetensors ")
    assert found.problem.isprintable()
    assert str(tmp_path) not in found.problem
    assert found.bytes == len(DAMAGED[what])


def test_what_is_not_there_and_folders_are_told(tmp_path: Path) -> None:
    assert "does not exist" in read_summary(tmp_path / "none.safetensors").problem
    assert "a folder" in read_summary(tmp_path).problem


def test_texts_of_strangers_are_cut_and_break_no_line(summary_of: Any) -> None:
    metadata = {"sdlora.trigger": "a\nb\u202e" + "x" * 5000, "sdlora.base": "<script>\x00", "sdlora.family": "nonesuch"}
    found = summary_of(file_of(modules(MID), metadata))
    assert found.trigger.startswith("a?b?xxx")
    assert len(found.trigger) == 200
    assert found.base == "<script>?"
    assert found.family == "sd"


@pytest.mark.parametrize("odd", ["-3", "1e3", "９", "nan", "1" * 5000, "", "<b>"])
def test_numbers_that_are_none_are_left_out(summary_of: Any, odd: str) -> None:
    metadata = {
        "sdlora.steps": odd, "ss_steps": odd, "ss_num_train_images": odd, "ss_dataset_dirs": odd,
        "sdlora.strength": odd if odd not in ("-3", "９") else "99", "ss_network_alpha": odd if odd != "-3" else "inf",
    }  # fmt: skip
    found = summary_of(file_of(modules(MID), metadata))
    assert (found.steps, found.images, found.strength) == (None, None, None)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", '{"a": 1}', '{"a": {"img_count": -1}}', '{"a": {"img_count": true}}', '{"a": {}}']
)
def test_a_count_of_images_that_cannot_be_read_is_left_out(summary_of: Any, text: str) -> None:
    metadata = {"ss_dataset_dirs": text, "lora_adapter_metadata": text}
    assert summary_of(file_of(modules(MID, alpha=False), metadata)).images is None


def test_absurd_sizes_do_no_harm(summary_of: Any) -> None:
    huge = 10**400
    keys = {f"{MID}.lora_down.weight": (huge, 0), f"{MID}.lora_up.weight": (0, huge)}
    found = summary_of(file_of(keys, {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": huge})}))
    assert (found.rank, found.alpha) == ("", "")


# ---- pictures


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
    return path


def test_the_picture_beside_an_adapter(tmp_path: Path) -> None:
    adapter = tmp_path / "ink.safetensors"
    adapter.write_bytes(file_of(modules(MID)))
    picture(tmp_path / "adapter.png")  # another adapter's
    assert read_summary(adapter).thumbnail is None
    beside = picture(tmp_path / "ink.preview.png")
    assert read_summary(adapter).thumbnail == beside


def test_the_picture_of_a_run(tmp_path: Path) -> None:
    adapter, kept = tmp_path / "adapter.safetensors", tmp_path / "adapters" / "step-000100.safetensors"
    kept.parent.mkdir()
    (tmp_path / "config.toml").touch()
    picture(tmp_path / "samples" / "step-000050.png")
    last = picture(tmp_path / "samples" / "step-000200.png")
    assert read_summary(adapter).thumbnail == last
    mine = picture(tmp_path / "samples" / "step-000100.png")
    own = picture(tmp_path / "adapter.png")
    assert read_summary(adapter).thumbnail == own
    assert read_summary(kept).thumbnail == mine


def test_a_link_out_of_the_folder_is_no_picture(tmp_path: Path) -> None:
    secret = picture(tmp_path / "private" / "secret.png")
    adapter = tmp_path / "shared" / "ink.safetensors"
    adapter.parent.mkdir()
    (tmp_path / "shared" / "ink.png").symlink_to(secret)
    assert read_summary(adapter).thumbnail is None


def test_no_torch_is_needed() -> None:
    code = "import sys, sd_lora; sd_lora.read_summary('x'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
