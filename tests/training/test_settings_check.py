"""Settings that cannot act are refused before a byte of the base model is read or fetched."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from sd_lora.config.conflicts import Facts, conflicts_with
from sd_lora.config.reading import parse_config
from sd_lora.config.schema import RunConfig
from sd_lora.errors import AdapterError, ConfigError
from sd_lora.models import opening
from sd_lora.training.optimizers import OPTIMIZERS
from sd_lora.training.preparation import check_places, prepare


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """No base model is opened, and nothing is asked of the hub."""

    def fail(*_: object, **__: object) -> None:
        pytest.fail("the base model was touched")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    monkeypatch.setattr(huggingface_hub, "HfApi", fail)
    monkeypatch.setattr(opening, "load_single_file", fail)
    for family in opening.FAMILIES.values():
        monkeypatch.setattr(type(family), "load", fail)


def config_of(images: Path, out: Path, base: str | Path, *overrides: str) -> RunConfig:
    given = {"model": {"base": str(base)}, "data": {"folder": str(images)}, "output": {"folder": str(out)}}
    return parse_config([("test", given)], ["model.device=cpu", *overrides])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.config=somewhere"], "model.config is .* has its own configs"),
        (["model.dtype=float16"], "float16, which the CPU does not train in"),
        (["model.quantize=int8"], "model.quantize=int8 needs a CUDA device"),
        (["optimizer.name=adamw8bit"], "adamw8bit needs a CUDA device"),
        (["optimizer.name=prodigy"], "optimizer.learning_rate multiplies"),
        (["optimizer.name=lion"], "needs lion_pytorch"),
        (["training.trackers=trackio"], "training.trackers needs packages"),
        (["training.average=ema", "optimizer.name=schedule-free"], "averages already.*schedule=cosine cannot act"),
        (["lora.variant=loha", "optimizer.plus_ratio=4"], "plus_ratio cannot act on lora.variant=loha"),
        (["lora.variant=lokr", "lora.rank_dropout=0.1"], "rank_dropout cannot act on lora.variant=lokr"),
        (["lora.variant=loha", "optimizer.max_norm=1"], "max_norm cannot act on lora.variant=loha"),
        (["lora.factor=4"], "factor cannot act on lora.variant=lora, only on lora.variant=lokr"),
        (["lora.variant=dora", "optimizer.max_norm=1"], "max_norm cannot act on lora.variant=dora"),
        (["training.text_steps=3"], "training.text_steps has no effect"),
        (["optimizer.text_learning_rate=1", "lora.targets=ff,unet.*.to_q"], "text_learning_rate has no effect"),
    ],
)
def test_a_hub_model_is_not_fetched_for_settings_that_cannot_act(
    overrides: list[str],
    words: str,
    image_folder: Path,
    tmp_path: Path,
    untouched: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "lion_pytorch", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "trackio" else name)
    with pytest.raises(ConfigError, match=words):
        prepare(config_of(image_folder, tmp_path / "run", "owner/name", *overrides))


def test_a_base_that_predicts_epsilon_says_so_in_its_header(
    bases: dict[str, Path], image_folder: Path, tmp_path: Path, untouched: None
) -> None:
    settings = json.loads((bases["sd1"] / "scheduler/scheduler_config.json").read_text())
    assert settings["prediction_type"] == "epsilon"
    with pytest.raises(ConfigError, match="v_prediction, but this one predicts epsilon"):
        prepare(config_of(image_folder, tmp_path / "run", bases["sd1"], "training.zero_terminal_snr=true"))


def test_an_adapter_that_cannot_be_read_is_refused_as_that(image_folder: Path, tmp_path: Path, untouched: None) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"not an adapter")
    for name in ("a.safetensors", "none.safetensors"):
        # a setting of text encoders is not to blame
        settings = (f"lora.init={tmp_path / name}", "optimizer.text_learning_rate=1")
        with pytest.raises(AdapterError, match=name):
            prepare(config_of(image_folder, tmp_path / "run", "owner/name", *settings))


def test_the_adapter_to_train_further_may_be_in_the_home_folder(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    stem = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    tensors = {"lora_down.weight": torch.zeros(2, 8), "lora_up.weight": torch.zeros(8, 2), "alpha": torch.tensor(2.0)}
    save_file({f"{stem}.{role}": tensor for role, tensor in tensors.items()}, tmp_path / "a.safetensors")
    settings = ("lora.init=~/a.safetensors", "optimizer.text_learning_rate=1")
    places = check_places(config_of(image_folder, tmp_path / "run", "tiny", *settings))
    assert places.config.lora.init == str(tmp_path / "a.safetensors")


def test_the_text_encoders_may_be_meant_by_a_pattern() -> None:
    plain = OPTIMIZERS["adamw"]
    config = parse_config([], ["training.text_steps=3"])
    assert conflicts_with(config, Facts(place="hub", optimizer=plain, trains_text=None)) == []
    assert conflicts_with(config, Facts(place="hub", optimizer=plain, trains_text=False))


@pytest.mark.parametrize(
    ("pattern", "may"),
    [("text_encoder.*", True), ("*", True), ("*.q_proj", True), ("te?t*", True), ("unet.*", False), ("style", False)],
)
def test_which_patterns_may_match_a_text_encoder(pattern: str, may: bool) -> None:
    from sd_lora.training.settings_check import _may_match

    assert _may_match(pattern, "text_encoder") is may
