"""What a run must find as it left it: settings, base model, images, the adapter it began with; and how it is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_runs import STEPS, body_of, config_of, go, interrupted, resumed, write_images

from sd_lora.commands.run_plan import plan_of, resuming, summary
from sd_lora.config.old_spellings import OldSpelling
from sd_lora.config.presets import load_config
from sd_lora.errors import AdapterError, ConfigError, DataError
from sd_lora.runs.folder import RunFolder
from sd_lora.training.checkpoints import Checkpoints
from sd_lora.training.preparation import prepare
from sd_lora.training.resume_check import check_same, check_unchanged


@dataclass
class Work:
    """A base, five images, and a run on them that was stopped after two steps."""

    home: Path

    def __getattr__(self, name: str) -> Path:
        return self.home / name

    def edit(self, *overrides: str) -> None:
        self.config.write_text(load_config(str(self.config), *overrides).to_toml(), "utf-8")

    @property
    def config(self) -> Path:
        return self.run / "config.toml"

    def refused(self, kind: type[Exception] = ConfigError) -> str:
        with pytest.raises(kind) as caught:
            resumed(self.run)
        assert "\n" not in str(caught.value)
        assert not RunFolder(self.run).is_finished
        return str(caught.value)


@pytest.fixture(scope="module")
def stopped(random_sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("stopped")
    shutil.copytree(random_sd_folder, home / "base")
    images = write_images(home / "images", 5)
    held = ("training.hold_out=0.3", "training.validate_every=5")
    config = config_of(home / "base", images, home / "run", "training.checkpoint_every=2", *held)
    assert interrupted(lambda: go(config, stop_after=2))
    return home


@pytest.fixture
def work(stopped: Path, tmp_path: Path) -> Work:
    """A copy of `stopped` of the test's own."""
    work = Work(tmp_path / "work")
    shutil.copytree(stopped, work.home)
    work.config.write_text(work.config.read_text("utf-8").replace(str(stopped), str(work.home)), "utf-8")
    return work


# ---- settings


#: setting → what it was, what it is edited to, as they are told
EDITS = {
    "training.seed": ("0", "1"), "training.batch_size": ("2", "4"), "training.average": ('"none"', '"ema"'),
    "training.weighting": ('"none"', '"min-snr"'), "lora.alpha": ("16.0", "3.0"), "lora.rank": ("2", "3"),
    "lora.variant": ('"lora"', '"dora"'), "lora.dropout": ("0.0", "0.5"), "optimizer.learning_rate": ("0.004", "0.1"),
    "model.prediction_type": ('"auto"', '"v_prediction"'), "training.steps": ("7", "1"),
}  # fmt: skip


def test_settings_that_were_edited_are_refused_all_at_once_with_both_values(work: Work) -> None:
    work.edit(*(f"{key}={now}" for key, (_, now) in EDITS.items()))
    said = work.refused()
    assert said.startswith(f"{work.config} has changed since the run began: ")
    assert said.endswith("; set that back, or start over with --out")
    for key, (was, now) in EDITS.items():
        assert f"{key} was {was} and is {now}" in said


@pytest.mark.parametrize("override", ["training.steps=1", "training.steps=20", "lora.rank=3"])
def test_a_setting_that_was_edited_is_refused_alone(override: str, work: Work) -> None:
    work.edit(override)
    assert work.refused().count(" was ") == 1


@pytest.mark.slow
def test_settings_that_do_not_define_the_result_may_be_edited(work: Work) -> None:
    work.edit("training.save_every=3", "training.checkpoint_every=1", "training.keep_checkpoints=1", "preview.every=4",
              "output.dtype=float32", "output.name=other", "training.micro_batch=1")  # fmt: skip
    resumed(work.run)
    assert (work.run / "adapters" / "step-000003.safetensors").exists()


def test_a_run_of_before_weighting_was_a_setting_goes_on(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    text = work.config.read_text("utf-8").replace('weighting = "none"', "debiased = false")
    work.config.write_text("".join(line for line in text.splitlines(True) if "min_snr_gamma" not in line), "utf-8")
    seen = []

    def check_older(then: dict[str, Any], *now: Any) -> None:
        settings = {**then["settings"], "training.min_snr_gamma": None, "training.debiased": False}
        seen.append(settings.pop("training.weighting"))
        check_unchanged({**then, "settings": settings}, *now)

    monkeypatch.setattr("sd_lora.training.preparation.check_unchanged", check_older)
    with pytest.warns(OldSpelling, match='write training.weighting="none"'):
        assert [report.step for report in resumed(work.run)] == list(range(3, STEPS + 1))
    assert seen == ["none"]


@pytest.mark.slow
def test_another_precision_is_refused_by_its_own_name(work: Work) -> None:
    work.edit("model.dtype=bfloat16")
    said = work.refused()
    assert "was computed in float32 and would continue in bfloat16" in said
    assert "set model.dtype=float32 in its config.toml" in said
    work.edit("model.dtype=float32")  # "auto" until now
    resumed(work.run)


@pytest.mark.slow
def test_without_a_checkpoint_the_settings_are_free(work: Work) -> None:
    shutil.rmtree(work.run / "checkpoints")
    work.edit("training.seed=1")
    assert [report.step for report in resumed(work.run)] == list(range(1, STEPS + 1))


def test_an_older_checkpoint_that_tells_less_is_not_refused(work: Work) -> None:
    older = {"examples": {"a": "1"}, "base": "x", "device": "cpu", "dtype": "float32", "torch": "2", "processes": 1}
    now = {**older, "settings": {"training.seed": 1}, "modules": {"unet.a": [1, 1.0, "lora"]}, "held": {"b": "2"},
           "vae": "v", "text": "t", "prediction": "epsilon", "noise": [1.0]}  # fmt: skip
    assert check_same(older, now, work.run) == []
    assert check_same({**older, "torch": "1"}, now, work.run)[0].startswith(
        "the run continues with torch 2 instead of 1"
    )


@pytest.mark.slow
def test_weights_of_other_shapes_in_an_older_checkpoint_are_refused(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    for check in ("check_unchanged", "check_modules"):
        monkeypatch.setattr(f"sd_lora.training.preparation.{check}", lambda *_: None)
    work.edit("lora.rank=3")
    assert "of other modules or ranks" in work.refused(AdapterError)


# ---- the base model


def scheduler_with(**facts: Any) -> Callable[[Path], None]:
    def edit(base: Path) -> None:
        file = base / "scheduler" / "scheduler_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | facts))

    return edit


def other_weights(part: str) -> Callable[[Path], None]:
    def edit(base: Path) -> None:
        (file,) = (base / part).glob("*.safetensors")
        save_file({name: t + 1 if t.is_floating_point() else t for name, t in load_file(file).items()}, file,
                  metadata={"format": "pt"})  # fmt: skip

    return edit


PARTS = {
    "denoiser": other_weights("unet"),
    "VAE": other_weights("vae"),
    "text encoder or tokenizer": other_weights("text_encoder"),
    "prediction type": scheduler_with(prediction_type="v_prediction"),
    "noise schedule": scheduler_with(beta_end=0.013),
}


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_the_base_model_must_be_what_it_was(part: str, work: Work) -> None:
    PARTS[part](work.base)
    said = work.refused(DataError)
    assert f"the base model has another {part};" in said  # and nothing else is wrong, images least of all


# ---- images


def test_a_held_out_image_must_be_what_it_was(work: Work) -> None:
    run = prepare(RunFolder(work.run).read_config(), resumed=True)
    (first, *others) = [example.name for example in run.held]
    shutil.copy(work.images / run.examples[0].name, work.images / first)
    said = work.refused(DataError)
    assert f"1 held-out image or caption is changed ({first})" in said
    assert not any(name in said for name in others)


def test_one_image_is_told_in_the_singular(work: Work) -> None:
    run = prepare(RunFolder(work.run).read_config(), resumed=True)
    first, second = (example.name for example in run.examples[:2])
    shutil.copy(work.images / second, work.images / first)
    assert f"1 image or caption is changed ({first}); put them back" in work.refused(DataError)


# ---- the adapter that a run began with


class Begun:
    """Runs that begin with the adapter `start`, of rank 3."""

    def __init__(self, base: Path, home: Path) -> None:
        self.base, self.home, self.images = base, home, write_images(home / "images")
        self.start = self.write(3, home / "start.safetensors")

    def write(self, rank: int, file: Path) -> Path:
        config = config_of(self.base, self.images, self.home / "made", f"lora.rank={rank}")
        return prepare(config).adapter.save(file, dtype="float32")

    def run(self, name: str, **end: int) -> Path:
        config = config_of(self.base, self.images, self.home / name, f"lora.init={self.start}")
        assert interrupted(lambda: go(config, **end)) is bool(end)
        return self.home / name


@pytest.fixture
def begun(random_sd_folder: Path, tmp_path: Path) -> Begun:
    return Begun(random_sd_folder, tmp_path)


@pytest.mark.slow
def test_the_adapter_that_a_run_began_with_may_be_another_or_gone(begun: Begun) -> None:
    whole, saved, unsaved = begun.run("whole"), begun.run("saved", stop_after=2), begun.run("unsaved", crash_after=1)
    begun.write(5, begun.start)
    resumed(saved)
    begun.start.unlink()
    resumed(unsaved)
    for run in (saved, unsaved):
        assert body_of(run / "adapter.safetensors") == body_of(whole / "adapter.safetensors")


@pytest.mark.slow
def test_a_copy_of_it_that_was_exchanged_is_refused(begun: Begun) -> None:
    run = begun.run("run", stop_after=2)
    begun.write(5, run / "init.safetensors")
    with pytest.raises(ConfigError, match=r"modules of its adapter are new, gone or of another rank, .*; put its init"):
        resumed(run)


def test_an_adapter_that_vanishes_before_the_run_begins_leaves_no_folder(tmp_path: Path) -> None:
    config = config_of(Path("tiny"), tmp_path, tmp_path / "run", "lora.init=gone.safetensors")
    with pytest.raises(AdapterError, match=r"gone\.safetensors cannot be read"):
        RunFolder(tmp_path / "run").create(config)
    assert not (tmp_path / "run").exists()


# ---- where it goes on


@pytest.mark.slow
def test_a_run_says_where_it_goes_on_and_what_was_held_out(work: Work) -> None:
    run = prepare(RunFolder(work.run).read_config(), resumed=True)
    assert (run.resumed_from, resuming(run)) == (2, f"resuming after step 2 of {STEPS}")
    assert "3 of 5 images, 2 held out, at " in summary(run)
    reasons = " ".join(plan_of(run)["reasons"])
    assert "2 images at once, as the run began" in reasons
    assert "as the run began; the rule gives" in reasons
    assert "as set" not in reasons
    resumed(work.run)
    assert resuming(prepare(RunFolder(work.run).read_config(), resumed=True)).startswith(f"all {STEPS} steps are done")
    shutil.rmtree(work.run / "checkpoints")
    run = prepare(RunFolder(work.run).read_config(), resumed=True)
    assert (run.resumed_from, resuming(run)) == (None, "no complete checkpoint found; starting over")


def test_a_new_run_goes_on_nowhere(random_sd_folder: Path, tmp_path: Path) -> None:
    run = prepare(config_of(random_sd_folder, write_images(tmp_path / "images"), tmp_path / "run"))
    assert (run.resumed_from, resuming(run)) == (None, "")
    assert "3 images at" in summary(run)


def test_a_checkpoint_is_looked_at_without_its_tensors(work: Work) -> None:
    store = Checkpoints(work.run / "checkpoints", 2)
    light, whole = store.newest(tensors=False), store.newest()
    assert light is not None
    assert whole is not None
    assert (light.step, light.facts, light.tensors) == (whole.step, whole.facts, {})
    assert torch.is_tensor(next(iter(whole.tensors["adapter"].values())))
