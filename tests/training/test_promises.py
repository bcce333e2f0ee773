"""What a run promises when something is off: nothing trained is lost, nothing passes in silence."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sd_lora import Adapter, load_config
from sd_lora.adapters.file import read_adapter
from sd_lora.commands.demo import train_demo
from sd_lora.config.schema import RunConfig
from sd_lora.errors import AdapterError, BaseModelError, ConfigError, SdLoraError
from sd_lora.models.checkpoint.file import save_single_file
from sd_lora.models.opening import load_base
from sd_lora.preview.previewer import Previewer
from sd_lora.training.preparation import prepare
from sd_lora.training.run import RunNote, run_training, train

Short = Callable[..., RunConfig]


@pytest.fixture
def short(random_sd_folder: Path, tmp_path: Path, image_folder: Path) -> Short:
    def make(*overrides: str, name: str = "run") -> RunConfig:
        paths = {"model.base": random_sd_folder, "data.folder": image_folder, "output.folder": tmp_path / name}
        given = [f"{key}={json.dumps(str(path))}" for key, path in paths.items()]
        quick = ["training.steps=2", "training.batch_size=2", "lora.rank=2", "preview.inference_steps=2"]
        return load_config("tiny-style", *quick, *given, *overrides)

    return make


@pytest.mark.slow
def test_bfloat16_trains_and_draws_its_samples(short: Short, tmp_path: Path) -> None:
    train(short("model.dtype=bfloat16", "preview.every=1"))
    assert len(list((tmp_path / "run" / "samples").iterdir())) == 2


@pytest.mark.slow
def test_a_preview_that_fails_costs_no_adapter(short: Short, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Previewer, "grid", fail)
    with pytest.warns(RunNote, match="could not be drawn"):
        train(short())
    assert Adapter.load(tmp_path / "run" / "adapter.safetensors").weights
    assert (tmp_path / "run" / "loss.png").stat().st_size


@pytest.mark.slow
def test_what_float16_cannot_hold_is_kept_in_float32(short: Short, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"float16 cannot .* kept as .*adapter-float32\.safetensors"):
        train(short("optimizer.weight_decay=1e9", "training.steps=1"))
    assert read_adapter(tmp_path / "run" / "adapter-float32.safetensors")[0]


@pytest.mark.slow
def test_an_adapter_that_has_learnt_next_to_nothing_is_told_what_to_set(short: Short) -> None:
    with pytest.raises(AdapterError, match=r"output\.dtype=float32\), but .* nothing: raise optimizer\.learning"):
        train(short("optimizer.learning_rate=1e-12", "training.steps=1", "optimizer.warmup=0"))


@pytest.mark.slow
def test_a_folder_with_a_dot_in_its_name_keeps_it(
    short: Short, tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image_folder.rename(tmp_path / "my.style")
    run = prepare(short("data.folder=my.style", "output.folder="))
    assert (run.path, run.config.output.name) == (Path("runs/my.style"), "my.style")
    table = tmp_path / "my.set.toml"
    table.write_text('[[datasets]]\n[[datasets.subsets]]\nimage_dir = "my.style"\ncaption_extension = ".txt"\n')
    assert prepare(short("data.folder=my.set.toml", "output.folder=")).path == Path("runs/my.set")


@pytest.mark.slow
def test_the_config_of_a_checkpoint_file_is_found_from_anywhere(
    short: Short, bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(bases["sd1"], tmp_path / "numbers")
    save_single_file(load_base(bases["sd1"])[0], tmp_path / "base.safetensors", torch.float32)
    monkeypatch.chdir(tmp_path)
    config = prepare(short("model.base=base.safetensors", "model.config=numbers")).config
    assert config.model.config == str(tmp_path / "numbers")
    monkeypatch.chdir("/")
    prepare(config)


@pytest.mark.slow
def test_an_adapter_kept_on_the_way_tells_its_own_step(short: Short, tmp_path: Path) -> None:
    train(short("training.steps=3", "training.save_every=1", "data.trigger=zwq"))
    kept = [read_adapter(tmp_path / "run" / "adapters" / f"step-00000{n}.safetensors")[1] for n in (1, 2)]
    assert [m["ss_steps"] for m in kept] == [m["sdlora.steps"] for m in kept] == ["1", "2"]
    assert kept[1]["ss_output_name"] == "zwq-000002"
    last = read_adapter(tmp_path / "run" / "adapter.safetensors")[1]
    assert (last["sdlora.steps"], last["ss_output_name"]) == ("3", "zwq")


def test_a_long_caption_is_cut_before_its_trigger_word(short: Short, image_folder: Path) -> None:
    file = sorted(image_folder.glob("*.txt"))[0]
    file.write_text("a red house " + "with a very big green tree " * 12, "utf-8")
    run = prepare(short("data.trigger=zwq"))
    assert run.examples[0].caption.startswith("a red house with a")
    assert run.examples[0].caption.endswith(", in zwq style")
    assert not run.family.overlong(run.pipe, [example.caption for example in run.examples])
    assert any("is cut off" in note for note in run.notes)


def test_what_is_not_read_is_said(short: Short, image_folder: Path) -> None:
    (image_folder / "cat.mp4").write_bytes(b"x")
    (image_folder / "orphan.txt").write_text("x")
    notes = prepare(short()).notes
    assert any("2 entries" in note and "cat.mp4" in note and "orphan.txt" in note for note in notes)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.log_snr_mean=-6", "no effect"),
        ("optimizer.betas=[0.9, 1.0]", "optimizer.betas"),
        ('preview.prompts=[" "]', "preview.prompts"),
        ('data.trigger=" "', "data.trigger"),
        ("preview.inference_steps=1001", "inference_steps"),
        ("training.timestep_range=0.5,0.5004", "none of the 1000 timesteps"),
        ("training.zero_terminal_snr=true", "v_prediction, but this one predicts epsilon"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    override: str, said: str, short: Short, tmp_path: Path
) -> None:
    with pytest.raises((ConfigError, BaseModelError), match=said):
        prepare(short(override), planned=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "said"), [(["data.trigger=x"], "data.trigger"), (['lora.targets=["atn"]'], 'did you mean "attn"')]
)
def test_a_refused_demo_leaves_nothing(overrides: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(SdLoraError, match=said):
        train_demo(tmp_path / "demo", "woodcut", overrides)
    assert list(tmp_path.iterdir()) == []


def test_a_scheduler_without_a_noise_schedule_is_refused(random_sd: Any) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    from sd_lora.models.families import FAMILIES

    random_sd.scheduler = FlowMatchEulerDiscreteScheduler()
    with pytest.raises(BaseModelError, match="FlowMatch"):
        FAMILIES["sd"].objective(random_sd)


@pytest.mark.parametrize(
    ("fact", "said"), [({"cross_attention_dim": 1024}, "does not fit its UNet"), ({"in_channels": 9}, "inpainting")]
)
def test_a_base_of_another_type_is_refused_by_name(fact: dict[str, int], said: str, random_sd: Any) -> None:
    from sd_lora.models.families import FAMILIES

    random_sd.unet.register_to_config(**fact)
    with pytest.raises(BaseModelError, match=f"base model photos/base .*{said}"):
        FAMILIES["sd"].adopt(random_sd, "photos/base")


def test_an_injected_adapter_is_not_fused(random_sd: Any, trained_adapter: Callable[..., Adapter]) -> None:
    adapter = trained_adapter(random_sd)
    with adapter.injected(random_sd), pytest.raises(AdapterError, match="double"):
        adapter.fuse(random_sd)


def test_strengths_may_be_a_plain_list(random_sd: Any, trained_adapter: Callable[..., Adapter]) -> None:
    adapter = trained_adapter(random_sd)
    with adapter.injected(random_sd, [0.0, 1.0]):
        assert len(adapter.strength) == 2
    with pytest.raises(AdapterError, match="number"):
        adapter.inject(random_sd, "strong")  # type: ignore[arg-type]


@pytest.mark.slow
def test_training_leaves_the_base_loaded_anew_the_same(short: Short, random_sd_folder: Path) -> None:
    run = prepare(short())
    run_training(run)
    fresh = load_base(random_sd_folder)[0].unet.state_dict()
    assert all(torch.equal(tensor, fresh[key]) for key, tensor in run.pipe.unet.state_dict().items())


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("data.cache=~nosuch/x",), "no such user"),
        (("data.cache=/dev/null",), "/dev/null"),
        (("data.folder=~nosuch/x",), "does not exist"),
        (('data.folder="a\\u0000b"',), "does not exist"),
    ],
)
def test_odd_names_are_refused_in_a_sentence_and_leave_nothing(
    overrides: tuple[str, ...], said: str, short: Short, tmp_path: Path
) -> None:
    with pytest.raises(SdLoraError, match=said) as caught:
        train(short(*overrides))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_whose_name_is_no_text_is_refused(short: Short, tmp_path: Path, image_folder: Path) -> None:
    odd = tmp_path / os.fsdecode(b"n\xff")
    image_folder.rename(odd)
    with pytest.raises(SdLoraError, match="not text"):
        train(replace(short(), data=replace(short().data, folder=str(odd))))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_picture_that_is_replaced_before_it_is_encoded_is_refused(
    short: Short, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepare(short())
    file = run.examples[0].file
    with Image.open(file) as picture:
        picture.convert("L").convert("RGB").save(file)
    with pytest.raises(SdLoraError, match=rf"{file.name} was changed"):
        run_training(run)
