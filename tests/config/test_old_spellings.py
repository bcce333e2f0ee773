"""Settings and presets by the names they had before."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from sd_lora.config.old_spellings import OLD_PRESETS, OldSpelling
from sd_lora.config.presets import copy_preset, load_config, preset_names, preset_text
from sd_lora.config.reading import parse_config, read_config
from sd_lora.config.schema import RunConfig, TrainingConfig
from sd_lora.errors import ConfigError
from sd_lora.training.resume_check import check_unchanged


@pytest.mark.parametrize(
    ("old", "now", "written"),
    [
        (["training.debiased=true"], ["training.weighting=debiased"], "training.debiased is .*debiased"),
        (["training.debiased=false"], [], 'training.debiased is .* write training.weighting="none"'),
        (["training.min_snr_gamma=5"], ["training.weighting=min-snr"], 'min_snr_gamma without .*="min-snr"'),
        (
            ["training.min_snr_gamma=3", "training.debiased=false"],
            ["training.weighting=min-snr", "training.min_snr_gamma=3"],
            'training.debiased is .*="min-snr"',
        ),
        (["training.weighting=debiased", "training.debiased=false"], ["training.weighting=debiased"], '="debiased"'),
    ],
)  # fmt: skip
def test_old_weightings_are_read_with_a_warning(old: list[str], now: list[str], written: str, tmp_path: Path) -> None:
    with pytest.warns(OldSpelling, match=written):
        assert parse_config([], old) == parse_config([], now)
    content = "\n".join(line.partition(".")[2] for line in old).replace("debiased\n", '"debiased"\n')
    (tmp_path / "config.toml").write_text(f"[training]\n{content}\n")
    with pytest.warns(OldSpelling):
        assert read_config(tmp_path / "config.toml") == parse_config([], now)


def test_todays_spellings_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for overrides in (["training.weighting=min-snr", "training.min_snr_gamma=3"], ["training.weighting=debiased"]):
            assert parse_config([], overrides) == parse_config([("config.toml", _tables(overrides))])
        assert load_config("style", "training.min_snr_gamma=3").training.min_snr_gamma == 3


def _tables(overrides: list[str]) -> dict[str, dict[str, object]]:
    import tomllib

    return tomllib.loads(parse_config([], overrides).to_toml())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["training.debiased=true", "training.min_snr_gamma=5"], "are two weightings"),
        (["training.debiased=true", "training.weighting=min-snr"], "are two weightings"),
        (["training.debiased=perhaps"], "takes true or false"),
    ],
)
def test_two_weightings_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_config([], overrides)


@pytest.mark.parametrize("name", OLD_PRESETS)
def test_old_presets_are_the_new_one(name: str, tmp_path: Path) -> None:
    assert name not in preset_names()
    with pytest.warns(OldSpelling, match=f"the preset {name} is now called {OLD_PRESETS[name]}"):
        assert load_config(name) == load_config(OLD_PRESETS[name])
    with pytest.warns(OldSpelling):
        assert copy_preset(name, tmp_path) == tmp_path / f"{OLD_PRESETS[name]}.toml"
    assert (tmp_path / f"{OLD_PRESETS[name]}.toml").read_text("utf-8") == preset_text(OLD_PRESETS[name])


def test_the_command_line_says_so_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sd_lora", "presets", "show", "sdxl-style"], capture_output=True, text=True, check=True
    )
    assert done.stderr == "warning: the preset sdxl-style is now called style; write that\n"
    assert done.stdout == preset_text("style")


@pytest.mark.parametrize(
    ("gamma", "debiased", "now"),
    [(None, False, "none"), (None, True, "debiased"), (5.0, False, "min-snr"), (3.0, False, "min-snr")],
)
def test_a_checkpoint_with_the_old_settings_is_of_the_same_run(
    gamma: float | None, debiased: bool, now: str, tmp_path: Path
) -> None:
    old = {"training.min_snr_gamma": gamma, "training.debiased": debiased, "training.seed": 0, "training.steps": None}

    def check(**training: object) -> None:
        config = RunConfig(training=TrainingConfig(min_snr_gamma=gamma or 5.0, **training))  # type: ignore[arg-type]
        check_unchanged({"settings": old}, config, torch.float32, tmp_path)

    check(weighting=now)
    other = "none" if now == "debiased" else "debiased"
    with pytest.raises(ConfigError, match=f'weighting was "{now}" and is "{other}"'):
        check(weighting=other)
    with pytest.raises(ConfigError, match=r"training\.steps was absent and is 3"):
        check(weighting=now, steps=3)
