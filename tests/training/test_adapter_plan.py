"""What is trained: text encoders with their own rate and last step, adapters that are trained further, and the refusals
and notes that go with the choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from typer.testing import CliRunner

from sd_lora import Adapter, AdapterError, ConfigError, load_config
from sd_lora.commands.app import app
from sd_lora.training.preparation import prepare
from sd_lora.training.run import train

pytest.importorskip("peft")


def settings(base: Path, images: Path, out: Path, *overrides: str) -> Any:
    return load_config(
        "style", f"model.base={base}", f"data.folder={images}", f"output.folder={out}", "lora.rank=2",
        "lora.alpha=2", "training.steps=4", "training.batch_size=2", "preview.inference_steps=1",
        "preview.strengths=1", "optimizer.learning_rate=1e-2", "output.dtype=float32", *overrides,
    )  # fmt: skip


def ups(path: Path) -> dict[str, torch.Tensor]:
    return {name: w.tensors["up"] for name, w in Adapter.load(path / "adapter.safetensors").weights.items()}


def text_only(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: up for name, up in found.items() if name.startswith("text_encoder")}


@pytest.fixture
def sd1(bases: dict[str, Path]) -> Path:
    return bases["sd1"]


@pytest.mark.slow
def test_the_text_rate_is_half_the_other_unless_given(sd1: Path, image_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    config = prepare(settings(sd1, image_folder, out, "lora.targets=attn,text")).config
    assert config.optimizer.text_learning_rate == 5e-3
    given = settings(sd1, image_folder, out, "lora.targets=attn,text", "optimizer.text_learning_rate=1e-5")
    assert prepare(given).config.optimizer.text_learning_rate == 1e-5
    assert prepare(settings(sd1, image_folder, out)).config.optimizer.text_learning_rate is None


@pytest.mark.slow
def test_the_text_rate_is_what_text_layers_are_trained_with(sd1: Path, image_folder: Path, tmp_path: Path) -> None:
    sizes = []
    for rate in ("1e-2", "1e-5"):
        out = tmp_path / rate
        train(settings(sd1, image_folder, out, "lora.targets=attn,text", f"optimizer.text_learning_rate={rate}"))
        sizes.append({c: max(u.abs().max().item() for n, u in ups(out).items() if n.startswith(c)) for c in ("u", "t")})
    assert sizes[0]["t"] > 100 * sizes[1]["t"] > 0
    assert sizes[0]["u"] < 3 * sizes[1]["u"]


@pytest.mark.slow
def test_text_layers_stop_where_they_are_told_to(sd1: Path, image_folder: Path, tmp_path: Path) -> None:
    """A run that stops its text layers after two steps ends with the text layers it had then."""
    common = ("lora.targets=attn,text", "training.save_every=2", "training.text_steps=2")
    train(settings(sd1, image_folder, tmp_path / "run", *common))
    then = {
        n: w.tensors["up"] for n, w in Adapter.load(tmp_path / "run/adapters/step-000002.safetensors").weights.items()
    }
    now = ups(tmp_path / "run")
    assert all(torch.equal(up, then[name]) and up.abs().max() > 0 for name, up in text_only(now).items())
    assert not all(torch.equal(up, then[name]) for name, up in now.items())


@pytest.mark.slow
def test_captions_steer_training_through_the_text_encoder(sd1: Path, image_folder: Path, tmp_path: Path) -> None:
    train(settings(sd1, image_folder, tmp_path / "a", "lora.targets=attn,text"))
    for file in image_folder.glob("*.txt"):
        file.write_text("something else")
    train(settings(sd1, image_folder, tmp_path / "b", "lora.targets=attn,text"))
    first, second = ups(tmp_path / "a"), ups(tmp_path / "b")
    assert any(not torch.equal(up, second[name]) for name, up in text_only(first).items())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["optimizer.text_learning_rate=1e-4"], 'text_learning_rate has no effect .* add "text" to lora.targets'),
        (["training.text_steps=2"], "training.text_steps has no effect"),
        (["training.text_steps=9", "lora.targets=attn,text"], "text_steps is 9, more than the 4 steps"),
        (["training.text_steps=4", "lora.targets=attn,text"], "text_steps is 4, no less than the 4 steps"),
        (["training.text_steps=2", "lora.targets=text"], "nothing would be trained in the other 2 steps"),
        (["optimizer.warmup=1"], "optimizer.warmup=1 leaves no step to the cosine schedule"),
        (["training.timestep_range=0.5,0.5004"], "none of the 1000 timesteps of the base model"),
        (["lora.targets=*.q_proj,*.v_proj"], "in part .*; train q_proj, k_proj, v_proj and out_proj together"),
        (["lora.targets=attn,style-block"], 'target "style-block" matches no'),
        (["lora.init=nowhere.safetensors"], "nowhere.safetensors cannot be read"),
        (["lora.init=there.safetensors", "lora.variant=dora"], "lora.variant"),
    ],
)
def test_what_cannot_take_effect_is_refused(
    sd1: Path, image_folder: Path, tmp_path: Path, overrides: list[str], words: str
) -> None:
    with pytest.raises((ConfigError, AdapterError), match=words):
        prepare(settings(sd1, image_folder, tmp_path / "run", *overrides))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["lora.variant=dora"], "acts exactly in diffusers only"),
        (["lora.targets=unet.*.attn1.to_q"], "no attn2.to_k is trained"),
        (["lora.targets=attn,unet.conv_in"], "kohya's scripts never load unet.conv_in"),
    ],
)
def test_what_other_programs_do_otherwise_is_said(
    sd1: Path, image_folder: Path, tmp_path: Path, overrides: list[str], words: str
) -> None:
    notes = prepare(settings(sd1, image_folder, tmp_path / "run", *overrides)).notes
    assert any(words in note for note in notes)
    assert not any(words in note for note in prepare(settings(sd1, image_folder, tmp_path / "run")).notes)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_training_goes_on_from_an_adapter(sd1: Path, image_folder: Path, tmp_path: Path, layout: str) -> None:
    train(settings(sd1, image_folder, tmp_path / "first", "lora.rank=3", "lora.alpha=1"))
    begun = Adapter.load(tmp_path / "first/adapter.safetensors")
    start = begun.save(tmp_path / "start.safetensors", dtype="float32", layout=layout)
    config = settings(sd1, image_folder, tmp_path / "second", "training.seed=5")
    run = CliRunner().invoke(
        app,
        ["train", str(image_folder), "--init", str(start), "--base", str(sd1), "--out", str(tmp_path / "second"),
         "training.steps=1", "preview.inference_steps=1", "training.batch_size=1", "optimizer.learning_rate=1e-6"],
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    assert "training continues from" in run.stderr
    after = Adapter.load(tmp_path / "second/adapter.safetensors")
    assert config.lora.rank == 2
    assert set(after.weights) == set(begun.weights)
    for name, w in after.weights.items():
        before = begun.weights[name]
        assert w.rank == 3
        change, was = (v.scaling * v.tensors["up"].flatten(1) @ v.tensors["down"].flatten(1) for v in (w, before))
        torch.testing.assert_close(change, was, rtol=0, atol=2e-3 * was.abs().max().item() + 1e-6)
        assert not torch.equal(w.tensors["up"], before.tensors["up"]) or was.abs().max() == 0
    assert after.metadata["sdlora.targets"] == "those of start.safetensors"


def test_the_norm_of_a_dora_that_is_trained_further_is_not_capped(
    sd1: Path, image_folder: Path, tmp_path: Path
) -> None:
    start = tmp_path / "start.safetensors"
    prepare(settings(sd1, image_folder, tmp_path / "made", "lora.variant=dora")).adapter.save(start)
    with pytest.raises(ConfigError, match=r"optimizer\.max_norm cannot act on .*start\.safetensors"):
        prepare(settings(sd1, image_folder, tmp_path / "run", f"lora.init={start}", "optimizer.max_norm=0.5"))


@pytest.mark.slow
def test_an_adapter_of_another_base_is_not_trained_further(
    bases: dict[str, Path], image_folder: Path, tmp_path: Path
) -> None:
    train(settings(bases["sd1"], image_folder, tmp_path / "first"))
    init = f"lora.init={tmp_path / 'first/adapter.safetensors'}"
    with pytest.raises(AdapterError, match=r"\(trained on random-sd1\) does not fit base model random-sd2"):
        prepare(settings(bases["sd2"], image_folder, tmp_path / "second", init))


@pytest.mark.slow
def test_dora_is_trained_and_diffusers_draws_it_from_the_export(
    bases: dict[str, Path], image_folder: Path, tmp_path: Path
) -> None:
    adapter = train(settings(bases["sd2"], image_folder, tmp_path / "run", "lora.variant=dora", "lora.targets=attn,ff"))
    assert adapter.variant == "dora"
    assert adapter.metadata["sdlora.variant"] == "dora"
    plain = DiffusionPipeline.from_pretrained(bases["sd2"])
    ours = DiffusionPipeline.from_pretrained(bases["sd2"])

    def draw(pipe: Any) -> Any:
        pipe.set_progress_bar_config(disable=True)
        latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        return torch.from_numpy(pipe("a boat", latents=latents, num_inference_steps=2, output_type="np").images)

    base = draw(plain)
    plain.load_lora_weights(tmp_path / "run/diffusers")
    with adapter.injected(ours):
        expected = draw(ours)
    assert (expected - base).abs().max() > 1e-3
    torch.testing.assert_close(draw(plain), expected, rtol=0, atol=1e-4)
