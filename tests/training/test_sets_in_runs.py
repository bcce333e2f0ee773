"""Whole runs on the sets people bring: mixed shapes, masks, regularisation, shared caches, broken images."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sd_lora import load_config
from sd_lora.commands.run_plan import summary
from sd_lora.config.schema import RunConfig
from sd_lora.data.cache import Cache
from sd_lora.errors import ConfigError, DataError
from sd_lora.models.families.sdxl import SdxlFamily
from sd_lora.models.families.unet import UNetFamily
from sd_lora.tinybase.styles import render
from sd_lora.tinybase.world import sample_scene
from sd_lora.training import encoding
from sd_lora.training.preparation import prepare
from sd_lora.training.prepared import Run
from sd_lora.training.run import run_training, train

Short = Callable[..., RunConfig]
SHAPES = [(64, 64), (96, 64), (64, 96), (128, 64), (64, 64), (72, 64)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six captioned pictures of four shapes."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, size in enumerate(SHAPES):
        render(sample_scene(i), "woodcut", 128).crop((0, 0, *size)).save(photos / f"{i}.png")
        (photos / f"{i}.txt").write_text(
            sample_scene(i).caption.replace("left", "far").replace("right", "near"), "utf-8"
        )
    return photos


@pytest.fixture
def short(random_sd_folder: Path, folder: Path, tmp_path: Path) -> Short:
    def make(*overrides: str, name: str = "run", base: Path | None = None) -> RunConfig:
        paths = {"model.base": base or random_sd_folder, "data.folder": folder, "output.folder": tmp_path / name}
        given = [f"{key}={json.dumps(str(path))}" for key, path in paths.items()]
        quick = ["training.steps=3", "training.batch_size=4", "lora.rank=2", "preview.inference_steps=1"]
        return load_config("tiny-style", *quick, *given, "preview.strengths=1", "model.device=cpu", *overrides)

    return make


def tensors(config: RunConfig) -> dict[str, torch.Tensor]:
    return load_file(Path(config.output.folder) / "adapter.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def watched(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Everything that the denoiser is shown."""
    shown: list[torch.Tensor] = []
    plain = UNetFamily.denoise

    def denoise(self: Any, denoiser: Any, noisy: torch.Tensor, *rest: Any) -> torch.Tensor:
        if torch.is_grad_enabled():
            shown.append(noisy.detach().clone())
        return plain(self, denoiser, noisy, *rest)

    monkeypatch.setattr(UNetFamily, "denoise", denoise)
    return shown


def test_images_of_every_shape_are_trained_in_their_own(short: Short, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = watched(monkeypatch)
    run = prepare(short("training.steps=9"))
    shown.clear()  # the step that was tried for the plan
    run_training(run)
    assert sum(len(latents) for latents in shown) == 36
    assert len({latents.shape[2:] for latents in shown}) > 2
    counts = Counter(image for (image, _), n in run.schedule.count(9).items() for _ in range(n))
    assert counts == dict.fromkeys(range(6), 6)


@pytest.mark.slow
def test_squares_and_several_resolutions_on_request(short: Short, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = watched(monkeypatch)
    train(short("data.buckets=false"))
    assert {tuple(latents.shape[2:]) for latents in shown} == {(8, 8)}
    shown.clear()
    train(short("data.buckets=false", "data.more_resolutions=24,32", name="more"))
    assert {tuple(latents.shape[2:]) for latents in shown} == {(8, 8), (12, 12), (16, 16)}


def test_what_the_summary_says(short: Short, folder: Path) -> None:
    first, second = summary(prepare(short())).splitlines()
    assert str(folder) in first
    assert "6 images" in first
    assert ".txt" in first
    assert "3 steps of 4 images" in second


@pytest.mark.slow
def test_sdxl_is_told_size_and_crop(short: Short, bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[float]] = []
    plain = SdxlFamily.denoise

    def denoise(self: Any, denoiser: Any, noisy: torch.Tensor, times: torch.Tensor, conditioning: Any) -> torch.Tensor:
        if torch.is_grad_enabled() and not noisy.is_meta:
            rows = conditioning["time_ids"].tolist()
            assert all(row[4:] == [8 * s for s in noisy.shape[2:]] for row in rows)
            told.extend(rows)
        return plain(self, denoiser, noisy, times, conditioning)

    monkeypatch.setattr(SdxlFamily, "denoise", denoise)
    train(short(base=bases["sdxl"]))
    originals = {(row[1], row[0]) for row in told}
    assert originals <= {(float(w), float(h)) for w, h in SHAPES}
    assert len(originals) > 2


@pytest.mark.slow
def test_runs_share_a_cache_and_encode_nothing_twice(
    short: Short, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches: list[Cache] = []

    class Watched(Cache):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            caches.append(self)

    monkeypatch.setattr(encoding, "Cache", Watched)
    shared = f"data.cache={json.dumps(str(tmp_path / 'shared'))}"
    train(short(name="alone"))
    train(short(shared, name="first"))
    train(short(shared, name="second"))
    assert [cache.made for cache in caches] == [13, 13, 0]
    assert caches[0].folder == tmp_path / "alone" / "cache"
    assert not (tmp_path / "second" / "cache").exists()
    assert same(tensors(short(name="alone")), tensors(short(name="second")))
    train(short(shared, 'lora.targets=["attn","text"]', "lora.variant=lora", name="text"))
    assert caches[3].made == 0  # the pictures are the same; captions are encoded while training


def test_an_image_that_cannot_be_read_stops_or_is_left_out(short: Short, folder: Path) -> None:
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:60])
    with pytest.raises(
        DataError,
        match=r"trained on: 1 file cannot be read as an image: 2\.png \(.*data\.skip_bad=true\. sd-lora check ",
    ):
        prepare(short())
    run = prepare(short("data.skip_bad=true"))
    assert [example.name for example in run.examples] == ["0.png", "1.png", "3.png", "4.png", "5.png"]
    assert any("2.png" in note for note in run.notes)


def test_all_errors_of_a_folder_are_told_at_once_a_line_each(short: Short, folder: Path, tmp_path: Path) -> None:
    (folder / "1.txt").unlink()
    (folder / "3.png").write_bytes(b"")
    (folder / "4.png").write_text("<html>")
    with pytest.raises(DataError) as caught:
        prepare(short())
    first, *errors, hint = str(caught.value).splitlines()
    assert first.endswith("cannot be trained on:")
    told = ["  2 files cannot be read as images", "  1 image has no caption"]
    assert [error.partition(":")[0] for error in errors] == told
    assert hint == f"sd-lora check {folder} shows all findings"
    for word in ("1.png", "3.png", "4.png", "2 files cannot be read", "data.default_caption"):
        assert word in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_masks_change_what_is_learnt_and_can_be_ignored(short: Short, folder: Path) -> None:
    train(short(name="without"))
    for i, size in enumerate(SHAPES):
        mask = Image.new("L", size, 255)
        mask.paste(0, (0, 0, size[0] // 2, size[1]))
        mask.save(folder / f"{i}_mask.png")
    train(short(name="with"))
    train(short("data.masks=false", name="ignored"))
    without = tensors(short(name="without"))
    assert not same(without, tensors(short(name="with")))
    assert same(without, tensors(short(name="ignored")))


def test_a_mask_of_another_shape_is_an_error(short: Short, folder: Path) -> None:
    Image.new("L", (64, 20), 255).save(folder / "0_mask.png")
    with pytest.raises(DataError, match=r"0\.png"):
        prepare(short())


@pytest.mark.slow
def test_regularisation_images_have_no_trigger_and_half_of_the_steps(short: Short, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for i in range(2):
        render(sample_scene(90 + i), "flat", 64).save(other / f"{i}.png")
        (other / f"{i}.txt").write_text("a house")
    run = prepare(short(f"data.regularisation={json.dumps(str(other))}", "data.trigger=xq", "data.prior_weight=0.5"))
    prior = [example for example in run.examples if example.prior]
    assert [example.captions for example in prior] == [("a house",)] * 2
    assert all(e.caption.endswith(", in xq style") for e in run.examples if not e.prior)
    counts = run.schedule.count(30)
    assert sum(n for (i, _), n in counts.items() if run.examples[i].prior) == 60
    run_training(run)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.prior_weight=0.5", "data.prior_weight has no effect"),
        ("data.shuffle_tags=true", "no caption has commas"),
        ("data.tag_dropout=0.2", "no caption has commas"),
        ("data.keep_tags=2", "data.keep_tags has no effect because neither"),
        ("data.background=bleu", "bleu"),
        ("data.layout=kohya", "kohya"),
    ],
)
def test_settings_that_cannot_act_are_refused(short: Short, override: str, said: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, DataError), match=said):
        prepare(short(override))
    assert not (tmp_path / "run").exists()


def test_several_captions_of_an_image_are_all_trained(short: Short, folder: Path) -> None:
    (folder / "0.txt").write_text("a house\na red house\nhouse, seen from afar\n")
    (folder / "1.txt").write_text("one, two, three, four")
    run = prepare(short("data.shuffle_tags=true", "data.trigger=xq"))
    assert run.examples[0].captions[:2] == ("a house, in xq style", "a red house, in xq style")
    assert len(run.examples[1].captions) > 4
    indices = {(e.image, e.caption) for step in range(60) for g in run.schedule.groups(step) for e in g.exposures}
    assert {caption for image, caption in indices if image == 0} == set(range(len(run.examples[0].captions)))


@pytest.mark.slow
def test_a_run_is_the_same_from_an_empty_and_a_damaged_cache(short: Short, tmp_path: Path) -> None:
    shared = f"data.cache={json.dumps(str(tmp_path / 'shared'))}"
    train(short(shared, name="first"))
    for number, file in enumerate(sorted((tmp_path / "shared").glob("*/*.tensors"))):
        file.write_bytes(file.read_bytes()[: number * 11])
    train(short(shared, name="second"))
    assert same(tensors(short(name="first")), tensors(short(name="second")))


@pytest.mark.slow
def test_progress_of_looking_and_encoding_is_told(short: Short) -> None:
    looked: list[tuple[int, int]] = []
    encoded: list[tuple[int, int]] = []
    run: Run = prepare(short(), on_look=lambda *counts: looked.append(counts))
    run_training(run, on_encode=lambda *counts: encoded.append(counts))
    assert looked == [(i, 6) for i in range(1, 7)]
    assert encoded == [(i, 13) for i in (*range(1, 7), 13)]  # six pictures, then seven captions at once


def test_sample_prompts_may_be_in_a_file_and_have_options(
    short: Short, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "p.txt").write_text("a ((red)) boat --w 70 --h 72 --d 5 --am 1\na cup --n dark --am 1\n")
    named = f"preview.prompts_file={json.dumps(str(tmp_path / 'p.txt'))}"
    config = short(named, "preview.negative=blurry", "training.steps=1", name="first")
    run = prepare(config)
    assert any("((red)) in the prompts is drawn as written" in note for note in run.notes)
    assert "preview: --w 70 is drawn as 64, a multiple of 8" in run.notes
    assert run.notes.count("preview: --am is left out, as preview.strengths are those of the adapter") == 1
    encoded: list[str] = []
    encode_captions = type(run.family).encode_captions

    def recorded(family: Any, pipe: Any, captions: Any) -> Any:
        encoded.extend(captions)
        return encode_captions(family, pipe, captions)

    monkeypatch.setattr(type(run.family), "encode_captions", recorded)
    run_training(run)
    assert {"blurry", "a ((red)) boat", "dark", "a cup"} <= set(encoded)
    saved = load_config(str(Path(config.output.folder) / "config.toml"))
    assert saved.preview.prompts == ("a ((red)) boat --w 64 --h 72 --d 5", "a cup --n dark")
    assert saved.preview.prompts_file == ""
    (sheet,) = (Path(config.output.folder) / "samples").glob("*.png")
    with Image.open(sheet) as image:
        recipe = json.loads(image.text["sd_lora"])
    assert (recipe["prompts"], recipe["negative"]) == (list(saved.preview.prompts), "blurry")
    read = prepare(short(named, "data.syntax=read", name="second")).config.preview.prompts
    assert read == ("a red boat --w 64 --h 72 --d 5", "a cup --n dark")
    again = short("data.syntax=read", f"preview.prompts={json.dumps(read)}", name="third")  # as a run is resumed
    assert prepare(again).config.preview.prompts == read


def test_a_sample_prompt_that_cannot_be_drawn_is_refused_first(short: Short) -> None:
    with pytest.raises(ConfigError, match="--zz, which is not read"):
        prepare(short('preview.prompts=["a cat --zz 3"]'))


def test_a_caption_of_another_program_makes_a_prompt(short: Short, folder: Path) -> None:
    (folder / "0.txt").write_text("a boat --zz 3, at sea")
    assert prepare(short("data.trigger=xq")).config.preview.prompts[0] == "a boat"
