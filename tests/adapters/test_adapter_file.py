"""Adapter files: what is written, that it is written whole or not at all, and everything that is refused."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_weights import weights_of
from torch import Tensor

from sd_lora.adapters.file import read_adapter
from sd_lora.adapters.writing import write_adapter
from sd_lora.errors import AdapterError, SdLoraError
from sd_lora.lora.weights import Weights
from sd_lora.storage.safetensors_header import ADAPTER, read_header

LINEAR, CONV = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q", "unet.mid_block.resnets.0.conv1"
STEM = "lora_unet_mid_block_resnets_0_conv1"


def some_weights(alphas: tuple[float, ...] = (4.0, 4.0, 4.0)) -> dict[str, Weights]:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        LINEAR: ((2, 6), (10, 2)),
        CONV: ((2, 6, 3, 3), (10, 2, 1, 1)),
        "unet.mid_block.attentions.0.proj_in": ((3, 6, 1, 1), (10, 3, 1, 1)),
    }
    made = {}
    for (name, (down, up)), alpha in zip(shapes.items(), alphas, strict=True):
        made[name] = weights_of(torch.randn(down, generator=generator), torch.randn(up, generator=generator), alpha)
    return made


def change(weights: Weights) -> Tensor:
    return weights.alpha / weights.rank * weights.tensors["up"].flatten(1) @ weights.tensors["down"].flatten(1)


def split(path: Path) -> tuple[dict[str, str], bytes]:
    """The metadata of a safetensors file, and the bytes after its header."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length])["__metadata__"], content[8 + length :]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "style.safetensors"


@pytest.fixture
def saved(path: Path) -> Path:
    write_adapter(path, some_weights(), {"sdlora.trigger": "xyz"}, "float16")
    return path


@pytest.fixture
def altered(saved: Path) -> Callable[[Callable[[dict[str, Tensor]], object]], Path]:
    """A factory: the saved file, rewritten with its metadata after a function has altered its tensors."""

    def alter(edit: Callable[[dict[str, Tensor]], object]) -> Path:
        metadata, tensors = split(saved)[0], load_file(saved)
        edit(tensors)
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, saved, metadata)
        return saved

    return alter


def test_a_float32_file_gives_back_every_bit(path: Path) -> None:
    weights = some_weights()
    write_adapter(path, weights, {"sdlora.trigger": "xyz"}, "float32")
    read, metadata = read_adapter(path)
    assert set(read) == set(weights)
    assert metadata["sdlora.trigger"] == "xyz"
    for name, w in weights.items():
        assert torch.equal(read[name].tensors["down"], w.tensors["down"])
        assert torch.equal(read[name].tensors["up"], w.tensors["up"])
        assert read[name].alpha == w.alpha


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_writing_what_was_read_gives_the_same_bytes(path: Path, dtype: str) -> None:
    write_adapter(path, some_weights((4.0, 4.0, 1.0)), {}, dtype)
    again = path.with_name("again.safetensors")
    write_adapter(again, *read_adapter(path), dtype)
    assert split(again)[1] == split(path)[1]


@pytest.mark.parametrize(("dtype", "kind"), [("float16", torch.float16), ("bfloat16", torch.bfloat16)])
def test_keys_shapes_and_dtype_are_kohyas(path: Path, dtype: str, kind: torch.dtype) -> None:
    write_adapter(path, some_weights(), {}, dtype)
    tensors = load_file(path)
    assert len(tensors) == 9
    assert {key: tuple(t.shape) for key, t in tensors.items() if key.startswith(STEM)} == {
        f"{STEM}.lora_down.weight": (2, 6, 3, 3),
        f"{STEM}.lora_up.weight": (10, 2, 1, 1),
        f"{STEM}.alpha": (),
    }
    assert {t.dtype for key, t in tensors.items() if key.endswith("weight")} == {kind}
    assert {t.dtype for key, t in tensors.items() if key.endswith("alpha")} == {torch.float32}


def test_one_alpha_stands_in_the_file_and_every_change_is_kept(path: Path) -> None:
    weights = some_weights((4.0, 1.0, 4.0))
    write_adapter(path, weights, {}, "float32")
    assert {float(t) for key, t in load_file(path).items() if key.endswith(".alpha")} == {4.0}
    read, _ = read_adapter(path)
    for name, w in weights.items():
        torch.testing.assert_close(change(read[name]), change(w), rtol=0, atol=1e-6)
        assert torch.equal(read[name].tensors["down"], w.tensors["down"])
    assert torch.equal(read[CONV].tensors["up"], weights[CONV].tensors["up"] / 4)


def test_a_file_without_alpha_is_scaled_by_one(altered: Callable) -> None:
    file = altered(lambda tensors: [tensors.pop(key) for key in list(tensors) if key.endswith(".alpha")])
    assert {name: w.alpha / w.rank for name, w in read_adapter(file)[0].items()} == dict.fromkeys(some_weights(), 1.0)


def test_modules_are_read_in_a_fixed_order(saved: Path) -> None:
    orders = {tuple(read_adapter(saved)[0]) for _ in range(20)}
    assert len(orders) == 1


def test_an_alpha_of_zero_is_refused_or_can_be_written_again(altered: Callable, path: Path) -> None:
    file = altered(lambda tensors: [t.zero_() for key, t in tensors.items() if key.endswith(".alpha")])
    try:
        weights, metadata = read_adapter(file)
    except AdapterError:
        return
    write_adapter(path, weights, metadata, "float32")
    for name, w in read_adapter(path)[0].items():
        assert torch.equal(change(w), change(weights[name]))


def test_the_hashes_are_those_of_the_bytes_after_the_header(saved: Path) -> None:
    metadata, body = split(saved)
    digest = hashlib.sha256(body).hexdigest()
    assert metadata["sshs_model_hash"] == digest
    blank = saved.read_bytes().replace(metadata["sshs_legacy_hash"].encode(), b" " * 8)
    assert metadata["sshs_legacy_hash"] == hashlib.sha256(blank[0x100000:0x110000]).hexdigest()[:8]
    assert metadata["modelspec.hash_sha256"] == f"0x{digest}"
    assert "lora_adapter_metadata" not in metadata  # diffusers refuses it beside alphas


def test_hashes_are_renewed_when_a_changed_adapter_is_written(saved: Path) -> None:
    weights, metadata = read_adapter(saved)
    weights[CONV].tensors["up"].add_(1)
    write_adapter(saved, weights, metadata, "float16")
    after, body = split(saved)
    assert after["sshs_model_hash"] == hashlib.sha256(body).hexdigest() != metadata["sshs_model_hash"]


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(
    saved: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    before = saved.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(SdLoraError, match="cannot be written: disk full"):
        write_adapter(saved, some_weights((1.0, 1.0, 1.0)), {}, "float32")
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


@pytest.mark.parametrize(("dtype", "value"), [("float16", 1e6), ("float32", float("nan")), ("bfloat16", float("inf"))])
@pytest.mark.parametrize("role", ["down", "up"])
def test_values_the_dtype_cannot_hold_are_never_written(path: Path, dtype: str, value: float, role: str) -> None:
    weights = some_weights()
    weights[CONV].tensors[role][0, 0] = value
    with pytest.raises(AdapterError, match=f"1 of 3 modules hold values that {dtype} cannot .*{CONV}"):
        write_adapter(path, weights, {}, dtype)
    assert not list(path.parent.iterdir())


def test_values_that_only_folding_carries_out_of_range_are_never_written(path: Path) -> None:
    with pytest.raises(AdapterError, match="proj_in"):
        write_adapter(path, some_weights((1.0, 1.0, 1e6)), {}, "float16")
    assert not list(path.parent.iterdir())


# ---- what is refused


def with_header(header: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + body


EMPTY_TENSOR = b'"a": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}'
FOREIGN = {
    "empty": b"",
    "three bytes": b"abc",
    "text": b"this is no safetensors file at all",
    "zeros": bytes(64),
    "header bomb": with_header(b"{}", length=2**63),
    "header longer than the file": with_header(b"{}", length=500),
    "no tensors": with_header(b"{}"),
    "only metadata": with_header(b'{"__metadata__": {"a": "b"}}'),
    "a list": with_header(b"[1, 2]"),
    "broken JSON": with_header(b'{"a": '),
    "not UTF-8": with_header(b'{"\xff": 1}'),
    "deep JSON": with_header(b'{"a": ' + b"[" * 200_000),
    "offsets beyond the end": with_header(b'{"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}'),
    "metadata that is no text": with_header(b'{"__metadata__": {"a": 1}, ' + EMPTY_TENSOR + b"}"),
    "a list for a tensor": with_header(b'{"a": ["F32", [0], [0, 0]]}'),
    "a key of nobody": with_header(b"{" + EMPTY_TENSOR + b"}"),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_what_is_no_adapter_file_is_refused_by_name(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(AdapterError, match=path.name):
        read_adapter(path)


def test_a_pickle_is_refused_unread(path: Path) -> None:
    torch.save({f"{STEM}.alpha": torch.ones(())}, path)
    with pytest.raises(AdapterError, match="pickles"):
        read_adapter(path)


@pytest.mark.parametrize("where", ["missing.safetensors", "."])
def test_what_cannot_be_opened_is_refused(tmp_path: Path, where: str) -> None:
    with pytest.raises(AdapterError, match="cannot be read" if where != "." else "a folder that holds no adapter"):
        read_adapter(tmp_path / where)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_a_truncated_file_is_refused(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(AdapterError, match=saved.name):
        read_adapter(saved)


@pytest.mark.parametrize(("limit", "least"), [("tensors", 9), ("size", 4096)])  # it has nine tensors
def test_what_is_beyond_a_limit_is_refused(saved: Path, limit: str, least: int) -> None:
    assert read_header(saved, replace(ADAPTER, **{limit: least}))
    with pytest.raises(AdapterError, match=r"at most"):
        read_header(saved, replace(ADAPTER, **{limit: 8}))


@pytest.mark.parametrize("kind", ["F4", "C64"])
def test_types_that_torch_cannot_make_floats_of_are_refused(path: Path, kind: str) -> None:
    entry = {"dtype": kind, "shape": [2], "data_offsets": [0, 1 if kind == "F4" else 16]}
    path.write_bytes(with_header(json.dumps({"a": entry}).encode(), bytes(entry["data_offsets"][1])))
    with pytest.raises(AdapterError, match=f"of type {kind}, which are not read"):
        read_header(path)


def test_a_file_that_lost_half_its_modules_is_refused(altered: Callable) -> None:
    file = altered(lambda tensors: [tensors.pop(key) for key in list(tensors) if "attentions" in key])
    with pytest.raises(AdapterError, match=f"damaged: 2 of the modules it was saved with are missing .*{LINEAR}"):
        read_adapter(file)


DOWN, UP, ALPHA = f"{STEM}.lora_down.weight", f"{STEM}.lora_up.weight", f"{STEM}.alpha"
DAMAGE: dict[str, tuple[dict[str, Tensor | None], str]] = {
    "no up": ({UP: None}, "has no up"),
    "no down": ({DOWN: None}, "has no down"),
    "only alpha": ({UP: None, DOWN: None}, "has no down and no up"),
    "nan": ({UP: torch.full((10, 2, 1, 1), torch.nan)}, "NaN or infinite"),
    "inf": ({DOWN: torch.full((2, 6, 3, 3), torch.inf)}, "NaN or infinite"),
    "nan alpha": ({ALPHA: torch.tensor(torch.nan)}, "NaN or infinite"),
    "two alphas": ({ALPHA: torch.ones(2)}, "alpha of 2 values"),
    "ranks differ": ({UP: torch.ones(10, 3, 1, 1)}, "cannot be multiplied"),
    "rank 0": ({UP: torch.ones(10, 0, 1, 1), DOWN: torch.ones(0, 6, 3, 3)}, "cannot be multiplied"),
    "1-D": ({UP: torch.ones(10), DOWN: torch.ones(6)}, "cannot be multiplied"),
    "up with a kernel": ({UP: torch.ones(10, 2, 3, 3)}, "cannot be multiplied"),
}


@pytest.mark.parametrize(("edit", "words"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_module_is_refused_by_name(altered: Callable, edit: dict[str, Tensor | None], words: str) -> None:
    def apply(tensors: dict[str, Tensor]) -> None:
        tensors.update({key: tensor for key, tensor in edit.items() if tensor is not None})
        for key in [key for key, tensor in edit.items() if tensor is None]:
            del tensors[key]

    file = altered(apply)
    with pytest.raises(AdapterError, match=f"{file.name} .*({words})") as caught:
        read_adapter(file)
    assert CONV in str(caught.value)


def test_float8_weights_are_read_or_refused(altered: Callable) -> None:
    file = altered(lambda tensors: tensors.update({UP: torch.ones(10, 2, 1, 1).to(torch.float8_e4m3fn)}))
    with suppress(AdapterError):
        assert torch.equal(read_adapter(file)[0][CONV].tensors["up"], torch.ones(10, 2, 1, 1))


def test_null_metadata_is_as_good_as_none(saved: Path) -> None:
    _, body = split(saved)
    header = json.loads(saved.read_bytes()[8 : -len(body)])
    saved.write_bytes(with_header(json.dumps(header | {"__metadata__": None}).encode(), body))
    weights, metadata = read_adapter(saved)
    assert (set(weights), metadata) == (set(some_weights()), {})
