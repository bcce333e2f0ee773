"""What is watched: losses by noise level, the validation loss, pictures of both, trackers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_runs import STEPS, config_of, go, write_images

from sd_lora.errors import ConfigError
from sd_lora.runs.logs import smoothed
from sd_lora.runs.reports import LEVELS
from sd_lora.training.preparation import prepare


@pytest.fixture(autouse=True)
def _plain_curves() -> None:
    """Here curves are drawn as they are."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("watching") / "images", 6)


@pytest.mark.slow
def test_losses_are_told_apart_by_noise(random_sd_folder: Path, images: Path, tmp_path: Path) -> None:
    reports = go(config_of(random_sd_folder, images, tmp_path / "run", "training.batch_size=4"))
    for report in reports:
        assert len(report.by_noise) == 4
        there = [value for value in report.by_noise if value is not None]
        # one of the four images in each quarter: timesteps are stratified
        assert len(there) == 4
        assert report.loss == pytest.approx(sum(there) / 4, rel=1e-5)
        assert report.grad_norm is not None
        assert report.grad_norm > 0
        assert report.memory > 10**7
    only = config_of(random_sd_folder, images, tmp_path / "low", "training.timestep_range=0,0.2")
    assert all(r.by_noise[0] is not None and r.by_noise[1:] == [None] * 3 for r in go(only))
    weighted = config_of(
        random_sd_folder, images, tmp_path / "weighted", "training.weighting=min-snr", "training.min_snr_gamma=1"
    )
    assert any(r.loss != pytest.approx(sum(v for v in r.by_noise if v) / 2) for r in go(weighted))


@pytest.mark.slow
def test_losses_by_noise_are_without_the_weights_of_regularisation_images(
    random_sd_folder: Path, images: Path, tmp_path: Path
) -> None:
    prior, found = write_images(tmp_path / "prior", 2), []
    for name, weight in (("plain", 1.0), ("heavy", 5.0)):
        more = (f"data.regularisation={prior}", f"data.prior_weight={weight}", "training.steps=1")
        found += go(config_of(random_sd_folder, images, tmp_path / name, "training.batch_size=4", *more))
    plain, heavy = found
    assert heavy.by_noise == pytest.approx(plain.by_noise, rel=1e-5)
    assert heavy.loss > 1.5 * plain.loss


def test_the_validation_loss_is_of_images_that_are_not_trained(
    random_sd_folder: Path, images: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = config_of(random_sd_folder, images, run, "training.hold_out=0.3", "training.validate_every=3")
    prepared = prepare(config)
    held = {example.name for example in prepared.held}
    assert len(held) == 2
    assert not held & {example.name for example in prepared.examples}
    go(config)
    lines = [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6, STEPS]
    for line in lines:
        for name in ("held", "trained"):
            assert len(line[f"{name}_by_level"]) == LEVELS
            assert line[name] == pytest.approx(sum(line[f"{name}_by_level"]) / LEVELS)
    assert lines[0]["held"] != lines[0]["trained"]
    with Image.open(run / "validation.png") as picture:
        assert picture.size[0] == 800


@pytest.mark.slow
def test_the_validation_loss_does_not_depend_on_how_noise_is_trained(
    random_sd_folder: Path, images: Path, tmp_path: Path
) -> None:
    """Without a step that counts the adapter stays what it is, and so does its validation loss."""
    found = []
    for name, more in (("plain", ()), ("other", ("training.noise_offset=0.5", "training.input_perturbation=0.5",
                                                 "training.loss=l2", "training.seed=0"))):  # fmt: skip
        still = (
            "training.hold_out=0.3",
            "training.validate_every=1",
            "optimizer.learning_rate=1e-6",
            "training.steps=1",
        )
        go(config_of(random_sd_folder, images, tmp_path / name, *still, *more))
        found.append(json.loads((tmp_path / name / "validation.jsonl").read_text().splitlines()[-1])["held"])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.mark.slow
def test_images_in_a_folder_to_validate_on_are_held_out(random_sd_folder: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 4)
    write_images(images / "val", 2)
    run = tmp_path / "run"
    config = config_of(random_sd_folder, images, run, "training.validate_every=3")
    prepared = prepare(config)
    assert len(prepared.held) == 2
    assert all(example.name.startswith("val/") for example in prepared.held)
    assert len(prepared.examples) == 4
    go(config)
    assert (run / "validation.jsonl").exists()
    unused = prepare(config_of(random_sd_folder, images, tmp_path / "other"))
    assert not unused.held
    assert len(unused.examples) == 4


def test_too_few_images_to_hold_out_are_told(random_sd_folder: Path, images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"leaves 1 of 6 images"):
        prepare(
            config_of(random_sd_folder, images, tmp_path / "run", "training.hold_out=0.8", "training.validate_every=3")
        )


def test_the_running_mean() -> None:
    assert smoothed([1, 2, 3, 4], 2) == [1, 1.5, 2.5, 3.5]
    assert smoothed([3], 5) == [3]
    assert smoothed([], 5) == []


@pytest.mark.slow
def test_losses_go_to_a_tracker_and_a_missing_one_is_refused(
    random_sd_folder: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None if name == "wandb" else object())
        with pytest.raises(ConfigError, match=r"training.trackers needs .*: wandb; run pip install wandb"):
            prepare(config_of(random_sd_folder, images, tmp_path / "refused", "training.trackers=wandb"))
    run = tmp_path / "run"
    reports = go(config_of(random_sd_folder, images, run, "training.trackers=tensorboard"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    files = [EventAccumulator(str(file)).Reload() for file in run.rglob("events.out.tfevents.*")]
    (events,) = [file for file in files if "loss" in file.Tags()["scalars"]]
    found = events.Scalars("loss")
    assert [event.step for event in found] == list(range(1, STEPS + 1))
    assert [event.value for event in found] == pytest.approx([report.loss for report in reports], rel=1e-6)
    assert {"learning_rate", "memory", "grad_norm", "loss_noise_1"} <= set(events.Tags()["scalars"])


@pytest.mark.slow
def test_dropout_acts_while_training_only(random_sd_folder: Path, images: Path, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    plain = go(config_of(random_sd_folder, images, tmp_path / "plain"))
    for option in ("lora.dropout=0.5", "lora.rank_dropout=0.5"):
        run = tmp_path / option
        dropped = go(config_of(random_sd_folder, images, run, option))
        assert dropped[0].loss == plain[0].loss  # up is zero: nothing to be left out yet
        assert [r.loss for r in dropped[2:]] != [r.loss for r in plain[2:]]
    assert torch.equal(torch.get_rng_state(), state)
