"""`model.vae`: another VAE than the base model's own, for encoding, previews and `fuse`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from rows import every_row
from safetensors.torch import load_file, save_file

from sd_lora.config.schema import ModelConfig
from sd_lora.errors import BaseModelError
from sd_lora.models.checkpoint.keys import gathered, places
from sd_lora.models.checkpoint.vae import check_vae
from sd_lora.models.opening import load_base, load_named, open_base

Change = Callable[[Path], object]
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.fixture(scope="module")
def other(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of another VAE of the first base's shape."""
    own = load_base(bases["sd1"])[0].vae
    torch.manual_seed(7)
    made: Any = AutoencoderKL.from_config(dict(own.config))
    made.save_pretrained(folder := tmp_path_factory.mktemp("vae") / "vae")
    return folder


def original(folder: Path, into: Path, prefix: str = "") -> Path:
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    stored = gathered(weights, places("sd15", "vae", weights))
    tensors = {prefix + key.removeprefix("first_stage_model."): t.contiguous() for key, t in stored.items()}
    save_file(tensors, into / "vae.safetensors")
    return into / "vae.safetensors"


def in_a_checkpoint(folder: Path, into: Path) -> Path:
    path = original(folder, into, "first_stage_model.")
    more = {"model.diffusion_model.out.2.bias": torch.ones(4), "first_stage_model.loss.logvar": torch.ones(1)}
    save_file(load_file(path) | more, path)
    return path


def of_diffusers(folder: Path, into: Path) -> Path:
    return Path(shutil.copy(folder / "diffusion_pytorch_model.safetensors", into / "vae.safetensors"))


def of_old_diffusers(folder: Path, into: Path) -> Path:
    """Its attention has other names, and is convolutions of one pixel."""
    tensors = {}
    for key, tensor in load_file(folder / "diffusion_pytorch_model.safetensors").items():
        for new, old in OLD.items():
            key = key.replace(f".{new}.", f".{old}.")  # noqa: PLW2901
        tensors[key] = tensor
    save_file(tensors, into / "vae.safetensors")
    return into / "vae.safetensors"


def fp16_folder(folder: Path, into: Path) -> Path:
    made = Path(shutil.copytree(folder, into / "half"))
    file = made / "diffusion_pytorch_model.safetensors"
    file.rename(made / "diffusion_pytorch_model.fp16.safetensors")
    return made


FORMS: dict[str, Callable[[Path, Path], Path]] = {
    "a folder": lambda folder, _: folder, "of float16": fp16_folder, "original": original,
    "with a checkpoint's prefix": lambda folder, into: original(folder, into, "first_stage_model."),
    "in a checkpoint": in_a_checkpoint, "diffusers' layout": of_diffusers, "older diffusers'": of_old_diffusers,
}  # fmt: skip


@every_row("form", FORMS.values(), ids=FORMS)
def test_every_form_is_the_same_vae(
    form: Callable[[Path, Path], Path], bases: dict[str, Path], other: Path, tmp_path: Path
) -> None:
    plain, (pipe, _) = load_base(bases["sd1"])[0], load_base(bases["sd1"], vae=form(other, tmp_path))
    expected = AutoencoderKL.from_pretrained(other).state_dict()
    weights = pipe.vae.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert not any(torch.equal(weights[n], t) for n, t in plain.vae.state_dict().items() if t.ndim > 1)
    assert not pipe.vae.training
    assert not any(p.requires_grad for p in pipe.vae.parameters())
    assert pipe.components["vae"] is pipe.vae


def test_it_encodes_draws_and_is_in_the_key_of_images(bases: dict[str, Path], other: Path) -> None:
    plain, family = load_base(bases["sd1"])
    opened = open_base(ModelConfig(base=str(bases["sd1"]), vae=str(other), device="cpu", dtype="float32"))
    vae: Any = AutoencoderKL.from_pretrained(other)
    pictures = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        latents = vae.encode(pictures).latent_dist.mean * vae.config.scaling_factor
        drawn = vae.decode(latents / vae.config.scaling_factor).sample
    torch.testing.assert_close(family.encode_images(opened.pipe, pictures), latents)
    torch.testing.assert_close(family.decode(opened.pipe, latents), drawn)
    assert family.images_key(opened.pipe) != family.images_key(plain)
    assert family.denoiser_key(opened.pipe) == family.denoiser_key(plain)
    assert family.captions_key(opened.pipe) == family.captions_key(plain)
    images = [
        pipe("a", latents=torch.ones(1, 4, 8, 8), num_inference_steps=1, output_type="np").images
        for pipe in (plain, opened.pipe)
    ]
    assert abs(images[0] - images[1]).max() > 0.01


def test_a_checkpoint_takes_one_too(
    checkpoints: dict[str, Path], whole_bases: dict[str, Path], other: Path, tmp_path: Path
) -> None:
    model = ModelConfig(
        base=str(checkpoints["sd1"]), config=str(whole_bases["sd1"]), vae=str(original(other, tmp_path))
    )
    pipe, _ = load_named(model)
    expected = AutoencoderKL.from_pretrained(other).state_dict()
    assert all(torch.equal(t, expected[name]) for name, t in pipe.vae.state_dict().items())


# ---- refusals, before the base model is read


def config(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def without(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def only(*keys: str) -> Change:
    """A file in place of the folder."""

    def change(folder: Path) -> None:
        shutil.rmtree(folder)
        save_file({key: torch.ones(2, 2) for key in keys}, folder)

    return change


def nested(folder: Path) -> None:
    shutil.move(folder, folder.with_name("x"))
    folder.mkdir()
    shutil.move(folder.with_name("x"), folder / "vae")


EARLY: dict[str, tuple[Change, str]] = {
    "gone": (shutil.rmtree, "which does not exist; name the vae folder of a diffusers model"),
    "no config": (without("config.json"), "has no config.json"),
    "a pipeline folder": (nested, r"has no config.json; .*, here .*vae/vae"),
    "a broken config": (lambda folder: (folder / "config.json").write_text("{"), "config.json that cannot be read"),
    "another model": (config(_class_name="AutoencoderTiny"), "is a AutoencoderTiny, not an AutoencoderKL"),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), "is a nameless model"),
    "a pointer": (
        lambda folder: (shutil.rmtree(folder), folder.write_text("version https://git-lfs.github.com/spec/v1\n")),
        "model.vae .* is not a safetensors file: it is a git-LFS pointer",
    ),
    "an embedding": (only("emb_params"), "is a textual-inversion embedding"),
    "a LoRA": (only("lora_unet_x.lora_down.weight"), "is a LoRA adapter"),
    "something else": (only("a.b", "c.d", "e.f"), "is not a VAE; name"),
    "a decoder alone": (only("decoder.conv_in.weight", "a.b", "c.d"), "is a VAE alone|is not a VAE"),
}
LATE: dict[str, tuple[Change, str]] = {
    "no weights": (without("diffusion_pytorch_model.safetensors"), "cannot be loaded"),
    "another family's": (config(scaling_factor=0.13025), r"scaling_factor of 0.13025, and the base model's own"),
    "more channels": (config(latent_channels=16), "latent_channels of 16"),
    "a file of another size": (
        lambda folder: (shutil.rmtree(folder), save_file({
            "encoder.down.0.block.0.conv1.weight": torch.ones(2, 2), "decoder.conv_in.weight": torch.ones(2)}, folder)),
        r"does not fit the base model: \d+ weights are missing .*, 2 do not fit",
    ),
}  # fmt: skip


@every_row("change, words", EARLY.values(), ids=EARLY)
def test_what_is_no_vae_is_refused_early(change: Change, words: str, other: Path, tmp_path: Path) -> None:
    change(folder := Path(shutil.copytree(other, tmp_path / "vae")))
    with pytest.raises(BaseModelError, match=words) as caught:
        check_vae(folder)
    assert str(caught.value).isprintable()


@every_row("change, words", [*EARLY.values(), *LATE.values()], ids=[*EARLY, *LATE])
def test_what_does_not_fit_is_refused(
    change: Change, words: str, bases: dict[str, Path], other: Path, tmp_path: Path
) -> None:
    change(folder := Path(shutil.copytree(other, tmp_path / "vae")))
    with pytest.raises(BaseModelError, match=words):
        load_base(bases["sd1"], vae=folder)


def test_a_hub_id_is_not_fetched() -> None:
    with pytest.raises(BaseModelError, match=r"does not exist; .* only files and folders on this machine are read"):
        check_vae("stabilityai/sd-vae-ft-mse")
