"""Runs with another VAE (`model.vae`): what it encodes, what the cache and the resume check make of it, and `fuse`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from small_runs import body_of, config_of, go, interrupted, resumed, write_images

from sd_lora.config.schema import ModelConfig
from sd_lora.errors import BaseModelError, DataError
from sd_lora.models.opening import load_base
from sd_lora.runs.folder import RunFolder
from sd_lora.tools.fuse import fuse_adapter
from sd_lora.tools.inspect import inspect_adapter
from sd_lora.training.preparation import prepare


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("vae") / "images")


def write_vae(folder: Path, like: Any, seed: int) -> Path:
    torch.manual_seed(seed)
    made: Any = AutoencoderKL.from_config(dict(like.config))
    made.save_pretrained(folder)
    return folder


@pytest.fixture
def vae(random_sd_folder: Path, tmp_path: Path) -> Path:
    return write_vae(tmp_path / "vae", load_base(random_sd_folder)[0].vae, 1)


def test_a_run_is_trained_on_its_latents_and_shares_no_cache(
    random_sd_folder: Path, images: Path, vae: Path, tmp_path: Path
) -> None:
    common = ("training.steps=2", f"data.cache={tmp_path / 'cache'}")
    go(config_of(random_sd_folder, images, tmp_path / "own", *common))
    before = {file for file in (tmp_path / "cache").rglob("*") if file.is_file()}
    go(config_of(random_sd_folder, images, tmp_path / "other", f"model.vae={vae}", *common))
    after = {file for file in (tmp_path / "cache").rglob("*") if file.is_file()}
    assert len(after - before) >= 3  # each image again, at least
    own, other = (load_file(tmp_path / run / "adapter.safetensors") for run in ("own", "other"))
    assert any(not torch.equal(own[key], other[key]) for key in own)
    first, second = (tmp_path / run / "samples" / "step-000002.png" for run in ("own", "other"))
    assert first.read_bytes() != second.read_bytes()
    assert RunFolder(tmp_path / "other").read_config().model.vae == str(vae)
    assert inspect_adapter(tmp_path / "other" / "adapter.safetensors").metadata["ss_vae_name"] == "vae"


@pytest.mark.slow
def test_a_run_resumes_with_the_same_vae_wherever_it_is_and_with_no_other(
    random_sd_folder: Path, images: Path, vae: Path, tmp_path: Path
) -> None:
    def config(run: Path) -> Any:
        return config_of(random_sd_folder, images, run, f"model.vae={vae}", "training.steps=3")

    go(config(tmp_path / "complete"))
    run = tmp_path / "run"
    assert interrupted(lambda: go(config(run), stop_after=2))
    moved = Path(shutil.copytree(vae, tmp_path / "moved"))
    write_vae(vae, load_base(random_sd_folder)[0].vae, 2)
    with pytest.raises(DataError, match="the base model has another VAE; put them back"):
        resumed(run)
    toml = (run / "config.toml").read_text()
    (run / "config.toml").write_text(toml.replace(f'vae = "{vae}"', 'vae = ""'))
    with pytest.raises(DataError, match="another VAE"):
        resumed(run)
    (run / "config.toml").write_text(toml.replace(str(vae), str(moved)))
    resumed(run)
    assert body_of(run / "adapter.safetensors") == body_of(tmp_path / "complete" / "adapter.safetensors")


def test_a_wrong_one_is_refused_before_the_base_model_is_opened(
    random_sd_folder: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sd_lora.training.preparation.open_base", None)
    with pytest.raises(BaseModelError, match=r'model.vae is ".*nowhere", which does not exist'):
        prepare(config_of(random_sd_folder, images, tmp_path / "run", f"model.vae={tmp_path / 'nowhere'}"))


def test_it_is_in_what_fuse_writes(random_sd_folder: Path, images: Path, vae: Path, tmp_path: Path) -> None:
    go(config_of(random_sd_folder, images, tmp_path / "run", "training.steps=1"))
    adapter = tmp_path / "run" / "adapter.safetensors"
    fuse_adapter(adapter, ModelConfig(base=str(random_sd_folder), vae=str(vae)), tmp_path / "fused", dtype="float32")
    expected = AutoencoderKL.from_pretrained(vae).state_dict()
    fused = load_base(tmp_path / "fused")[0].vae.state_dict()
    assert all(torch.equal(fused[name], tensor) for name, tensor in expected.items())
    assert '"vae": "vae"' in (tmp_path / "fused" / "sd_lora.json").read_text()
