"""A whole run on a random base: what it writes, that it repeats itself, and that the base stays as it was."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from sd_lora import Adapter, StepReport, train
from sd_lora.config.presets import load_config
from sd_lora.config.reading import read_config
from sd_lora.config.schema import RunConfig
from sd_lora.errors import ConfigError, DataError, SdLoraError, TrainingStopped
from sd_lora.models.objectives import Objective
from sd_lora.tinybase.styles import render
from sd_lora.tinybase.world import sample_scene
from sd_lora.training.preparation import prepare
from sd_lora.training.prepared import Run
from sd_lora.training.run import RunNote, run_training

CHECKPOINT = ("adapter.safetensors", "optimizer.safetensors", "state.json", "manifest.json")
CAPTION = "a perfectly secret caption number"
QUICK = ("training.batch_size=2", "preview.inference_steps=2", "model.device=cpu", "data.trigger=zwq")


def config_for(base: Path, images: Path, out: Path, *overrides: str) -> RunConfig:
    paths = (f"model.base={base}", f"data.folder={images}", f"output.folder={out}")
    return load_config("tiny-style", *paths, *QUICK, "training.steps=5", *overrides)


def write_images(folder: Path, count: int = 3) -> Path:
    folder.mkdir()
    for i in range(count):
        render(sample_scene(i), "woodcut").save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"{CAPTION} {i}", "utf-8")
    return folder


def body_of(file: Path) -> bytes:
    content = file.read_bytes()
    return content[8 + struct.unpack("<Q", content[:8])[0] :]


def header_of(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as opened:
        return opened.metadata()


def digest(module: torch.nn.Module) -> str:
    state = sorted((k, v) for k, v in module.state_dict().items())
    return hashlib.sha256(b"".join(k.encode() + v.numpy().tobytes() for k, v in state)).hexdigest()


@dataclass
class Done:
    """One finished run, and what was seen of it."""

    run: Run
    path: Path
    images: Path
    reports: list[StepReport]
    adapter: Adapter
    base_before: tuple[str, str]


@pytest.fixture(autouse=True)
def _plain_curves() -> None:
    """Here curves are drawn as they are."""


@pytest.fixture(scope="module")
def done(random_sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    work = tmp_path_factory.mktemp("run")
    images = write_images(work / "my-photos")
    config = config_for(random_sd_folder, images, work / "out", "training.save_every=2", "preview.every=4")
    run, reports = prepare(config), []
    parts = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
    unet, vae = (digest(kind.from_pretrained(random_sd_folder / part)) for part, kind in parts.items())
    adapter = run_training(run, watch=reports.append)
    return Done(run, work / "out", images, reports, adapter, (unet, vae))


@pytest.fixture
def short(random_sd_folder: Path, tmp_path: Path, image_folder: Path) -> Callable[..., RunConfig]:
    """A config of two steps that writes to `tmp_path` / name."""

    def make(name: str, *overrides: str) -> RunConfig:
        return config_for(random_sd_folder, image_folder, tmp_path / name, "training.steps=2", *overrides)

    return make


# ---- what a run leaves behind


def test_the_run_folder_is_whole(done: Done) -> None:
    files = {str(file.relative_to(done.path)) for file in done.path.rglob("*") if file.is_file()}
    cached = {file for file in files if file.startswith("cache/")}
    assert len(cached) == 3 + 3 + 1  # pictures, captions, and no caption
    files -= cached
    kept = {"checkpoints/step-000005/" + name for name in CHECKPOINT}
    assert files == {
        *kept, ".lock",
        "adapter.safetensors", "config.toml", "log.jsonl", "loss.png", "adapters/step-000002.safetensors",
        "adapters/step-000004.safetensors", "samples/step-000004.png", "samples/step-000005.png", "adapter.json",
        "adapter.png", "diffusers/pytorch_lora_weights.safetensors", "diffusers/README.md", "diffusers/preview.png",
    }  # fmt: skip


def test_the_config_in_it_is_resolved_and_can_be_read_again(done: Done) -> None:
    config = read_config(done.path / "config.toml")
    assert config == done.run.config
    assert config.data.resolution == 16
    assert config.output.name == "zwq"
    assert config.preview.prompts == tuple(f"{CAPTION} {i}, in zwq style" for i in range(3))


def test_the_log_has_one_line_a_step_and_is_what_was_watched(done: Done) -> None:
    lines = [json.loads(line) for line in (done.path / "log.jsonl").read_text().splitlines()]
    assert lines == [asdict(report) for report in done.reports]
    assert [(line["step"], line["steps"]) for line in lines] == [(i, 5) for i in range(1, 6)]


def test_the_pictures_in_it_open(done: Done) -> None:
    with Image.open(done.path / "loss.png") as curve:
        assert curve.size == (800, 640)
    with Image.open(done.path / "samples" / "step-000005.png") as sheet:
        recipe = json.loads(sheet.text["sd_lora"])
    assert recipe["strengths"] == [0.0, 0.5, 1.0]
    assert len(recipe["prompts"]) == 3


def test_kept_adapters_are_whole_and_each_is_another(done: Done) -> None:
    files = [*sorted((done.path / "adapters").iterdir()), done.path / "adapter.safetensors"]
    bodies = {body_of(file) for file in files}
    assert len(bodies) == 3
    assert all(Adapter.load(file).weights.keys() == done.adapter.weights.keys() for file in files)


def test_the_base_is_what_it_was(done: Done, random_sd_folder: Path) -> None:
    assert (digest(done.run.pipe.unet), digest(done.run.pipe.vae)) == done.base_before
    assert not any("loras" in name for name, _ in done.run.pipe.unet.named_modules())
    assert not done.run.adapter.is_injected


def test_the_text_encoder_is_let_go(done: Done) -> None:
    assert done.run.pipe.text_encoder is None


def test_what_is_returned_is_what_was_saved(done: Done) -> None:
    saved = Adapter.load(done.path / "adapter.safetensors")
    assert done.adapter.metadata == saved.metadata
    for name, weights in done.adapter.weights.items():
        assert torch.equal(weights.tensors["down"], saved.weights[name].tensors["down"])
        assert torch.equal(weights.tensors["up"], saved.weights[name].tensors["up"])
        trained = done.run.adapter.weights[name]
        torch.testing.assert_close(
            weights.tensors["up"], trained.tensors["up"], rtol=1e-3, atol=1e-6
        )  # float16 in the file
    assert all(bool(weights.tensors["up"].any()) for weights in saved.weights.values())


def test_metadata_says_what_other_programs_read(done: Done, random_sd_folder: Path) -> None:
    meta = header_of(done.path / "adapter.safetensors")
    expected = {
        "ss_base_model_version": "sd_v1", "ss_v2": "False", "modelspec.architecture": "stable-diffusion-v1/lora",
        "ss_network_module": "networks.lora", "ss_network_dim": "16", "ss_network_alpha": "16", "ss_steps": "5",
        "ss_num_train_images": "3", "ss_output_name": "zwq", "ss_resolution": "(16, 16)", "sdlora.trigger": "zwq",
        "sdlora.base": random_sd_folder.name, "modelspec.sai_model_spec": "1.0.1", "modelspec.resolution": "16x16",
        "modelspec.prediction_type": "epsilon", "modelspec.trigger_phrase": "in zwq style",
    }  # fmt: skip
    assert {key: meta.get(key) for key in expected} == expected
    assert meta["sshs_model_hash"] == hashlib.sha256(body_of(done.path / "adapter.safetensors")).hexdigest()
    assert float(meta["ss_training_started_at"]) <= float(meta["ss_training_finished_at"])
    assert json.loads(meta["ss_tag_frequency"]) == {"images": {"zwq": 3}}
    assert json.loads(meta["ss_dataset_dirs"])["images"]["img_count"] == 3


def test_metadata_holds_no_path_and_no_caption(done: Done, random_sd_folder: Path) -> None:
    for file in done.path.rglob("*.safetensors"):
        text = json.dumps(header_of(file))
        for private in (
            CAPTION,
            str(done.images),
            "my-photos",
            str(random_sd_folder),
            str(done.path),
            str(Path.home()),
        ):
            assert private not in text


# ---- one run after another


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(short: Callable[..., RunConfig]) -> None:
    files = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.rand(5)  # the global generator plays no part
        config = short(name, f"training.seed={seed}")
        train(config)
        files.append(Path(config.output.folder) / "adapter.safetensors")
    assert body_of(files[0]) == body_of(files[1])
    assert body_of(files[0]) != body_of(files[2])


@pytest.mark.slow
def test_a_run_from_its_own_config_is_the_same_run(done: Done, tmp_path: Path) -> None:
    again = load_config(str(done.path / "config.toml"), f"output.folder={tmp_path / 'again'}")
    train(again)
    assert body_of(tmp_path / "again" / "adapter.safetensors") == body_of(done.path / "adapter.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_output_dtype(name: str, dtype: torch.dtype, short: Callable[..., RunConfig]) -> None:
    config = short(name, f"output.dtype={name}")
    train(config)
    tensors = load_file(Path(config.output.folder) / "adapter.safetensors")
    assert {tensor.dtype for key, tensor in tensors.items() if "lora" in key and not key.endswith("alpha")} == {dtype}


@pytest.mark.slow
def test_one_image_is_learnt_by_heart(random_sd_folder: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "one", 1)
    config = config_for(
        random_sd_folder, images, tmp_path / "out", "training.steps=40", "optimizer.learning_rate=2e-2",
        "training.caption_dropout=0", "data.flip=false", "training.batch_size=4",
    )  # fmt: skip
    run, losses = prepare(config), []
    run_training(run, watch=lambda report: losses.append(report.loss))
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


@pytest.mark.slow
def test_train_warns_of_what_the_command_line_would_note(random_sd_folder: Path, tmp_path: Path) -> None:
    config = config_for(random_sd_folder, write_images(tmp_path / "one", 1), tmp_path / "out", "training.steps=1")
    with pytest.warns(RunNote, match="one image only"):
        train(config)


def test_captions_the_text_encoder_cuts_are_noted(random_sd_folder: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "long", 2)
    (images / "1.txt").write_text("a red house and " * 60, "utf-8")
    notes = prepare(config_for(random_sd_folder, images, tmp_path / "out")).notes
    assert any("1.png (" in note and "is cut off" in note and "0.png" not in note for note in notes)


@pytest.mark.slow
def test_only_the_targets_asked_for_are_trained(short: Callable[..., RunConfig]) -> None:
    config = short("few", 'lora.targets=["attn"]', 'lora.ranks={"unet.mid_block.*" = 3}', "lora.rank=2", "lora.alpha=2")
    weights = train(config).weights
    assert all(name.rsplit(".to_", 1)[-1] in ("q", "k", "v", "out.0") for name in weights)
    assert {w.rank for name, w in weights.items() if "mid_block" in name} == {3}
    assert {w.rank for name, w in weights.items() if "mid_block" not in name} == {2}


# ---- what stops a run


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_the_run(
    short: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Objective, "losses", lambda *args: args[1].float().mean(dim=(1, 2, 3)) * float("nan"))
    config = short("nan")
    with pytest.raises(TrainingStopped, match=r"0\d\.png"):
        train(config)
    assert not (Path(config.output.folder) / "adapter.safetensors").exists()


@pytest.mark.parametrize(
    ("overrides", "kind"),
    [
        (("data.folder=/no/such/folder",), DataError),
        (('lora.targets=["atn"]',), SdLoraError),
        (('lora.ranks={"unet.nothing.*" = 2}',), SdLoraError),
        (("model.dtype=float16",), ConfigError),
    ],
)
def test_a_refused_run_writes_nothing(
    overrides: tuple[str, ...], kind: type[Exception], short: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = short("out", *overrides)
    with pytest.raises(kind):
        train(config)
    assert [entry.name for entry in tmp_path.iterdir()] == ["images"]


def test_an_output_folder_that_exists_is_left_alone(short: Callable[..., RunConfig], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="exists"):
        train(short("out"))
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        train(replace(short("x"), output=replace(short("x").output, folder=str(tmp_path / "file" / "out"))))


@pytest.mark.slow
@pytest.mark.parametrize(("given", "written"), [("a:b<c>,d", "a-b-c--d"), ("None", "None-style"), ("", "images")])
def test_names_other_programs_cannot_read_are_changed(
    given: str, written: str, short: Callable[..., RunConfig]
) -> None:
    adapter = train(short("named", f"output.name={given}", "data.trigger=", "preview.inference_steps=1"))
    assert adapter.metadata["ss_output_name"] == written
