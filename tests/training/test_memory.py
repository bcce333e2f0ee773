"""How steps are fitted into memory: what fits is done at once, what does not is made leaner, and it is said why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_runs import config_of, write_images
from typer.testing import CliRunner

from sd_lora.check.cost import Cost
from sd_lora.commands.app import app
from sd_lora.commands.run_plan import plan_of
from sd_lora.config.schema import TrainingConfig
from sd_lora.models.recompute import Recomputed
from sd_lora.training.memory import Means, choose_means
from sd_lora.training.preparation import prepare

GB = 2**30


def chosen(free: float, **training: object) -> Means:
    """Eight images of 1 GB of activations each beside 2 GB. Checkpointing takes an eighth of it and twice the time,
    that of the feed-forward layers half of it and a tenth more time."""
    costs = {
        False: Cost(1.0, 2 * GB, 8 * GB, "a step"), "ff": Cost(1.1, 2 * GB, 4 * GB, "less"),
        True: Cost(2.0, 2 * GB, GB, "leaner"),
    }  # fmt: skip

    config = TrainingConfig(batch_size=8, **training)  # type: ignore[arg-type]
    return choose_means(config, 8, int(free * GB), costs.__getitem__)


@pytest.mark.parametrize(
    ("free", "micro", "checkpointing"),
    [
        (24, 8, False), (12, 8, False), (11.7, 7, False), (8, 4, False), (4, 1, False), (3.5, 1, "ff"),
        (3, 1, "ff"), (2.9, 3, True), (2.5, 1, True), (1, 1, True),
    ],
)  # fmt: skip
def test_as_much_as_fits_is_computed_at_once(free: float, micro: int, checkpointing: Recomputed) -> None:
    found = chosen(free)
    assert (found.micro_batch, found.gradient_checkpointing) == (micro, checkpointing)
    assert found.seconds == {False: 1.0, "ff": 1.1, True: 2.0}[checkpointing]
    said = " ".join(found.reasons)
    because = {False: "", "ff": "checkpointing of the feed-forward layers, because", True: "checkpointing, because"}
    assert because[checkpointing] in said
    assert ("because" in said) is bool(checkpointing)
    assert ("more would not fit" in said) is (micro < 8)
    if free > 2.8:
        assert found.memory <= 0.85 * free * GB


def test_what_is_set_is_kept_and_said() -> None:
    found = chosen(4, micro_batch=8, gradient_checkpointing=False)
    assert (found.micro_batch, found.gradient_checkpointing) == (8, False)
    assert "8 images at once, as set" in found.reasons
    assert "no gradient checkpointing, as set" in found.reasons
    again = choose_means(TrainingConfig(batch_size=2, micro_batch=1, gradient_checkpointing=False), 2, GB,
                         lambda _: Cost(1, 1, 1, "a step"), given="as the run began")  # fmt: skip
    assert [reason for reason in again.reasons if reason.endswith(", as the run began")] == again.reasons[:2]
    assert chosen(24, gradient_checkpointing=True).gradient_checkpointing
    assert chosen(4, micro_batch=8).gradient_checkpointing  # eight must fit


def test_a_run_keeps_what_was_chosen(random_sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_images(tmp_path / "images")
    plain = prepare(config_of(random_sd_folder, images, tmp_path / "run")).config.training
    assert (plain.micro_batch, plain.gradient_checkpointing) == (2, False)
    monkeypatch.setattr("sd_lora.training.preparation.usable_memory", lambda _: 1)
    lean = prepare(config_of(random_sd_folder, images, tmp_path / "run")).config.training
    assert (lean.micro_batch, lean.gradient_checkpointing) == (1, True)


def test_what_comes_at_the_end_only_is_said(random_sd_folder: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    never = ("preview.every=0", "training.save_every=0")
    plain = plan_of(prepare(config_of(random_sd_folder, images, tmp_path / "run", *never)))["reasons"]
    assert not any("only after the last one" in reason for reason in plain)
    rare = ("training.save_every=8", "preview.every=9")
    reasons = plan_of(prepare(config_of(random_sd_folder, images, tmp_path / "run", *rare)))["reasons"]
    assert reasons[-1] == "training.save_every=8 and preview.every=9 in 7 steps: only after the last one"


def test_the_command_says_what_a_run_will_be_and_writes_nothing(random_sd_folder: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    before = sorted(tmp_path.rglob("*"))
    asked = ["plan", str(images), "--base", str(random_sd_folder), "--trigger", "zwq"]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert done.exit_code == 0
    for said in ("3 images", "exposures", "at once", "available", "float32", "about"):
        assert said in done.stdout
    facts = json.loads(CliRunner().invoke(app, [*asked, "--json", "training.steps=5"]).stdout)
    assert facts["steps"] == 5
    assert facts["exposures"] == 5 * facts["batch_size"]
    assert facts["seconds"] > 0
    assert facts["memory_bytes"] > 10**6
    assert facts["micro_batch"] == facts["batch_size"]
    assert facts["gradient_checkpointing"] is False
    assert all(isinstance(reason, str) for reason in facts["reasons"])
    assert sorted(tmp_path.rglob("*")) == before
