"""Every spelling of the grammar of keys is read as the same change, or refused by a sentence that says why."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from rows import every_row
from safetensors.torch import save_file
from torch import Tensor

from sd_lora.adapters.file import read_adapter
from sd_lora.errors import AdapterError
from sd_lora.models.families import FAMILIES, kinds
from sd_lora.models.families.unet_names import sgm_path

UNET = (
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0",
    "up_blocks.1.attentions.2.transformer_blocks.0.ff.net.0.proj",
    "up_blocks.1.attentions.2.proj_in",
    "mid_block.resnets.1.conv2",
    "up_blocks.0.resnets.1.conv_shortcut",
    "up_blocks.0.upsamplers.0.conv",
    "down_blocks.0.downsamplers.0.conv",
    "down_blocks.1.resnets.0.time_emb_proj",
)
TEXT = ("text_model.encoder.layers.3.self_attn.q_proj", "text_model.encoder.layers.3.mlp.fc1")
WRAPPERS = ("", "base_model.model.", "module.")
#: what stands before the path of a module: of the UNet, of the first text encoder, and of the second
COMPONENTS = {
    "kohya": ("lora_unet_", "lora_te1_", "lora_te2_"),
    "kohya, dotted": ("lora_unet.", "lora_te1.", "lora_te2."),
    "lycoris": ("lycoris_unet_", "lycoris_text_encoder_", "lycoris_text_encoder_2_"),
    "diffusers": ("unet.", "text_encoder.", "text_encoder_2."),
    "comfyui": ("diffusion_model.", "text_encoders.clip_l.transformer.", "text_encoders.clip_g.transformer."),
    "none": ("", "", ""),
    "lycoris, none": ("lycoris_", "lycoris_", "lycoris_"),
}
DOWN_UP = {
    "kohya": (".lora_down.weight", ".lora_up.weight"),
    "kohya, short": (".lora_down", ".lora_up"),
    "peft": (".lora_A.weight", ".lora_B.weight"),
    "peft, named": (".lora_A.default.weight", ".lora_B.default.weight"),
    "peft, short": (".lora_A", ".lora_B"),
    "old": (".lora.down.weight", ".lora.up.weight"),
    "old, of attention": ("_lora.down.weight", "_lora.up.weight"),
    "old, linear": (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
}
ALPHA, RANK = 3.0, 2


@dataclass(frozen=True)
class Home:
    """Where a file has its alphas: tensors, metadata, or a config beside it; and the scaling that this means."""

    tensor: Tensor | None = None
    record: Mapping[str, Any] | None = None
    config: Mapping[str, Any] | None = None
    scaling: float = ALPHA / RANK


HOMES = {
    "none": Home(scaling=1.0),
    "a number": Home(torch.tensor(ALPHA)),
    "an integer": Home(torch.tensor(int(ALPHA))),
    "half precision": Home(torch.tensor(ALPHA, dtype=torch.bfloat16)),
    "a list of one": Home(torch.tensor([ALPHA])),
    "a matrix of one": Home(torch.tensor([[ALPHA]])),
    "diffusers' record": Home(record={"lora_alpha": ALPHA}),
    "PEFT's config": Home(config={"r": RANK, "lora_alpha": int(ALPHA)}),
    "PEFT's patterns": Home(config={"r": RANK, "lora_alpha": 7, "alpha_pattern": {r".*": ALPHA}}),
    "PEFT's rslora": Home(config={"r": RANK, "lora_alpha": ALPHA, "use_rslora": True}, scaling=ALPHA / RANK**0.5),
}


def modules_of(kind: str, original: bool) -> Iterator[tuple[int, str, str]]:
    """The place of the component in `COMPONENTS`, the module's name in memory and its path in a file."""
    for path in UNET:
        yield 0, f"unet.{path}", sgm_path(path, "sdxl" if kind == "sdxl" else "sd") if original else path
    for place, component in enumerate(["text_encoder", "text_encoder_2"][: 2 if kind == "sdxl" else 1], 1):
        for path in TEXT:
            yield place, f"{component}.{path}", path


def shapes_of(name: str, width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    inputs = width if name.endswith("attn2.to_k") else 4
    if name.endswith((".conv2", ".conv")):
        return (RANK, inputs, 3, 3), (5, RANK, 1, 1)
    if name.endswith(".conv_shortcut"):
        return (RANK, inputs, 1, 1), (5, RANK, 1, 1)
    return (RANK, inputs), (5, RANK)


def written(
    path: Path, kind: str, original: bool, flat: bool, spelling: tuple[str, str, str, str]
) -> dict[str, Tensor]:
    """Write a file of one spelling; the change of each module in float64, by the formula."""
    wrapper, component, ending, home = spelling[0], COMPONENTS[spelling[1]], DOWN_UP[spelling[2]], HOMES[spelling[3]]
    path.parent.mkdir()
    tensors, changes = {}, {}
    torch.manual_seed(0)
    for place, name, inner in modules_of(kind, original):
        stem = wrapper + component[place] + (inner.replace(".", "_") if flat else inner)
        down, up = (torch.randn(shape) for shape in shapes_of(name, kinds()[kind].width))
        tensors |= {stem + ending[0]: down, stem + ending[1]: up}
        if home.tensor is not None:
            tensors[f"{stem}.alpha"] = home.tensor.clone()
        product = up.double().flatten(1) @ down.double().flatten(1)
        changes[name] = product.reshape(len(up), *down.shape[1:]) * home.scaling
    record = {f"{name.split('.')[0]}.{key}": value for name in changes for key, value in (home.record or {}).items()}
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(record)} if record else None)
    if home.config is not None:
        (path.parent / "adapter_config.json").write_text(json.dumps(home.config))
    return changes


ROWS = [
    (wrapper, component, ending, home, flat, original)
    for (wrapper, component, ending, flat, original), home in zip(
        itertools.product(WRAPPERS, COMPONENTS, DOWN_UP, (False, True), (False, True)),
        itertools.cycle(HOMES),  # 10 homes beside 8 endings and 2 × 2 forms: each meets each
    )
]


def check(folder: Path, kind: str, row: tuple[str, str, str, str, bool, bool]) -> None:
    *spelling, flat, original = row
    path = folder / "a" / "a.safetensors"
    changes = written(path, kind, original, flat, tuple(spelling))  # type: ignore[arg-type]
    if kind == "sdxl" and COMPONENTS[row[1]][1] == COMPONENTS[row[1]][2]:
        with pytest.raises(AdapterError, match=r"does not say of which|twice, in two spellings"):
            read_adapter(path)
        return
    weights, _ = read_adapter(path)
    assert set(weights) == set(changes)
    for name, w in weights.items():
        change = w.row.product({role: tensor.double() for role, tensor in w.tensors.items()}) * w.scaling
        assert float((change - changes[name]).norm() / changes[name].norm()) <= 2e-7, name


@pytest.mark.parametrize("kind", ["sd1", pytest.param("sd2", marks=pytest.mark.slow), "sdxl"])
@every_row("row", ROWS)
def test_a_spelling_is_read_as_the_same_change(kind: str, row: Any, tmp_path: Path) -> None:
    check(tmp_path, kind, row)


FAULTS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "two keys for one module": (
        lambda t: t.update({"unet.mid_block.resnets.1.conv2.lora_A.weight": torch.ones(RANK, 4, 3, 3)}), "mixes|twice",
    ),
    "a part with no partner": (
        lambda t: t.pop("lora_unet_mid_block_resnets_1_conv2.lora_up.weight"), "conv2 has no up",
    ),
    "a module no base has": (
        lambda t: t.update({"lora_unet_mid_block_resnets_1_conv7.lora_up.weight": torch.ones(5, RANK)}), "conv7",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_strict_in_the_whole(fault: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    path = tmp_path / "a" / "a.safetensors"
    written(path, "sd1", False, True, ("", "kohya", "kohya", "a number"))
    tensors = load_file(path)
    FAULTS[fault][0](tensors)
    save_file(tensors, path)
    with pytest.raises(AdapterError, match=FAULTS[fault][1]):
        read_adapter(path)


def test_every_kind_with_a_unet_is_spelled() -> None:
    named = {kind.name for family in FAMILIES.values() if family.denoiser == "unet" for kind in family.kinds}
    assert {name.partition("-")[0] for name in named} == {"sd1", "sd2", "sdxl"}
