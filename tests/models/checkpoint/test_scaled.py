"""Checkpoints in float8 with scales load as the weights they were made of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rows import every_row
from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save_file as save

from sd_lora.errors import BaseModelError
from sd_lora.models.opening import load_base

Tensors = dict[str, torch.Tensor]
UNET = "model.diffusion_model."
#: a linear layer, a convolution, and queries, keys and values in one matrix (SD2's and SDXL's text encoders)
LINEAR = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn1.to_q"
CONV = f"{UNET}input_blocks.1.0.in_layers.2"
PLAIN = torch.tensor(list(json.dumps({"format": "float8_e4m3fn"}).encode()), dtype=torch.uint8)


def save_file(tensors: Tensors, path: Path, metadata: dict[str, str] | None = None) -> None:
    save({key: tensor.clone() for key, tensor in tensors.items()}, path, metadata)  # none may share memory


def layers(tensors: Tensors) -> list[str]:
    """Every layer with a matrix, of the UNet, the VAE and the text encoders."""
    return [key.removesuffix(".weight") for key, t in tensors.items() if key.endswith(".weight") and t.ndim > 1]


def rounded(tensors: Tensors, scales: dict[str, torch.Tensor]) -> tuple[Tensors, Tensors]:
    """The float8 values of the weights of layers with `scales`, and what those times the scales are, by definition."""
    values, products = {}, {}
    for layer, scale in scales.items():
        weight = tensors[f"{layer}.weight"]
        shape = scale.reshape(-1, *(1,) * (weight.ndim - 1)) if scale.numel() > 1 else scale.reshape(())
        values[f"{layer}.weight"] = (weight / shape).to(torch.float8_e4m3fn)
        products[f"{layer}.weight"] = values[f"{layer}.weight"].double() * shape.double()
    return values, products


def per_tensor(tensors: Tensors) -> dict[str, torch.Tensor]:
    return {layer: (tensors[f"{layer}.weight"].abs().amax() / 448).clamp(1e-6).float() for layer in layers(tensors)}


def per_row(tensors: Tensors) -> dict[str, torch.Tensor]:
    return {
        layer: (tensors[f"{layer}.weight"].flatten(1).abs().amax(1) / 448).clamp(1e-6).float()
        for layer in layers(tensors)
    }


def older(tensors: Tensors, scales: Tensors) -> Tensors:
    """As ComfyUI's first scaled files: marks, and scales of what goes in."""
    first = next(iter(scales))
    return {
        **{f"{layer}.scale_weight": scale for layer, scale in scales.items()},
        f"{first}.scale_input": torch.ones(()),
        f"{UNET}scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn),
        "scaled_fp8": torch.zeros(0).to(torch.float8_e4m3fn),
    }


def newer(tensors: Tensors, scales: Tensors) -> Tensors:
    return {
        **{f"{layer}.weight_scale": scale for layer, scale in scales.items()},
        **{f"{layer}.comfy_quant": PLAIN for layer in scales},
        f"{next(iter(scales))}.input_scale": torch.ones(1),
    }


def as_column(tensors: Tensors, scales: Tensors) -> Tensors:
    return {
        f"{layer}.weight_scale": scale.reshape(-1, *(1,) * (tensors[f"{layer}.weight"].ndim - 1))
        for layer, scale in scales.items()
    }


Scales = Callable[[Tensors], Tensors]
Spelling = Callable[[Tensors, Tensors], Tensors]
SPELLINGS: dict[str, tuple[Scales, Spelling]] = {
    "older": (per_tensor, older),
    "newer": (per_tensor, newer),
    "by row": (per_row, newer),
    "a column": (per_row, as_column),
}


def write(file: Path, into: Path, scales: Scales, spelling: Spelling) -> tuple[Path, Tensors]:
    """A scaled copy of a checkpoint; and the file as it would be without scales: the products, in float32."""
    tensors = load_file(file)
    made = scales(tensors)
    values, products = rounded(tensors, made)
    with safe_open(file, "pt") as old:
        metadata = old.metadata()
    save_file({**tensors, **values, **spelling(tensors, made)}, into / "scaled.safetensors", metadata)
    save_file({**tensors, **{k: t.float() for k, t in products.items()}}, into / "plain.safetensors", metadata)
    return into / "scaled.safetensors", products


def weights(pipe: Any) -> Tensors:
    parts = [name for name in ("unet", "vae", "text_encoder", "text_encoder_2") if getattr(pipe, name, None)]
    return {f"{part}.{name}": t for part in parts for name, t in getattr(pipe, part).state_dict().items()}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("kind", ["sd1", pytest.param("sdxl", marks=pytest.mark.slow)])
def test_weights_are_the_float8_values_times_their_scales(
    kind: str, spelling: str, checkpoints: dict[str, Path], whole_bases: dict[str, Path], tmp_path: Path
) -> None:
    write(checkpoints[kind], tmp_path, *SPELLINGS[spelling])
    ours, plain, original = (
        weights(load_base(path, config=whole_bases[kind])[0])
        for path in (tmp_path / "scaled.safetensors", tmp_path / "plain.safetensors", checkpoints[kind])
    )
    assert ours.keys() == plain.keys() == original.keys()
    assert all(torch.equal(ours[name], plain[name]) for name in ours)
    # float8 has four significant bits
    assert all((ours[n] - original[n]).norm() <= 0.06 * original[n].norm() for n in ours)
    assert any(not torch.equal(ours[n], original[n]) for n in ours)


def test_scales_that_are_powers_of_two_give_the_original_bit_by_bit(
    checkpoints: dict[str, Path], whole_bases: dict[str, Path], tmp_path: Path
) -> None:
    tensors = load_file(checkpoints["sd1"])
    for layer in layers(tensors):  # values that float8 has, times 2^-9
        weight = tensors[f"{layer}.weight"]
        tensors[f"{layer}.weight"] = (weight / weight.abs().amax() * 100).to(torch.float8_e4m3fn).float() / 512
    with safe_open(checkpoints["sd1"], "pt") as old:
        save_file(tensors, tmp_path / "original.safetensors", old.metadata())
    write(tmp_path / "original.safetensors", tmp_path, lambda t: dict.fromkeys(layers(t), torch.tensor(1 / 512)), newer)
    for dtype in (torch.float32, torch.bfloat16):
        ours, original = (
            weights(load_base(tmp_path / f"{name}.safetensors", dtype, config=whole_bases["sd1"])[0])
            for name in ("scaled", "original")
        )
        assert all(torch.equal(ours[name], original[name]) for name in original)


def test_float8_without_scales_is_read_as_it_is(
    checkpoints: dict[str, Path], whole_bases: dict[str, Path], tmp_path: Path
) -> None:
    tensors = load_file(checkpoints["sd1"])
    tensors[f"{LINEAR}.weight"] = tensors[f"{LINEAR}.weight"].to(torch.float8_e5m2)
    save_file(tensors, tmp_path / "a.safetensors")
    load_base(tmp_path / "a.safetensors", config=whole_bases["sd1"])


def with_keys(**changes: torch.Tensor) -> Callable[[Tensors], None]:
    return lambda tensors: tensors.update({f"{LINEAR}.{key}": tensor for key, tensor in changes.items()})


ONE, EIGHTH = torch.ones(()), torch.tensor(0.125)
REFUSED: dict[str, tuple[Callable[[Tensors], None], str]] = {
    "two scales": (with_keys(weight_scale=EIGHTH, scale_weight=EIGHTH), "has two scales"),
    "scales of blocks": (with_keys(weight_scale=torch.ones(2, 2)), r"weight_scale is \[2, 2\], neither one number nor"),
    "of another length": (with_keys(scale_weight=torch.ones(3)), r"scale_weight is \[3\], neither one number nor"),
    "a whole number": (with_keys(scale_weight=torch.ones((), dtype=torch.int32)), "scale_weight is of type I32"),
    "zero": (with_keys(scale_weight=torch.zeros(())), "scale_weight is 0, NaN or infinite"),
    "not a number": (with_keys(scale_weight=torch.tensor(float("nan"))), "is 0, NaN or infinite"),
    "of a weight that is not float8": (
        with_keys(weight=torch.ones(16, 16), weight_scale=ONE), "has a scale but is of type F32",
    ),
    "another format": (
        with_keys(weight_scale=ONE, comfy_quant=torch.tensor(list(b'{"format": "nvfp4"}'), dtype=torch.uint8)),
        r'comfy_quant is of a format that is not read \(\{"format": "nvfp4"\}\)',
    ),
    "a rotation": (
        with_keys(comfy_quant=torch.tensor(list(b'{"format": "float8_e4m3fn", "convrot": 1}'), dtype=torch.uint8)),
        "is of a format that is not read",
    ),
    "a second scale": (with_keys(weight_scale=ONE, weight_scale_2=ONE), r"1 are unknown \(.*weight_scale_2\)"),
    "an inverse": (with_keys(weight_scale_inv=ONE), r"1 are unknown \(.*weight_scale_inv\)"),
    "of a layer that is not there": (
        lambda tensors: tensors.update({f"{UNET}nowhere.scale_weight": ONE, f"{UNET}nowhere.scale_input": ONE}),
        "2 are unknown",
    ),
    "a zero point": (with_keys(weight_zero_point=ONE), r"1 are unknown \(.*zero_point\)"),
}  # fmt: skip


@every_row("change, words", REFUSED.values(), ids=REFUSED)
def test_other_scales_are_errors(
    change: Callable[[Tensors], None], words: str, checkpoints: dict[str, Path], whole_bases: dict[str, Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    tensors = load_file(checkpoints["sd1"])
    tensors[f"{LINEAR}.weight"] = tensors[f"{LINEAR}.weight"].to(torch.float8_e4m3fn)
    change(tensors)
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(BaseModelError, match=words) as caught:
        load_base(tmp_path / "a.safetensors", config=whole_bases["sd1"])
    assert str(caught.value).isprintable()


def test_a_folder_with_scales_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    """Diffusers would leave the scales out without an error."""
    folder = Path(shutil.copytree(bases["sd1"], tmp_path / "base"))
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors[f"{name}.weight"] = tensors[f"{name}.weight"].to(torch.float8_e4m3fn)
    save_file({**tensors, f"{name}.weight_scale": EIGHTH}, file, {"format": "pt"})
    with pytest.raises(BaseModelError, match=r"unet/.* has scaled float8 weights \(.*to_q.weight\), which"):
        load_base(folder)


def test_a_folder_of_pointers_is_named(bases: dict[str, Path], tmp_path: Path) -> None:
    """As git makes one without LFS; of two variants only the one that is read counts."""
    folder = Path(shutil.copytree(bases["sd1"], tmp_path / "base"))
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_text(pointer)
    load_base(folder)
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_text(pointer)
    with pytest.raises(BaseModelError, match=r'vae/.*: it is a git-LFS pointer, .*; run "git lfs pull" in its folder'):
        load_base(folder)
