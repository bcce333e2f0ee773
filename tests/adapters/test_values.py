"""Values are looked at: zeros, hashes, alphas of any home, folders of PEFT and diffusers, and what a type loses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_weights import weights_of

from sd_lora.adapters.file import read_adapter
from sd_lora.adapters.writing import PrecisionLost, write_adapter
from sd_lora.errors import AdapterError
from sd_lora.lora.weights import Weights
from sd_lora.models.families import kinds
from sd_lora.tools.inspect import inspect_adapter

NAMES = [f"unet.down_blocks.1.attentions.{n}.transformer_blocks.0.attn2.to_k" for n in (0, 1)]


def some(alpha: float = 2.0, rank: int = 2, seed: int = 0, size: float = 1.0) -> dict[str, Weights]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: weights_of(
            torch.randn(rank, 768, generator=generator), torch.randn(8, rank, generator=generator) * size, alpha
        )
        for name in NAMES
    }


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.safetensors"


def test_a_down_of_zeros_is_damage(path: Path) -> None:
    write_adapter(path, some(), {}, "float32")
    tensors = load_file(path)
    for key in tensors:
        if "attentions_0" in key and "lora_down" in key:
            tensors[key] = torch.zeros_like(tensors[key])
    save_file(tensors, path)
    with pytest.raises(AdapterError, match=r"1 of 2 modules hold only zeros \(unet.down_blocks.1.attentions.0"):
        read_adapter(path)


def test_alpha_0_beside_zeros_is_not_the_rank(path: Path) -> None:
    write_adapter(path, some(), {}, "float32")
    save_file({key: torch.zeros_like(tensor) for key, tensor in load_file(path).items()}, path)
    with pytest.raises(AdapterError, match="2 of 2 modules hold only zeros"):
        read_adapter(path)


def test_a_fresh_adapter_is_none_of_that(path: Path) -> None:
    fresh = {name: weights_of(torch.randn(2, 768), torch.zeros(8, 2), 2.0) for name in NAMES}
    write_adapter(path, fresh, {}, "float32")
    assert read_adapter(path)[0].keys() == fresh.keys()


@pytest.mark.parametrize("own", [True, False], ids=["ours", "of another program"])
def test_a_file_that_was_changed_is_refused_if_it_is_ours_and_noted_if_not(path: Path, own: bool) -> None:
    write_adapter(path, some(), {"sdlora.version": "1"} if own else {}, "float32")
    assert inspect_adapter(path).notes == ()
    metadata = metadata_of(path)
    save_file({key: t + 1 if "lora_up" in key else t for key, t in load_file(path).items()}, path, metadata)
    if own:
        with pytest.raises(AdapterError, match="not those it was saved with, by its own hash"):
            read_adapter(path)
    else:
        assert inspect_adapter(path).notes == ("its values are not those whose hash it records (sshs_model_hash)",)


def peft_folder(folder: Path, config: Any, name: str = "adapter_model.safetensors", start: str = "") -> Path:
    folder.mkdir(parents=True)
    tensors = {}
    for module, w in some().items():
        stem = f"{start}{module.removeprefix('unet.')}"
        tensors |= {f"{stem}.lora_A.weight": w.tensors["down"], f"{stem}.lora_B.weight": w.tensors["up"]}
    save_file(tensors, folder / name)
    if config is not None:
        (folder / "adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("config", "alpha"),
    [
        ({"r": 2, "lora_alpha": 8}, 8.0),
        ({"r": 2, "lora_alpha": 8, "use_rslora": True}, 8.0 * 2**0.5),
        ({"r": 2, "lora_alpha": 8, "alpha_pattern": {"attentions.0.transformer_blocks.0.attn2.to_k": 3}}, 3.0),
        (None, 2.0),
    ],
    ids=["alpha", "rslora", "pattern", "none"],
)
def test_pefts_config_beside_the_file_gives_the_alphas(tmp_path: Path, config: Any, alpha: float) -> None:
    folder = peft_folder(tmp_path / "peft", config, start="base_model.model.")
    for place in (folder, folder / "adapter_model.safetensors"):
        assert read_adapter(place)[0][NAMES[0]].alpha == pytest.approx(alpha)


@pytest.mark.parametrize("config", ["{", "[]", '{"lora_alpha": "8"}', '{"alpha_pattern": 3}'])
def test_a_config_that_cannot_be_read_is_an_error_never_alpha_equal_rank(tmp_path: Path, config: str) -> None:
    with pytest.raises(AdapterError, match="alpha"):
        read_adapter(peft_folder(tmp_path / "peft", config))


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_16", "olora", "loftq"])
def test_a_start_that_changes_the_base_is_refused(tmp_path: Path, start: str) -> None:
    config = {"r": 2, "lora_alpha": 8, "init_lora_weights": start}
    with pytest.raises(AdapterError, match=rf"was started by {start} .*, which changes the base model as well; save"):
        read_adapter(peft_folder(tmp_path / "peft", config))


@pytest.mark.parametrize("kind", ["LOHA", "LOKR"])
def test_pefts_other_variants_name_their_alpha_otherwise(tmp_path: Path, kind: str) -> None:
    """PEFT scales a LoKr by alpha / r even where both factors are complete, which LyCORIS does not."""
    folder = tmp_path / "peft"
    folder.mkdir()
    stem = "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    roles = {
        "LOHA": {"hada_w1_a": (4, 2), "hada_w1_b": (2, 4), "hada_w2_a": (4, 2), "hada_w2_b": (2, 4)},
        "LOKR": {"lokr_w1": (2, 2), "lokr_w2": (2, 2)},
    }[kind]
    save_file(
        {f"{stem}.{role}": torch.rand(shape) for role, shape in roles.items()}, folder / "adapter_model.safetensors"
    )
    config = {"peft_type": kind, "r": 2, "alpha": 8, "alpha_pattern": {}, "rank_pattern": {}}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (w,) = read_adapter(folder)[0].values()
    assert w.scaling == pytest.approx(4.0)


def test_an_adapter_below_a_name_of_its_own_is_found(tmp_path: Path) -> None:
    peft_folder(tmp_path / "peft" / "style", {"r": 2, "lora_alpha": 8}, start="base_model.model.")
    assert read_adapter(tmp_path / "peft")[0][NAMES[0]].alpha == 8.0
    peft_folder(tmp_path / "peft" / "other", None)
    with pytest.raises(AdapterError, match=r"2 adapters \(other/adapter_model.safetensors, style/adapter_model"):
        read_adapter(tmp_path / "peft")


def test_a_folder_of_pickles_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.bin").write_bytes(b"PK")
    with pytest.raises(
        AdapterError, match=r"holds adapter_model.bin, and pickles can run code and are never loaded; save"
    ):
        read_adapter(tmp_path)


def test_embeddings_alone_are_no_adapter(path: Path) -> None:
    save_file({"bundle_emb.cat.emb_params": torch.ones(2, 4), "bundle_emb.x.string_to_param.*": torch.ones(2, 4)}, path)
    with pytest.raises(AdapterError, match=r"holds embeddings only \(cat, x\), not an adapter"):
        read_adapter(path)


def test_an_alpha_that_is_true_is_damage(path: Path) -> None:
    write_adapter(path, some(), {}, "float32")
    alpha = next(key for key in load_file(path) if key.endswith(".alpha"))
    save_file({**load_file(path), alpha: torch.tensor(True)}, path)
    with pytest.raises(AdapterError, match="holds values of type BOOL"):
        read_adapter(path)


def test_a_folder_for_each_component_is_one_adapter(tmp_path: Path) -> None:
    peft_folder(tmp_path / "both" / "unet", {"r": 2, "lora_alpha": 8}, start="base_model.model.")
    text = tmp_path / "both" / "text_encoder"
    text.mkdir()
    stem = "base_model.model.text_model.encoder.layers.0.mlp.fc1"
    save_file({f"{stem}.lora_A.weight": torch.ones(2, 4), f"{stem}.lora_B.weight": torch.ones(5, 2)},
              text / "adapter_model.safetensors")  # fmt: skip
    (text / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 5}))
    weights, _ = read_adapter(tmp_path / "both")
    assert {name.partition(".")[0]: w.alpha for name, w in weights.items()} == {"unet": 8.0, "text_encoder": 5.0}
    assert inspect_adapter(tmp_path / "both").modules == 3


def test_folders_without_one_adapter_are_refused_by_what_they_hold(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="a folder that holds no adapter"):
        read_adapter(tmp_path)
    for name in ("a", "b"):
        write_adapter(tmp_path / f"{name}.safetensors", some(), {}, "float32")
    with pytest.raises(AdapterError, match=r"2 adapters \(a.safetensors, b.safetensors\); name one"):
        read_adapter(tmp_path)
    write_adapter(tmp_path / "pytorch_lora_weights.safetensors", some(), {}, "float32", "diffusers")
    assert read_adapter(tmp_path)[0].keys() == some().keys()


def test_small_values_are_balanced_before_they_are_rounded(path: Path) -> None:
    """Alpha 1 at rank 128 folds into values that float16 does not hold."""
    weights = {**some(), NAMES[0]: replaced(some(1.0, 128, size=1e-5)[NAMES[0]])}
    write_adapter(path, weights, {}, "float16")
    read, _ = read_adapter(path)
    for name, w in weights.items():
        assert (read[name].squared_difference(w) / w.squared_norm) ** 0.5 < 1e-3


def replaced(w: Weights) -> Weights:
    return Weights(w.variant, {**w.tensors, "down": w.tensors["down"] * 10}, w.alpha)


def torn(large: float, small: float) -> Weights:
    """A module that no balance saves: each of its tensors has a large rank and a small one."""
    w = some()[NAMES[0]]
    up, down = torch.tensor([large, small]), torch.tensor([[small], [large]])
    return weights_of(w.tensors["down"] * down, w.tensors["up"] * up, 2.0)


def test_a_module_that_loses_too_much_is_named(path: Path) -> None:
    weights = {NAMES[0]: torn(3e3, 1e-8), NAMES[1]: some(size=1e-3)[NAMES[1]]}
    with pytest.raises(AdapterError, match=r"1 of 2 modules lose more than 10% of their change as float16 \(unet"):
        write_adapter(path, weights, {}, "float16")


def test_a_loss_from_one_percent_on_is_a_named_warning(path: Path) -> None:
    weights = {NAMES[0]: torn(1e4, 1e-6), NAMES[1]: some(size=1e-2)[NAMES[1]]}
    with pytest.warns(PrecisionLost, match="1 of 2 modules lose more than 1% of their change as float16"):
        write_adapter(path, weights, {}, "float16")


@pytest.mark.parametrize(("marks", "kind"), [("sd1", "sd1"), ("sdxl", "sd1")])
def test_structure_comes_before_metadata(path: Path, marks: str, kind: str) -> None:
    write_adapter(path, some(), {}, "float32")
    save_file(load_file(path), path, dict(kinds()[marks].marks))
    from sd_lora.models.kinds import kind_of

    weights, metadata = read_adapter(path)
    assert kind_of({name: w.shape for name, w in weights.items()}, metadata) == kind


def of_lycoris(path: Path, **tensors: torch.Tensor) -> Path:
    save_file({key.replace("__", "."): tensor for key, tensor in tensors.items()}, path)
    return path


def test_a_diff_of_zeros_is_damage(path: Path) -> None:
    stems = [f"lora_unet_{name.removeprefix('unet.').replace('.', '_')}" for name in NAMES]
    of_lycoris(path, **{f"{stems[0]}__diff": torch.ones(8, 768), f"{stems[1]}__diff": torch.zeros(8, 768)})
    with pytest.raises(AdapterError, match=r"1 of 2 modules hold only zeros \(unet.down_blocks.1.attentions.1"):
        read_adapter(path)
    of_lycoris(path, **{f"{stems[0]}__diff": torch.ones(8, 768), f"{stems[1]}__diff_b": torch.zeros(8)})
    assert set(read_adapter(path)[0]) == set(NAMES)


@pytest.mark.parametrize("program", ["", "lora_", "lycoris."])
def test_a_gain_with_dots_is_read(path: Path, program: str) -> None:
    gain = torch.randn(8, 1)
    tensors = {f"{program}{NAMES[0]}.weight": gain, f"{program}{NAMES[0]}.on_input": torch.tensor([0.0])}
    save_file(tensors, path)
    ((name, weights),) = read_adapter(path)[0].items()
    assert (name, weights.variant) == (NAMES[0], "ia3")
    assert torch.equal(torch.as_tensor(weights.tensors["gain"]), gain)
    assert inspect_adapter(path)
